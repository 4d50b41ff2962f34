"""What every test shares: the fixtures folder, tiny models, commands as real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT.parent / "shared" / "fixtures"

# Two torch processes on few cores stand still without this; tests of tiny models want one thread each.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's background job ignores control-C, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def sigterm():
    """A training loop that a test calls catches it; afterwards it is what it was."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The reference numbers of the original implementations."""
    if not FIXTURES.is_dir():
        pytest.skip("needs the reference numbers in ../shared/fixtures")
    return FIXTURES


def command(name: str, *args: object) -> list[str]:
    """The argument list that runs `al-NAME` in a process of its own, from this checkout."""
    module = name.replace("-", "_")
    return [sys.executable, "-c", f"import sys; from {module} import main; main(prog_name={name!r})",
            *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'lib'}{os.pathsep}{ROOT / 'tools'}"}


def call(name: str, *args: object, stdin: bytes | str = b"", **settings) -> subprocess.CompletedProcess:
    """Run a command to its end: .returncode, .stdout, .stderr (text)."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(command(name, *args), input=data, capture_output=True, env=environment(), **settings)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done
