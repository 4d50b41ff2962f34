"""@FILE: a small command of our own in this process, and real ones in theirs."""

import json

import click
import pytest

from alignlib.cli import options
from alignlib.cli.option_files import expand
from helpers.commands import folders, lines, pairs
from helpers.outcome import outcome
from helpers.process import call


@click.command()
@click.argument("files", nargs=-1)
@click.option("--lr", default=1.0)
@click.option("-n", "--number", default=1)
@click.option("-t", "--temperature", multiple=True, type=float)
@click.option("--stop", multiple=True)
@click.option("-g", "--greedy", is_flag=True)
@click.option("--eager/--no-eager", default=None)
def main(**given):
    """Takes options."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(text: str, *words: str) -> dict:
    """What the options are, with this text in the file `o`."""
    with open("o", "w") as handle:
        handle.write(text)
    return main.make_context("al-test", expand(main, words)).params


@pytest.mark.parametrize(("line", "name", "value"), [
    ("--lr 2e-5", "lr", 2e-5), ("--lr=2", "lr", 2), ("  --lr   2  ", "lr", 2), ("-n 3", "number", 3),
    ("-n3", "number", 3), ("-gn3", "number", 3), ("-gn 3", "number", 3), ("--greedy", "greedy", True),
    ("--no-eager", "eager", False), ("--lr 2 # peak", "lr", 2), ("# --lr 2", "lr", 1), ("", "lr", 1),
    ("--stop '# no'", "stop", ("# no",)), ("--stop a#b # c", "stop", ("a#b",)), ("--stop '' # '", "stop", ("",)),
    ('--stop "\\n\\nHuman:"', "stop", ("\\n\\nHuman:",)),
    ("--stop=-n", "stop", ("-n",)), ("--stop -n", "stop", ("-n",)),
    ("--stop @", "stop", ("@",)), ("--stop @o", "stop", ("@o",)),
])
def test_a_line_is_an_option_as_a_shell_takes_it(line, name, value):
    assert parsed(f"\n{line}\n--lr 1\n" if name != "lr" else line, "@o")[name] == value


def test_what_stands_after_the_file_wins_and_the_file_over_what_stands_before():
    assert parsed("--lr 2\n-n 2", "--lr", "1", "@o", "--number=3") | {"files": ()} == {
        "files": (), "lr": 2, "number": 3, "temperature": (), "stop": (), "greedy": False, "eager": None}
    assert parsed("--eager", "@o", "--no-eager")["eager"] is False


def test_of_what_may_be_repeated_the_last_place_that_gives_it_counts():
    assert parsed("-t 1\n-t 2\n--stop a", "@o")["temperature"] == (1, 2)
    given = parsed("-t 1\n-t 2\n--stop a", "@o", "--temperature", "3", "-gt4")
    assert (given["temperature"], given["stop"]) == ((3, 4), ("a",))
    assert parsed("-t 2", "-t", "1", "@o")["temperature"] == (1, 2)


def test_only_where_an_argument_could_stand():
    """Not as an option's value, not behind --, not ./@o, not a bare @."""
    for words in (["--stop", "@o"], ["-gt", "1", "--stop=@o"], ["--", "@o"], ["./@o"], ["@"]):
        assert expand(main, words) == words
    assert parsed("--lr 2", "a", "@o", "b") | {"lr": 0} == parsed("--lr 2", "a", "b") | {"lr": 0}


def test_two_files_one_after_the_other(folder):
    (folder / "p").write_text("--lr 3\n--greedy\n")
    assert parsed("--lr 2", "@o", "@p")["lr"] == 3 and parsed("--lr 2", "@p", "@o")["lr"] == 2


