"""`make quick` leaves out what is slow, but no room."""

import subprocess
import sys

import pytest

from helpers.process import ROOT, environment

LIBRARY = [f"alignlib/{path.parent.name}" for path in (ROOT / "lib" / "alignlib").glob("*/__init__.py")]
ROOMS = sorted([*LIBRARY, *(path.stem for path in (ROOT / "tools").glob("al_*"))])


@pytest.mark.long
@pytest.mark.slow
def test_every_room_has_a_quick_test():
    done = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-p", "no:xdist", "-m", "not slow"],
                          cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    files = {line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("tests/")}
    assert len(ROOMS) > 15
    assert [room for room in ROOMS
            if not any(file.startswith((f"tests/{room}/", f"tests/test_{room}.py")) for file in files)] == []
