"""A tokenizer is read from files alone: what is wrong with them is named (test_faults.py has more)."""

import json
import re
from pathlib import Path

import click
import pytest

from alignlib.models.tokenizer_files import load_tokenizer
from helpers import adapted, tiny


def test_the_name_of_a_tokenizer_is_its_folder_s(tmp_path):
    tiny.tokenizer().save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).name_or_path == str(tmp_path)


def test_a_folder_without_one_says_so(tmp_path):
    tiny.causal("llama").save_pretrained(tmp_path)
    with pytest.raises(click.UsageError, match="no tokenizer"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("length", [0, -1, "512", None, []])
def test_a_length_that_is_none_is_named(tmp_path, length):
    tiny.tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": length}))
    if length is None:  # transformers takes that for any length
        assert load_tokenizer(str(tmp_path)).model_max_length > 1e20
        return
    with pytest.raises(click.UsageError, match="tokenizer_config.json: model_max_length: "):
        load_tokenizer(str(tmp_path))


def test_a_template_that_is_no_text_is_named_an_adapter_s_too(tmp_path):
    base = adapted.base(tmp_path)
    for folder in (base, adapted.adapter(tmp_path, base)):
        file = Path(folder, "chat_template.jinja")
        file.write_bytes(b"{{ a }}\xff")
        with pytest.raises(click.UsageError, match=rf"^{re.escape(str(file))}: invalid UTF-8 at byte 8$"):
            load_tokenizer(str(folder))
        file.unlink()