@pytest.mark.parametrize(("text", "words", "message"), [
    ("", ["@none"], "@none: no file of options: No such file or directory; an input of that name is ./@none"),
    ("", ["@."], "@.: no file of options: Is a directory; an input of that name is ./@."),
    ('--lr 2\n{"prompt": "Hi"}\n', ["@o"], "@o:2: no option of the command: '{prompt:'; an input of that name is ./@o"),
    ("--lr 2 --greedy", ["@o"], "@o:1: one option a line; an input of that name is ./@o"),
    ("--lr 2 more", ["@o"], "@o:1: one option a line; an input of that name is ./@o"),
    ("--greedy\n--lr", ["@o", "3"], "@o:2: --lr requires an argument"),
    ("--stop #x", ["@o", "p.jsonl"], "@o:1: --stop requires an argument"),
    ("-gt", ["@o", "p.jsonl"], "@o:1: -gt requires an argument"),
    ("--lr x", ["@o"], "@o:1: Invalid value for '--lr': 'x' is not a valid float."),
    ("--lr=x", ["@o"], "@o:1: Invalid value for '--lr': 'x' is not a valid float."),
    ("-gtx", ["@o"], "@o:1: Invalid value for '-t' / '--temperature': 'x' is not a valid float."),
    ("--help", ["@o"], "@o:1: no option of the command: '--help'; an input of that name is ./@o"),
    ("\n--rl 2", ["@o"], "@o:2: no option of the command: '--rl'; an input of that name is ./@o"),
    ("@p", ["@o"], "@o:1: no option of the command: '@p'; an input of that name is ./@o"),
    ("--stop 'a", ["@o"], "@o:1: no closing quotation"),
])
def test_what_is_wrong_is_said_by_file_and_line(text, words, message):
    with pytest.raises(click.UsageError) as error:
        parsed(text, *words)
    assert error.value.format_message() == message


def test_a_byte_order_mark_is_no_part_of_an_option():
    assert parsed("\ufeff--lr 2", "@o")["lr"] == 2


def test_a_value_that_is_a_pipe_is_read_once(folder):
    (folder / "o").write_text("--template /dev/stdin\n")
    done = call("al-sample", "@o", folder / "none", "none.jsonl", stdin=b"{{ messages }}")
    assert done.returncode == 2 and "none: no such folder" in done.stderr


def test_a_file_before_the_subcommand_is_told_where_it_goes():
    done = call("al-data", "@o", "toy")
    assert done.returncode == 2 and "@o: a file of options stands behind the subcommand's name" in done.stderr


def test_a_file_that_is_no_text_is_refused(folder):
    (folder / "o").write_bytes(b"--stop \xff")
    with pytest.raises(click.UsageError, match="@o: no file of options: not UTF-8"):
        expand(main, ["@o"])


def test_a_subcommand_has_its_options_from_one(folder):
    (folder / "o").write_text("--limit 3\n--only prompts\n")
    done = call("al-data", "toy", "@o", "--limit", 2)
    assert done.returncode == 0 and [list(json.loads(line)) for line in done.stdout.splitlines()] == [
        ["id", "prompt"]] * 2


def test_an_error_is_one_line(capfd):
    @options.command(name="al-test")
    def plain():
        """Does it."""

    assert outcome(capfd, lambda: plain.main(["@none"], "al-test")) == (
        2, "al-test: @none: no file of options: No such file or directory; an input of that name is ./@none "
        "(see al-test --help)\n")


@pytest.mark.slow
def test_run_json_holds_what_was_resolved(folder):
    """The file's options, those after it, and the defaults; of two processes too, whose options come from a pipe."""
    (folder / "in").write_bytes(lines(*pairs(4)))
    (folder / "o").write_text("--lr 2e-3  # peak\n--schedule linear\n--batch-size 2\n")
    done = call("al-sft", "@o", folders().policy, "in", "-o", "out", "--lr", "3e-3")
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "out" / "run.json").read_text())["options"]
    assert {name: found[name] for name in ("lr", "schedule", "batch_size", "epochs", "loss")} == {
        "lr": 3e-3, "schedule": "linear", "batch_size": 2, "epochs": 1, "loss": "token"}
    piped = call("al-sft", "@/dev/stdin", folders().policy, "in", "-o", "two", "--launch", 2,
                 stdin=(folder / "o").read_bytes())
    assert piped.returncode == 0, piped.stderr
    found = json.loads((folder / "two" / "run.json").read_text())["options"]
    assert (found["lr"], found["schedule"], found["batch_size"]) == (2e-3, "linear", 2)
