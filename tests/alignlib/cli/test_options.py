"""Keys of runs, what their options say of themselves, summaries: a small command of our own, called in this process."""

import gc
import re

import pytest

from alignlib.cli import options
from alignlib.records import fields
from helpers.outcome import outcome
from helpers.process import call


def key_of(*args: str) -> str:
    found = []

    @options.command(reads=("prompt",), name="al-test")
    @options.click.option("--heat", default=1.0)
    @options.click.option("--at-once", cls=options.Beside, default=1)
    @options.click.option("--model")
    @options.filter_options
    def main(heat, model, **rest):
        found.append(options.run_key(model))

    with pytest.raises(SystemExit) as exit_:
        main(list(args))
    assert exit_.value.code == 0
    return found[0]


def test_a_runs_key_holds_its_options_and_not_its_files():
    assert key_of() == key_of("a.jsonl", "-o", "out", "--resume", "--rejects", "bad") == key_of("--heat", "1")
    assert len({key_of(), key_of("--heat", "2"), key_of("--on-error", "skip")}) == 3


def test_a_runs_key_holds_no_option_that_changes_nothing_in_a_record():
    assert key_of("--at-once", "2") == key_of()


@pytest.mark.parametrize("args", [["--on-error", "skip"], ["--equals", "drop"], ["--equals=drop", "--on-error=skip"]])
def test_rejects_goes_with_an_option_that_puts_records_aside(args, capfd, tmp_path):
    """Whichever it is: the option itself says that it does, and with what value."""
    @options.command(reads=("prompt",), name="al-test")
    @options.click.option("--equals", cls=options.Aside, aside="drop", default="keep")
    @options.click.option("--bare", default="drop")
    @options.filter_options
    def main(equals, bare, **filters):
        with options.open_stream(**filters):
            pass

    data, rejects = tmp_path / "a.jsonl", tmp_path / "rejects.jsonl"
    data.write_text("")
    common = [str(data), "--rejects", str(rejects)]
    assert outcome(capfd, lambda: main.main(common, "al-test")) == (
        2, "al-test: --rejects needs --on-error skip (see al-test --help)\n")
    assert outcome(capfd, lambda: main.main([*common, *args], "al-test")) == (0, "")


def test_a_resumed_run_may_change_what_changes_no_record_and_nothing_else(capfd, tmp_path):
    data, output = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"id": "1"}\n{"id": "2"}\n')

    @options.command(reads=("id",), name="al-test")
    @options.click.option("--heat", default=1.0)
    @options.click.option("--at-once", cls=options.Beside, default=1)
    @options.filter_options
    def main(heat, at_once, **filters):
        with options.open_stream(**filters) as stream:
            for (line,) in stream.windows(1):
                if at_once == 1 and line.index:
                    raise RuntimeError("killed")
                stream.write(line, line.record)

    args = [str(data), "-o", str(output)]
    assert outcome(capfd, lambda: main.main(args, "al-test")) == (1, "al-test: RuntimeError: killed\n")
    code, message = outcome(capfd, lambda: main.main([*args, "--resume", "--at-once=2", "--heat=2"], "al-test"))
    assert code == 2 and "made with other options" in message
    assert outcome(capfd, lambda: main.main([*args, "--resume", "--at-once=2"], "al-test")) == (0, "")
    assert output.read_bytes() == data.read_bytes().replace(b": ", b":")


def test_a_runs_key_changes_with_the_model(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "notes.md").write_text("no part of it")
    first = key_of("--model", str(model))
    (model / "notes.md").write_text("still none")
    assert key_of("--model", str(model)) == first
    (model / "model.safetensors").write_bytes(b"Weights")
    assert key_of("--model", str(model)) != first


def test_options_are_given_on_the_command_line_or_not(monkeypatch):
    monkeypatch.setenv("AL_TEST_HEAT", "2")
    given = []

    @options.command(name="al-test")
    @options.click.option("--heat", default=1.0, envvar="AL_TEST_HEAT")
    @options.click.option("-n", "number", default=1)
    @options.filter_options
    def main(**values):
        given.append(options.given_options())

    for args in ([], ["-n", "1"], ["--resume", "-o", "b.jsonl", "a.jsonl"]):
        with pytest.raises(SystemExit):
            main(args)
    assert given == [set(), {"number"}, {"resume", "output", "files"}]


