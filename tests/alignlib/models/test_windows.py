"""How far back layers look, by configuration."""

import pytest
import torch

from alignlib.models.windows import Window, ignores_masks, layer_windows, model_windows, small_windows
from helpers import tiny

FULL, SLIDING = ("full_attention", None), ("sliding_attention", Window(8))
CHUNKED = ("chunked_attention", Window(8, chunked=True))


def test_what_a_window_sees():
    """The window drawn in the docstring."""
    key = torch.arange(6)
    assert key[Window(3).sees(torch.tensor(5), key) & (key <= 5)].tolist() == [3, 4, 5]
    assert key[Window(4, chunked=True).sees(torch.tensor(5), key)].tolist() == [4, 5]


@pytest.mark.parametrize("family, changes, layers", [
    ("llama", {}, [FULL, FULL]),
    ("gpt2", {}, [FULL, FULL]),
    ("mistral", {"sliding_window": 8}, [SLIDING, SLIDING]),
    ("mistral", {"sliding_window": None}, [FULL, FULL]),
    ("qwen2", {"sliding_window": 8}, [FULL, FULL]),  # switched off
    ("qwen2", tiny.windowed("qwen2", 8), [FULL, SLIDING]),
    ("qwen3_moe", {"sliding_window": 8}, [FULL, FULL]),
    ("gemma3", {"sliding_window": 8}, [SLIDING, FULL]),
    ("gpt_oss", {"sliding_window": 8}, [SLIDING, FULL]),
    ("llama4", {"attention_chunk_size": 8}, [CHUNKED, FULL]),
])
def test_layers_and_their_windows(family, changes, layers):
    config = tiny.config(family, **changes)
    assert layer_windows(config) == layers and model_windows(config) == dict(layers)


def test_small_windows_are_for_a_while():
    for family, sizes in (("mistral", {2}), ("llama4", {2}), ("llama", set())):
        config = tiny.config(family, **tiny.windowed(family, 8))
        before = config.to_dict()
        with pytest.raises(RuntimeError, match="an error"), small_windows(config, 2):
            assert {window.size for window in model_windows(config).values() if window} == sizes
            raise RuntimeError("an error")
        assert config.to_dict() == before


def test_layers_that_no_mask_reaches():
    assert ignores_masks(tiny.config("gemma3")) == ""
    assert ignores_masks(tiny.config("gpt_neo")) == "its windows count a row's columns"
    assert ignores_masks(tiny.config("gpt_neo", attention_types=[[["global"], 2]])) == ""
    assert "linear_attention" in ignores_masks(tiny.config("qwen3_next"))
