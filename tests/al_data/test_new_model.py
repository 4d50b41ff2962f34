"""al-data new-model: sizes, the tokenizer's promises, the same bytes for a seed."""

import hashlib
import json
import math
import subprocess

import pytest

from al_data import new_model
from alignlib.toy import world
from helpers.process import call, command, environment

TRICKY = ["", " ", "  two", "\n\nHuman: a\n\nAssistant:", "tab\there ", "é日本語🙂", "don't , stop .", "\x00\x7f",
          "a\r\nb"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "toy.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in world.records("dialogue", limit=300)))
    return path


@pytest.fixture(scope="module")
def folder(corpus):
    model = corpus.parent / "model"
    done = call("al-data", "new-model", model, corpus, "--size", "1m")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert "300 records" in done.stderr and len(done.stderr.splitlines()) == 1
    return model


def bytes_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("size", ["1m", "2m", "5m", "10m", "25m"])
def test_sizes_are_what_their_names_say(size):
    """All parameters with 2048 tokens, the shared embeddings counted once."""
    model = new_model.build(size, 2048, 512, 0, 0, 1, 2)
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(int(size[:-1]) * 1e6, rel=0.15)


@pytest.mark.parametrize("size, millions", [("100m", 100), ("300m", 300), ("1b", 1000)])
def test_large_sizes_by_their_shapes(size, millions):
    hidden, layers, feed_forward, heads = new_model.SHAPES[size]
    embeddings = 2048 * hidden * (2 if size in new_model.UNTIED else 1)
    layer = 4 * hidden**2 + 3 * hidden * feed_forward + 2 * hidden
    assert embeddings + layers * layer + hidden == pytest.approx(millions * 1e6, rel=0.15)
    assert hidden % heads == 0 and (hidden // heads) % 2 == 0  # rotary positions turn pairs


def test_every_file_may_be_read_by_whom_the_umask_lets(folder):
    new = folder.parent / "another"
    new.touch()
    assert {file.name: oct(file.stat().st_mode) for file in folder.iterdir()} == \
        {file.name: oct(new.stat().st_mode) for file in folder.iterdir()}
    new.unlink()


@pytest.mark.slow
def test_tokenizer_gives_every_text_back(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = TRICKY + [record["prompt"] + record["chosen"] for record in world.records("review", limit=20)]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id and tokenizer.bos_token_id not in ids[1:]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert bare == ids[1:] and tokenizer.decode(bare) == text
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert tokenizer.model_max_length == 512


def test_model_knows_its_tokenizer(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer) == model.get_output_embeddings().weight.shape[0]
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (
        tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    loss = model(input_ids=(ids := tokenizer("\n\nHuman: Hello", return_tensors="pt")["input_ids"]), labels=ids).loss
    assert loss.item() == pytest.approx(math.log(len(tokenizer)), abs=0.5)  # it knows nothing yet


@pytest.mark.slow
def test_same_seed_same_bytes(folder, corpus):
    for seed, same in ((0, True), (1, False)):
        other = corpus.parent / f"seed{seed}"
        assert call("al-data", "new-model", other, "-", "--size", "1m", "--seed", seed,
                    stdin=corpus.read_bytes()).returncode == 0
        assert (bytes_of(other)["model.safetensors"] == bytes_of(folder)["model.safetensors"]) is same
        assert bytes_of(other)["tokenizer.json"] == bytes_of(folder)["tokenizer.json"]
        assert set(bytes_of(other)) == set(bytes_of(folder))


@pytest.mark.slow
def test_any_input_that_can_be_read_will_do(folder, corpus):
    other = corpus.parent / "piped"
    argv = command("al-data", "new-model", other, "/dev/fd/0", "--size", "1m")  # as bash's <(...) is
    subprocess.run(argv, input=corpus.read_bytes(), capture_output=True, check=True, env=environment())
    assert bytes_of(other) == bytes_of(folder)
    for wrong, message in ((corpus.parent / "none", "no such file"), (corpus.parent, "a folder, not a file")):
        done = call("al-data", "new-model", corpus.parent / "new", wrong)
        assert done.returncode == 2 and done.stderr == f"al-data: {wrong}: {message}\n"


def test_folder_that_is_not_empty_is_left_alone(folder, corpus):
    before = bytes_of(folder)
    done = call("al-data", "new-model", folder, corpus)
    assert done.returncode == 2 and done.stderr == f"al-data: {folder}: exists and is not empty\n"
    assert bytes_of(folder) == before


@pytest.mark.parametrize("text, message", [
    ("", "no texts to train a tokenizer on"),
    ('{"rewards": [1]}\n', "no texts to train a tokenizer on"),
    ('{"text": "a"}\n{"text": 3}\n', "<stdin>:2: text: expected a string, got a number"),
    ('{"completions": ["a", null]}\n', "<stdin>:1: completions[1]: expected a string, got null"),
])
def test_bad_records_make_no_folder(tmp_path, text, message):
    done = call("al-data", "new-model", tmp_path / "model", stdin=text)
    assert done.returncode == 65 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_every_text_field_trains_the_tokenizer():
    record = {"prompt": "a", "chosen": "b", "rejected": "c", "completions": ["d", "e"], "text": "f", "id": "no",
              "messages": [{"role": "user", "content": "g"}]}
    assert sorted(new_model.texts(record)) == list("abcdefg")
