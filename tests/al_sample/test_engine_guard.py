"""What a command has started ends after it, and nothing else does."""

import os
import signal
import subprocess
import sys
import time

import pytest

from al_sample import engine_guard
from helpers.process import environment

SLEEPER = "import signal, time; {more}; print('ready', flush=True); time.sleep(600)"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
# Starts a guard, then two sleepers, of which the second does not inherit the mark; waits to be killed.
PARENT = f"""
import os, subprocess, sys, time
from al_sample import engine_guard
others = dict(os.environ)
engine_guard.start()
for env in (None, others):
    sleeper = subprocess.Popen([sys.executable, "-c", {SLEEPER.format(more="0")!r}], env=env, stdout=subprocess.PIPE)
    sleeper.stdout.readline()
    print(sleeper.pid, flush=True)
time.sleep(600)
"""


def runs(process: int) -> bool:
    """Whether it does; one that has ended and that nobody waits for does not."""
    try:
        with open(f"/proc/{process}/stat") as handle:
            return handle.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_command_started_ends_with_it(sign):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=environment(), stdout=subprocess.PIPE, text=True)
    own, other = int(parent.stdout.readline()), int(parent.stdout.readline())
    assert runs(own)
    parent.send_signal(sign)
    parent.communicate()
    while runs(own):  # the guard's turn
        time.sleep(0.01)
    assert runs(other)
    os.kill(other, signal.SIGKILL)


def test_who_does_not_end_when_asked_is_made_to(monkeypatch):
    monkeypatch.setattr(engine_guard, "GRACE", 0.0)
    env = {**environment(), engine_guard.MARK: "deaf"}
    deaf = subprocess.Popen([sys.executable, "-c", SLEEPER.format(more=DEAF)], env=env, stdout=subprocess.PIPE)
    deaf.stdout.readline()
    assert engine_guard.marked("deaf") == [deaf.pid] and engine_guard.marked("dea") == []
    engine_guard.end_all("deaf")
    assert deaf.wait() == -signal.SIGKILL


def test_the_tracker_of_shared_memory_is_left_to_its_work():
    env = {**environment(), engine_guard.MARK: "tracker"}
    code = f"# {engine_guard.TRACKER.decode()}\n{SLEEPER.format(more='0')}"
    tracker = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE)
    tracker.stdout.readline()
    assert engine_guard.marked("tracker") == []
    tracker.kill()
    tracker.wait()
