"""Coherence: vectors of a tiny encoder, as al-eval text --coherence compares them; what is no encoder."""

import json
import shutil
import subprocess
import sys

import click
import pytest

from al_eval.embeddings import Embedder
from helpers.evaluation import jsonl, record, refused
from helpers.process import call, environment


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny random BERT whose tokenizer knows six words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "one", "two", "three", "four", "five", "six"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]",
                            model_max_length=6).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                         intermediate_size=32, max_position_embeddings=12)).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_coherence(encoder, pool):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()

    def vector(text):  # each text alone: no padding can play a part
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt", truncation=True)).last_hidden_state[0]
        return hidden[0] if pool == "cls" else hidden.mean(0)

    rows = [("one two three", "four"), ("six", "one one one two five"), ("two", "two six six six six six six six")]
    expected = [torch.cosine_similarity(vector(a), vector(b), dim=0).item() for a, b in rows]
    records = [{"prompt": a, "completions": [b, " "]} for a, b in rows]
    done = call("al-eval", "text", "--coherence", encoder, "--pool", pool, stdin=jsonl(*records))
    figures = json.loads(done.stdout)["coherence"]
    assert figures["n"] == 3 and figures["mean"] == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert figures["low"] == pytest.approx(min(expected), abs=1e-5)  # of three values, the lowest three times: 1 in 27
    assert "1 texts cut for coherence" in done.stderr
    assert done.stderr.count("\n") == 1 and "\r" not in done.stderr  # no progress bar: it is no terminal


@pytest.mark.slow
def test_coherence_without_a_model(tmp_path, monkeypatch):
    assert f"{tmp_path}: not a model" in refused(2, "text", "--coherence", tmp_path, stdin=jsonl(record(1)))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code = "from alignlib import hub; print(hub.answers())"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout == "False\n"
    message = refused(2, "text", "--coherence", "no-such/encoder", stdin=jsonl(record(1)))
    assert "no-such/encoder: no model folder, nor to be had from the Hub" in message


def changed(encoder, folder, change):
    """A copy of the encoder whose weights `change` has changed, in their dict."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(encoder, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.slow
def test_heads_are_left_out_and_other_weights_are_not(encoder, tmp_path):
    import torch

    whole = Embedder(str(encoder))(["one two"])
    one = torch.ones(1)
    headed = changed(encoder, tmp_path / "headed", lambda w: w.update({"cls.predictions.bias": one}))
    bare = changed(encoder, tmp_path / "bare", lambda w: [w.pop(name) for name in list(w) if "pooler" in name])
    for folder in (headed, bare):
        assert (Embedder(str(folder))(["one two"]) == whole).all()
    longer = changed(encoder, tmp_path / "longer", lambda w: w.update({"encoder.layer.2.weight": one}))
    cut = changed(encoder, tmp_path / "cut", lambda w: w.pop("encoder.layer.1.output.dense.weight"))
    for folder, message in ((longer, "has 1 weights .* encoder.layer.2.weight"), (cut, "lacks 1 weights, encoder")):
        with pytest.raises(click.UsageError, match=message):
            Embedder(str(folder))


@pytest.mark.slow
def test_a_word_that_the_encoder_has_no_row_for_is_named(encoder, tmp_path):
    from transformers import AutoTokenizer

    shutil.copytree(encoder, tmp_path / "encoder")
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenizer.add_tokens("seven")
    tokenizer.save_pretrained(tmp_path / "encoder")
    good, bad = ({"prompt": "one", "completions": [text]} for text in ("two", "two seven"))
    message = refused(65, "text", "--coherence", tmp_path / "encoder", stdin=jsonl(good, bad))
    assert "<stdin>:2: token 8 (seven) has no row in the encoder, which knows 8 tokens" in message