def test_a_new_folder_is_new_or_empty(tmp_path):
    assert options.new_folder(str(tmp_path)) == tmp_path
    assert options.new_folder(str(tmp_path / "not" / "yet")) == tmp_path / "not" / "yet"
    (tmp_path / "file").write_text("")
    with pytest.raises(options.click.UsageError, match="not empty"):
        options.new_folder(str(tmp_path))
    with pytest.raises(options.click.UsageError, match="not a folder"):
        options.new_folder(str(tmp_path / "file"), resume=True)
    with pytest.raises(options.click.UsageError, match="file is a file, not a folder"):
        options.new_folder(str(tmp_path / "file" / "model" / "deep"))
    assert options.new_folder(str(tmp_path), resume=True) == tmp_path


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # for root everything can be
    with pytest.raises(options.click.UsageError, match=f"{tmp_path} cannot be written to: name a folder elsewhere"):
        options.new_folder(str(tmp_path / "model"))


def test_the_summary_counts_what_happened_and_is_silent_on_what_did_not(capfd, monkeypatch):
    clock = iter([10.0, 14.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with options.click.Context(options.click.Command("al-test"), info_name="al-test"):
        summary = options.Summary()
    summary.count(records=3, tokens=1200, cut=0)
    summary.count(tokens=800, ties=2)
    summary.close()
    assert capfd.readouterr().err == "al-test: 3 records, 2,000 tokens, 2 ties, 4.0 s, 500 tokens/s\n"


def test_loading_is_no_part_of_the_summarys_rate(capfd, monkeypatch):
    clock = iter([10.0, 19.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with options.click.Context(options.click.Command("al-test"), info_name="al-test"):
        summary = options.Summary()
    summary.count(records=2, tokens=1000)
    summary.close(began=15.0)
    assert capfd.readouterr().err == "al-test: 2 records, 1,000 tokens, 4.0 s + 5.0 s loading, 250 tokens/s\n"


def test_a_filters_loading_ends_where_its_reading_begins(capfd, tmp_path):
    data = tmp_path / "a.jsonl"
    data.write_text('{"id": "1"}\n{"id": "2"}\n')

    @options.command(reads=("id",), name="al-test")
    @options.filter_options
    def main(**filters):
        summary = options.Summary()
        summary.start -= 5  # seconds that it took to load
        with options.open_stream(**filters) as stream:
            for (line,) in stream.windows(1):
                stream.write(line, line.record)
            stream.began -= 2  # and to work
            summary.close(stream)

    code, message = outcome(capfd, lambda: main.main([str(data), "-o", str(tmp_path / "b")], "al-test"))
    assert code == 0 and re.fullmatch(r"al-test: 2 records, \d+\.\d s \+ 3\.\d s loading, \d records/s\n", message)


@pytest.mark.parametrize("argv", [["al-data", "toy"], ["al-data", "new-model", "x"], ["al-sample", "x"],
                                  ["al-sft", "x", "-o", "y"], ["al-eval", "reward"]])
@pytest.mark.parametrize("seed", [2**70, -(2**70), 1.5])
def test_a_seed_fits_64_bits(argv, seed, tmp_path):
    done = call(*argv, f"--seed={seed}", cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "--seed" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_field_a_command_names_is_one_of_the_records():
    with pytest.raises(KeyError):
        options.command(reads=("promt",))
    assert "prompt" in fields.FIELDS


def test_no_option_takes_nan_or_infinity():
    for value in ("nan", "inf", "-inf"):
        done = call("al-score", "toy:polite", "--temperature", value)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_help_says_a_range_where_there_is_one(capfd):
    @options.command(name="al-test")
    @options.click.option("--any", type=options.Finite(), default=1.0)
    @options.click.option("--share", type=options.Finite(0, 1), default=0.5)
    def main(any, share):
        """Nothing."""

    with pytest.raises(SystemExit):
        main.main(["--help"], "al-test")
    said = " ".join(capfd.readouterr().out.split())
    assert "--any FLOAT RANGE [default: 1.0]" in said and "[default: 0.5; 0<=x<=1]" in said


def test_no_garbage_is_looked_for_while_loading():
    """Also after a failure it is again."""
    before = gc.get_freeze_count()
    with pytest.raises(ValueError), options.loading():
        assert not gc.isenabled()
        raise ValueError
    assert gc.isenabled() and gc.get_freeze_count() > before
    gc.unfreeze()
