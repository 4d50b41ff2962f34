"""A command's body called in this process."""

from collections.abc import Callable

import pytest

from alignlib.cli import exits


def outcome(capfd: pytest.CaptureFixture[str], body: Callable[[], int | None]) -> tuple[int, str]:
    """Its exit code, and what it leaves on stderr."""
    with pytest.raises(SystemExit) as leaving:
        exits.run(body, "al-test")
    return leaving.value.code, capfd.readouterr().err
