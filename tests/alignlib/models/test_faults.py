"""What is wrong with a model's folder is said in one line, with its file and its field."""

import json
import shutil
from pathlib import Path

import click
import pytest

from alignlib.models import load
from helpers import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Path(tiny.save(tiny.causal("llama"), tmp_path_factory.mktemp("faults") / "whole"))


def said_of(folder: Path) -> str:
    """What is said of a folder that is refused, which is one line."""
    with pytest.raises(click.UsageError) as failure:
        load.load_policy(str(folder), "cpu", "fp32")
    assert str(folder) in failure.value.message and "\n" not in failure.value.message
    return failure.value.message.replace(f"{folder}/", "")


def with_content(folder: Path, copy: Path, name: str, content: bytes) -> Path:
    shutil.copytree(folder, copy)
    (copy / name).write_bytes(content)
    return copy


FIELDS = [
    ("config.json", "num_attention_heads", "4"), ("config.json", "num_attention_heads", 0),
    ("config.json", "num_hidden_layers", -1), ("config.json", "num_hidden_layers", 10**30),
    ("config.json", "hidden_size", [32]), ("config.json", "hidden_act", "gleu"), ("config.json", "dtype", "float33"),
    ("config.json", "rope_parameters", {"rope_type": "x", "rope_theta": 1e4}), ("config.json", "vocab_size", None),
    ("config.json", "architectures", 3), ("config.json", "model_type", []), ("config.json", "pad_token_id", 10**6),
    ("config.json", "head_dim", 0), ("config.json", "initializer_range", float("nan")),
    ("config.json", "text_config", {"num_hidden_layers": 0}), ("config.json", "dtype", 7),
    ("config.json", "torch_dtype", "float17"), ("config.json", "rms_norm_eps", float("nan")),
    ("config.json", "rope_parameters", {"rope_type": "default", "rope_theta": float("nan")}),
    ("generation_config.json", "eos_token_id", 10**30), ("generation_config.json", "eos_token_id", [2, 1 << 25]),
    ("config.json", "rms_norm_eps", float("inf")), ("config.json", "rms_norm_eps", -1e-6),
    ("generation_config.json", "eos_token_id", "end"), ("generation_config.json", "pad_token_id", "x"),
    ("tokenizer_config.json", "eos_token", 7), ("tokenizer_config.json", "model_max_length", "x"),
    ("tokenizer_config.json", "tokenizer_class", -1),
    ("tokenizer.json", "normalizer", "x"), ("tokenizer.json", "added_tokens", 3), ("tokenizer.json", "version", "x"),
]


@pytest.mark.parametrize(("name", "field", "value"), FIELDS)
def test_a_field_that_cannot_be_is_named(folder, tmp_path, name, field, value):
    content = {**json.loads((folder / name).read_text()), field: value}
    said = said_of(with_content(folder, tmp_path / "copy", name, json.dumps(content).encode()))
    assert said.startswith(f"{name}: {field}")


def test_what_would_do_is_said(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    for field, value, words in (
        ("dtype", "float17", 'expected a type of torch\'s, float32 or bfloat16 say, got "float17"'),
        ("rope_parameters", {"rope_type": "x", "rope_theta": 1e4}, "; there are default, linear, dynamic, "),
        ("layer_norm_eps", float("nan"), "layer_norm_eps: expected a number, got NaN"),
        ("some", {"factors": [1, [0.5, float("nan")]]}, "config.json: some.factors[1][1]: expected a number, got NaN"),
    ):
        copy = with_content(folder, tmp_path / field, "config.json", json.dumps({**config, field: value}).encode())
        assert words in said_of(copy)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize(("content", "words"), [
    (b"[1, 2]", "expected an object, got an array"), (b"", "broken JSON: "),
    (b'{"a": "\xff"}', "invalid UTF-8 at byte 8"),
    (b'{"a": ' * 100000, "broken JSON: "),
])
def test_a_file_that_is_no_object_is_named(folder, tmp_path, name, content, words):
    assert said_of(with_content(folder, tmp_path / "copy", name, content)).startswith(f"{name}: {words}")


def test_a_cut_file_of_weights_is_named(folder, tmp_path):
    whole = (folder / "model.safetensors").read_bytes()
    for i, content in enumerate((b"", whole[:100], whole[:-10], b"\xff" * 100)):
        said = said_of(with_content(folder, tmp_path / str(i), "model.safetensors", content))
        assert said.startswith("model.safetensors: not a checkpoint that can be read safely")


@pytest.mark.parametrize("index", [{}, {"weight_map": [1]}, {"weight_map": {"a": 1}}])
def test_an_index_of_no_files_is_named(folder, tmp_path, index):
    copy = with_content(folder, tmp_path / "copy", "model.safetensors.index.json", json.dumps(index).encode())
    (copy / "model.safetensors").unlink()
    assert said_of(copy).startswith("model.safetensors.index.json: weight_map: expected an object of files' names")


def test_a_token_around_texts_that_is_not_declared_is_no_panic(folder, tmp_path, capfd):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["special_tokens"] = {}
    said = said_of(with_content(folder, tmp_path / "copy", "tokenizer.json", json.dumps(content).encode()))
    assert said.startswith(f'tokenizer.json: post_processor: "{tiny.BOS}" is none of its special_tokens')
    assert "panicked" not in capfd.readouterr().err


def test_an_error_that_is_not_the_folder_s_stays_what_it_is(folder, monkeypatch):
    from transformers import AutoModelForCausalLM

    def no_memory(path, **settings):
        if settings.get("device_map") != "meta":
            raise RuntimeError("can't allocate memory")
        return usual(path, **settings)

    usual = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", no_memory)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load.load_policy(str(folder), "cpu", "fp32")
