"""Files that a command is given: refused where they cannot do, known again."""

import os
import subprocess
from pathlib import Path

import click
import pytest

from alignlib.cli import paths
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
