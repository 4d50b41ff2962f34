"""Exit codes and one-line errors: a small command of our own, called in this process."""

import os
import shlex
import subprocess
import sys

import pytest

from alignlib.cli import exits, options
from alignlib.records.jsonl import DataError
from alignlib.records.stream import StateError
from helpers.outcome import outcome
from helpers.process import command, environment


def raising(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("a.jsonl:3: prompt: missing"), 65, "al-test: a.jsonl:3: prompt: missing\n"),
        (StateError("cannot resume"), 2, "al-test: cannot resume\n"),
        (options.click.UsageError("no such thing"), 2, "al-test: no such thing\n"),
        (options.click.ClickException("failed"), 1, "al-test: failed\n"),
        (RuntimeError("two\n   lines"), 1, "al-test: RuntimeError: two lines\n"),
        (KeyboardInterrupt(), 130, ""),
        (exits.Terminated("saved in x"), 143, "al-test: saved in x\n"),
    ],
)
def test_errors_become_exit_codes_and_one_line(capfd, error, code, words):
    assert outcome(capfd, raising(error)) == (code, words)


def test_a_cut_file_is_no_interruption(capfd):
    @options.command(name="al-test")
    def main():
        raise EOFError("cut")

    assert outcome(capfd, lambda: main.main([], "al-test")) == (1, "al-test: EOFError: cut\n")


def test_a_body_that_ends_is_0(capfd):
    assert outcome(capfd, lambda: None) == (0, "")


@pytest.mark.parametrize(("args", "traceback"), [
    ([], False), (["-v"], True), (["--verbose"], True), (["--stop", "-v"], False), (["--", "-v"], False),
    (["part"], False), (["-v", "part"], True), (["part", "-v"], True), (["part", "--", "-v"], False),
])
def test_a_traceback_only_with_v(capfd, args, traceback):
    """As an option, of the command or of its subcommand; not as another option's value or as an argument."""
    @options.command(name="part")
    @options.click.option("--stop")
    @options.click.argument("texts", nargs=-1)
    def part(stop, texts):
        raise RuntimeError("why")

    @options.group(name="al-test")
    def whole():
        """Has a part."""

    whole.add_command(part)
    said = outcome(capfd, lambda: (whole if "part" in args else part).main(args, "al-test"))
    assert said[0] == 1 and said[1].endswith("al-test: RuntimeError: why\n")
    assert said[1].startswith("Traceback") == traceback


def test_what_caused_a_failure_is_in_the_traceback(capfd):
    """A message of our own has no traceback to show but that of its cause: an exception in a user's function."""
    @options.command(name="al-test")
    def main():
        try:
            raise ValueError("why")
        except ValueError as error:
            raise options.click.ClickException("failed") from error

    assert outcome(capfd, lambda: main.main([], "al-test")) == (1, "al-test: failed\n")
    code, said = outcome(capfd, lambda: main.main(["-v"], "al-test"))
    assert code == 1 and said.startswith("Traceback") and "ValueError: why" in said and said.endswith("failed\n")


def test_closed_standard_streams_are_named():
    shell = f"exec {shlex.join(command('al-score', 'toy:polite'))} "
    for closed, said in (("<&-", "standard input is closed"), (">&-", "standard output is closed")):
        done = subprocess.run(["bash", "-c", shell + closed], capture_output=True, text=True, env=environment())
        assert done.returncode in (1, 65) and said in done.stderr and "Traceback" not in done.stderr


# A command whose libraries warn: by Python's warnings, by a log that nobody has set up.
WARNS = """
import logging, warnings
from alignlib.cli import options

@options.command(name="al-test")
def main():
    warnings.warn("mind this", FutureWarning)
    logging.getLogger("library").warning("and that")
    logging.getLogger("library").error("this is wrong")

main()
"""


@pytest.mark.parametrize(("python", "args", "warned"), [
    ([], [], False), ([], ["-v"], True), (["-W", "always"], [], True)])
def test_what_libraries_warn_of_is_shown_where_it_is_asked_for(python, args, warned):
    done = subprocess.run([sys.executable, *python, "-c", WARNS, *args], capture_output=True, text=True,
                          env=environment())
    assert done.returncode == 0 and ("FutureWarning: mind this" in done.stderr) == warned
    assert "and that" not in done.stderr and done.stderr.endswith("this is wrong\n")


def test_what_is_set_in_the_environment_stays(monkeypatch, capfd):
    monkeypatch.setenv("HF_HUB_VERBOSITY", "info")
    monkeypatch.delenv("DATASETS_VERBOSITY", raising=False)
    seen = []
    outcome(capfd, lambda: seen.extend(os.environ[name] for name in ("HF_HUB_VERBOSITY", "DATASETS_VERBOSITY")))
    assert seen == ["info", "error"]
