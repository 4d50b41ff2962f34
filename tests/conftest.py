"""What every test shares: the fixtures folder, one thread a process, signals as they were."""

import os
import signal
from pathlib import Path

import pytest

from helpers import forks
from helpers.process import ROOT

FIXTURES = ROOT.parent / "shared" / "fixtures"

# Two torch processes on few cores stand still without this; tests of tiny models want one thread each.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("OMP_NUM_THREADS", "1")
forks.environment_then()
# A shell's background job ignores control-C, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals():
    """A training loop that a test calls catches SIGTERM, a command Ctrl-C; afterwards they are what they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The reference numbers of the original implementations."""
    if not FIXTURES.is_dir():
        pytest.skip("needs the reference numbers in ../shared/fixtures")
    return FIXTURES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole experiments come first: left to the end, one worker would run them while the others wait."""
    items.sort(key=lambda item: item.path.name != "test_smoke.py")
