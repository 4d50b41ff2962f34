"""Exit codes and one-line errors: a small command of our own, called in this process."""

import errno
import importlib
import os
import shlex
import subprocess
import sys

import pytest

from alignlib.cli import exits, options
from alignlib.records.disk import DiskFull, StateError
from alignlib.records.jsonl import DataError
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


@pytest.mark.parametrize(("error", "words"), [
    (DiskFull("no space left on device: runs"), "no space left on device: runs"),
    (OSError(errno.ENOSPC, "No space left on device", "cache/hub/x"), "no space left on device: cache/hub"),
    (OSError(errno.ENOSPC, "No space left on device", "x"), "no space left on device: ."),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk quota exceeded"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left on device"),
    (OSError(errno.EIO, "Input/output error"), "OSError: [Errno 5] Input/output error"),
])
def test_a_full_disk_is_said_by_name(capfd, error, words):
    assert outcome(capfd, raising(error)) == (1, f"al-test: {words}\n")


LONG, DEEP = "a" * 300, "/".join(["b" * 200] * 30)


@pytest.mark.parametrize(("name", "args"), [
    ("al_pref2rw", ["IN", "-o", LONG]), ("al_pref2rw", [LONG]), ("al_pref2rw", ["IN", "-o", DEEP]),
    ("al_pref2rw", ["IN", "-o", "out", "--on-error", "skip", "--rejects", LONG]),
    ("al_eval", ["text", "IN", "-o", LONG]),
    ("al_eval", ["table", f"a={LONG}"]), ("al_data", ["toy", "-o", LONG]), ("al_data", ["shuffle", LONG]),
    ("al_data", ["mix", f"1:{LONG}"]), ("al_data", ["shuffle", "IN", "-o", LONG]), ("al_data", ["chat", LONG]),
    ("al_data", ["new-model", LONG, "IN"]), ("al_data", ["new-model", "model", LONG]),
    ("al_label_ai", ["IN", "--judge", "x", "--cache", LONG]), ("al_score", ["toy:polite", "IN", "-o", LONG[:252]]),
])
def test_a_name_that_is_too_long_is_refused_in_a_line(name, args, tmp_path, monkeypatch, capfd):
    """Of an output also where what lies beside it would have one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "", "chosen": "", "rejected": "", "completions": [""]}\n')
    main = importlib.import_module(name).main
    code, said = outcome(capfd, lambda: main.main([arg.replace("IN", "in.jsonl") for arg in args], name))
    assert code == 2 and said.endswith(": file name too long: give a shorter one\n") and said.count("\n") == 1
    assert os.listdir(tmp_path) == ["in.jsonl"]


@pytest.mark.parametrize(("name", "args"), [
    ("al-score", ["toy:polite"]), ("al-score", ["toy:polite", "-o", "/dev/full"]), ("al-eval", ["reward"]),
    ("al-eval", ["reward", "-o", "/dev/full"]), ("al-data", ["toy", "--limit", "3"]),
    ("al-data", ["toy", "--limit", "3", "-o", "/dev/full"])])
def test_a_full_standard_output_is_one_line(name, args):
    line = b'{"prompt": "Hi", "completions": [" Hello."], "rewards": [1]}\n'
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command(name, *args), input=line, stdout=full, stderr=subprocess.PIPE, env=environment())
    where = "/dev" if "-o" in args else "standard output"
    assert (done.returncode, done.stderr.decode()) == (1, f"{name}: no space left on device: {where}\n")


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


@pytest.mark.parametrize("args", [["r\udcff", "in.jsonl"], ["reward", "--set", "a=\udcff"]])
def test_a_text_that_is_no_utf_8_is_refused_in_a_line(args):
    name = "al_eval" if "--set" in args else "al_score"
    done = subprocess.run([sys.executable, "-m", name, *map(os.fsencode, args)], capture_output=True, env=environment())
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"\\udcff' is not UTF-8" in done.stderr


@pytest.mark.parametrize(("name", "args"), [("al_train_rm", ["m", "--keep", "9" * 22]),
                                            ("al_data", ["toy", "--limit", "9" * 22])])
def test_a_number_beyond_64_bits_is_refused_in_a_line(name, args):
    """run.json and states hold none; also of a subcommand."""
    done = subprocess.run([sys.executable, "-m", name, *args], capture_output=True, env=environment(), input=b"")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"does not fit 64 bits" in done.stderr


def test_a_file_may_be_called_anything(tmp_path):
    """And what is printed under PYTHONIOENCODING=ascii is data in UTF-8."""
    (tmp_path / "i\udcff\n.jsonl").write_text('{"prompt": "\u00fc", "chosen": "a", "rejected": "b"}\n{bad\n')
    command = [os.fsencode(word) for word in (sys.executable, "-m", "al_pref2rw", "--on-error", "skip", "--rejects",
                                              "r\udcff", "-o", "o\udcff", "i\udcff\n.jsonl")]
    env = {**environment(), "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, env=env, cwd=tmp_path)
    assert done.returncode == 0 and b"skipped i\\udcff" in done.stderr
    assert (tmp_path / "r\udcff").read_text() == "{bad\n" and "\u00fc" in (tmp_path / "o\udcff").read_text()
