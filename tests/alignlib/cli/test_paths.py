"""Files that a command is given: refused where they cannot do, known again."""

import importlib
import os
import subprocess
from pathlib import Path

import click
import pytest

from alignlib.cli import paths
from helpers.outcome import outcome
from helpers.process import command, environment


def test_the_input_is_never_the_output(tmp_path):
    data, same = tmp_path / "x.jsonl", tmp_path / "same.jsonl"
    line = b'{"prompt": "Hi", "completions": [" Hello."]}\n'
    data.write_bytes(line)
    os.link(data, same)
    argv, settings = command("al-score", "toy:polite"), {"capture_output": True, "env": environment()}
    with open(data, "rb") as source, open(data, "ab") as sink:
        runs = [
            subprocess.run([*argv, "-o", str(data)], stdin=source, **settings),
            subprocess.run([*argv, str(data), "-o", str(same)], **settings),
            subprocess.run([*argv, str(data)], stdout=sink, stderr=subprocess.PIPE, env=environment()),
        ]
    assert [done.returncode for done in runs] == [2, 2, 2]
    assert data.read_bytes() == line


def test_a_fingerprint_sees_a_change_anywhere_in_the_weights(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(1 << 20))
    before = paths.fingerprint(str(tmp_path))
    weights.write_bytes(bytes((1 << 20) - 1) + b"1")
    assert paths.fingerprint(str(tmp_path)) != before


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    paths.must_exist(["-", str(tmp_path / "a.jsonl")])
    with pytest.raises(click.UsageError, match="a folder, not a file"):
        paths.must_exist([str(tmp_path)])
    with pytest.raises(click.UsageError, match="no such file"):
        paths.must_exist([str(tmp_path / "b.jsonl")])


def test_outputs_are_kept_apart(tmp_path):
    data, output = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    Path(data).write_text("")
    paths.keep_apart((data,), output, None, str(tmp_path / "rejects"))
    for others in ((output,), (f"{output}.state",), (data,)):
        with pytest.raises(click.UsageError, match="would be overwritten while it is in use"):
            paths.keep_apart((data,), output, *others)
    with pytest.raises(click.UsageError, match="no such folder"):
        paths.keep_apart((data,), str(tmp_path / "not" / "there"))


def test_outputs_are_kept_apart_by_whatever_name(tmp_path):
    data, output = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    data.write_text("")
    (tmp_path / "to-data").symlink_to(data)
    (tmp_path / "to-output").symlink_to(output)  # which is not there yet
    os.link(data, tmp_path / "same")
    for name in ("to-data", "same", "to-output"):
        with pytest.raises(click.UsageError, match=f"{name}: would be overwritten .*: name another file"):
            paths.keep_apart((str(data),), str(output), str(tmp_path / name))


