"""Ctrl-C while a command imports: quiet, 130, whatever it imports just then. A finder sends it, no clock does."""

import signal
import subprocess
import sys
import tomllib

import pytest

from alignlib.cli import start
from helpers.commands import lines, pairs
from helpers.process import ROOT, environment

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

# sys.argv: a module's name, a command's and its arguments. The command starts as its installed script starts it, and
# gets a SIGINT when that module is looked for; before it ends it says whether that came.
PROGRAM = """
import os, signal, sys
from importlib import import_module

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            print("interrupted", flush=True)
            os.kill(os.getpid(), signal.SIGINT)

place, wanted, *sys.argv = sys.argv[1:]
sys.meta_path.insert(0, Interrupt())
module, entry = place.split(":")
sys.exit(getattr(import_module(module), entry)())
"""


def interrupted(wanted: str, name: str, *args: object, place: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", PROGRAM, place or SCRIPTS[name], wanted, name, *map(str, args)],
                          input=lines(*pairs(2)), env=environment(), capture_output=True)


# Of each command arguments with which it comes to import what is heavy, and what that is. MODEL: no more than a name.
HEAVY = {
    "al-args": (["MODEL", "MODEL"], "torch"),
    "al-data": (["hh", "--limit", "1"], "datasets"),
    "al-eval": (["text"], "numpy"),
    "al-label-ai": (["--judge", "MODEL", "--base-url", "http://127.0.0.1:9/v1"], "openai"),
    "al-pref2rw": ([], "alignlib.records.stream"),
    "al-sample": (["MODEL"], "torch"),
    "al-score": (["MODEL"], "torch"),
    "al-sft": (["MODEL", "-o", "OUT"], "torch"),
    "al-train-alt": (["MODEL", "-o", "OUT"], "torch"),
    "al-train-exo": (["MODEL", "-o", "OUT"], "torch"),
    "al-train-ppo": (["MODEL", "--reward", "length", "-o", "OUT"], "torch"),
    "al-train-rm": (["MODEL", "-o", "OUT"], "torch"),
}


def test_every_command_is_here():
    assert HEAVY.keys() == SCRIPTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_control_c_in_an_import_is_quiet_in_every_command(name, tmp_path):
    """In the first import of the command's own, in click's, in that of what only its body needs."""
    args, heavy = HEAVY[name]
    args = [str(tmp_path / word) if word in ("MODEL", "OUT") else word for word in args]
    (tmp_path / "MODEL").mkdir()
    (tmp_path / "MODEL" / "config.json").write_text('{"model_type": "llama"}')
    for wanted in (name.replace("-", "_"), "click", "alignlib.cli.options", heavy):
        done = interrupted(wanted, name, *args)
        assert (done.returncode, done.stdout, done.stderr) == (130, b"interrupted\n", b""), wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MODEL"]


@pytest.mark.parametrize("handler", ["except BaseException: pass", "except BaseException: raise ImportError('half')"])
def test_an_import_that_passes_over_it_does_not_go_on(handler, tmp_path):
    """As some libraries do when they look for what they could use."""
    (tmp_path / "al_greedy.py").write_text(f"try:\n    import al_wanted\n{handler}\nprint('went on')\n")
    (tmp_path / "al_wanted.py").write_text("")
    done = subprocess.run([sys.executable, "-c", PROGRAM, "alignlib.cli.start:al_greedy", "al_wanted", "al-greedy"],
                          env=environment(), capture_output=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"interrupted\n", b"")


BEFORE_ANYTHING = {
    "the script has found its command": "entry = start.al_score\nkill()",
    "it is about to call it": "entry = start.al_score\nimport al_score\nkill()",
    "its streams are made ready": "from alignlib.cli import exits\nexits.be_quiet = kill\nstart.al_score()",
}


@pytest.mark.parametrize("moment", BEFORE_ANYTHING)
def test_before_a_command_has_begun_it_is_quiet_too(moment):
    program = ("import os, signal, sys\nfrom alignlib.cli import start\n"
               "def kill():\n    os.kill(os.getpid(), signal.SIGINT)\n"
               f"sys.argv = ['al-score', '--version']\n{BEFORE_ANYTHING[moment]}\nprint('went on')")
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_what_a_script_imports_before_that_is_next_to_nothing():
    """Of two milliseconds: a Ctrl-C in them is Python's own matter, as one in Python's start is."""
    program = ("import sys; before = {*sys.modules}; from alignlib.cli.start import al_sft; "
               "print(*sorted({*sys.modules} - before))")
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert {*done.stdout.split()} <= {"__future__", "_signal", "alignlib", "alignlib.cli", "alignlib.cli.start"}


def test_outside_of_imports_it_is_a_keyboard_interrupt():
    with pytest.raises(KeyboardInterrupt):
        start.interrupt(signal.SIGINT, sys._getframe())


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL, lambda number, frame: None])
def test_who_ignores_it_or_handles_it_goes_on_so(handler):
    """A shell's background job ignores it, say."""
    signal.signal(signal.SIGINT, handler)
    start.watch()
    assert signal.getsignal(signal.SIGINT) == handler


def test_a_name_that_no_command_has():
    assert callable(start.al_score) and not hasattr(start, "main")


def test_the_command_is_told_its_name_when_python_m_starts_it():
    for words in (["al_score", "--version"], ["al_score", "--no-such"]):
        done = subprocess.run([sys.executable, "-m", "alignlib.cli.start", *words], env=environment(),
                              capture_output=True, text=True)
        assert (done.stdout + done.stderr).startswith("al-score")
