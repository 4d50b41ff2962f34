"""Weights laid out: the same numbers, and layers that cannot be laid out stay."""

import pytest
import torch

from al_args import fast_linear
from helpers import tiny

IDS = torch.arange(60).view(3, 20)


@pytest.mark.skipif(not fast_linear.works(torch.float32), reason="this PyTorch cannot lay weights out")
@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_laid_out_a_model_says_the_same(family, dtype):
    model = tiny.causal(family, tie_word_embeddings=family == "gpt2").to(dtype)
    with torch.inference_mode():
        before = model(IDS).logits
        fast_linear.lay_out(model)
        after = model(IDS).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.2)
    left = [layer for layer in model.modules() if type(layer) in (torch.nn.Linear, fast_linear.Conv1D)]
    assert left == ([model.lm_head] if family == "gpt2" else [])
    assert sum(type(layer) is fast_linear.LaidOutLinear for layer in model.modules()) >= 8
    assert model.dtype == dtype and model.device.type == "cpu"


@pytest.mark.parametrize("why", ["float64", "no such operators", "other numbers"])
def test_what_cannot_be_laid_out_stays(why, monkeypatch):
    model = tiny.causal("llama")
    if why == "float64":
        model.double()
    elif why == "no such operators":
        monkeypatch.setattr(fast_linear.LaidOutLinear, "__init__", lambda *_: torch.ops.mkldnn._no_such_operator)
    else:
        monkeypatch.setattr(fast_linear.LaidOutLinear, "forward", lambda layer, x: torch.zeros(5, 40, dtype=x.dtype))
    layers = list(model.modules())
    fast_linear.lay_out(model)
    assert list(model.modules()) == layers