def test_devices_take_what_everybody_writes(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    paths.keep_apart((str(tmp_path / "a.jsonl"),), "/dev/null", "/dev/null", "/dev/stdout")


def test_a_fingerprint_is_of_a_file_of_a_folder_or_the_name_itself(tmp_path):
    file = tmp_path / "rubric.txt"
    file.write_text("What counts")
    first = paths.fingerprint(str(file))
    file.write_text("What matters")
    assert len({first, paths.fingerprint(str(file)), paths.fingerprint(str(tmp_path))}) == 3
    assert paths.fingerprint("someone/a-model") == "someone/a-model"


def test_a_fingerprint_of_a_model_that_is_no_folder(tmp_path):
    """Of all that it stands for: a .gguf file; weights, and the configuration beside which they are read."""
    file, base = tmp_path / "policy.pt", tmp_path / "base"
    base.mkdir()
    for path in (file, base / "config.json", base / "model.safetensors", tmp_path / "x.gguf"):
        path.write_bytes(bytes(3 << 20))
    apart, alone = f"{file}@{base}", str(tmp_path / "x.gguf")
    before = [paths.fingerprint(apart), paths.fingerprint(alone)]
    (base / "model.safetensors").write_bytes(b"other weights, which are not read")
    assert [paths.fingerprint(apart), paths.fingerprint(alone)] == before
    seen = {before[0]}
    for path in (base / "config.json", file):
        path.write_bytes(bytes((3 << 20) - 1) + b"1")
        seen.add(paths.fingerprint(apart))
    assert len(seen) == 3
    (tmp_path / "x.gguf").write_bytes(bytes((3 << 20) - 1) + b"1")
    assert paths.fingerprint(alone) != before[1]
    assert paths.fingerprint("missing.pt@someone/base") == "missing.pt someone/base"


RECORD = b'{"prompt": "Hi", "chosen": " a", "rejected": " b", "completions": [" a", " b"], "rewards": [1, 0]}\n'
# What each command is given besides -o: IN stands for the input.
OVER_INPUT = [("al_data", "chat", "IN"), ("al_data", "hh", "--from", "IN"), ("al_data", "hh", "--from", "."),
              ("al_data", "mix", "1:IN"), ("al_data", "shuffle", "IN"), ("al_pref2rw", "IN"),
              ("al_score", "toy:polite", "IN"),
              ("al_score", "py:IN:score", "no.jsonl"), ("al_sample", "policy", "IN"), ("al_args", "lm", "rm", "IN"),
              ("al_args", "lm", "rm", "no.jsonl", "--grid", "IN"), ("al_label_ai", "IN", "--judge", "x"),
              ("al_label_ai", "no.jsonl", "--judge", "x", "--against", "IN"), ("al_eval", "text", "IN"),
              ("al_eval", "reward", "IN"), ("al_eval", "winrate", "no.jsonl", "--against", "IN"),
              ("al_eval", "table", "a=IN")]


@pytest.mark.parametrize("words", OVER_INPUT, ids=" ".join)
def test_no_command_writes_over_what_it_reads(words, tmp_path, monkeypatch, capfd):
    """Whatever names the input, and by whatever name the output is it: a link, a hard link."""
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_bytes(RECORD)
    Path("no.jsonl").write_bytes(RECORD)
    Path("link").symlink_to("in.jsonl")
    os.link("in.jsonl", "hard")
    name, *given = words
    main = importlib.import_module(name).main
    args = [word.replace("IN", "in.jsonl") for word in given]
    for output in ("in.jsonl", "link", "hard"):
        code, said = outcome(capfd, lambda output=output: main.main([*args, "-o", output], name))
        assert code == 2 and said.count("\n") == 1, said
        assert f"{output}: would be overwritten while it is in use" in said
    assert Path("in.jsonl").read_bytes() == RECORD
    assert not list(tmp_path.glob("*.state")) + list(tmp_path.glob("*.partial"))


def test_what_is_being_written_beside_the_output_is_no_input(tmp_path, monkeypatch, capfd):
    from al_data import main

    monkeypatch.chdir(tmp_path)
    Path("x.jsonl.partial").write_bytes(RECORD)
    code, said = outcome(capfd, lambda: main.main(["mix", "1:x.jsonl.partial", "-o", "x.jsonl"], "al-data"))
    assert code == 2 and "x.jsonl.partial: would be overwritten" in said
    assert Path("x.jsonl.partial").read_bytes() == RECORD


def test_a_text_of_an_option_is_no_input_for_having_the_outputs_name(tmp_path, monkeypatch, capfd):
    from al_score import main

    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_bytes(RECORD)
    for _ in range(2):
        assert outcome(capfd, lambda: main.main(["toy:polite", "in.jsonl", "-o", "polite"], "al-score"))[0] == 0


@pytest.mark.parametrize("name", ["started.json", "log.jsonl", "new.jsonl", "checkpoint-2/new.jsonl"])
def test_nothing_is_written_into_the_folder_of_a_training_that_can_go_on(name, tmp_path):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    for file in ("log.jsonl", "started.json"):
        (tmp_path / "run" / file).write_text("")
    with pytest.raises(click.UsageError, match=f"{name}: within the folder of a training .* {tmp_path}/run: name"):
        paths.keep_apart((), str(tmp_path / "run" / name))
    if name.endswith("new.jsonl"):  # but by the training itself: --log-samples
        paths.keep_apart((), str(tmp_path / "run" / name), folder=str(tmp_path / "run"))


def test_nothing_is_written_over_the_parts_of_a_model_nor_over_a_runs_state(tmp_path):
    for file in ("config.json", "run.json", "model.safetensors", "scores.jsonl", "out.jsonl", "out.jsonl.state"):
        (tmp_path / file).write_text("")
    for file in ("config.json", "run.json", "model.safetensors"):
        with pytest.raises(click.UsageError, match=f"{file}: part of the model in {tmp_path}: name another file"):
            paths.keep_apart((), str(tmp_path / file))
    with pytest.raises(click.UsageError, match="state: the state of an unfinished run: name another file"):
        paths.keep_apart((), str(tmp_path / "out.jsonl.state"))
    for file in ("scores.jsonl", "new.jsonl"):
        paths.keep_apart((), str(tmp_path / file))
