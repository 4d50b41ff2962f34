"""What is tried on load: models that cannot share a prompt are found out, and rounding is taken for none of it."""

import pytest
import torch

from alignlib.models import policy as policy_module
from alignlib.models.policy import Policy
from alignlib.models.probes import is_exact, relative_error
from helpers import tiny
from helpers.plain import plain_logps

# -- models that cannot share a prompt ------------------------------------------------------------------------


def test_of_a_model_of_no_numbers_nothing_is_said_but_by_who_uses_them(capsys):
    model = tiny.causal("llama")
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    Policy(model, tiny.tokenizer())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("family, changes, why", [
    ("bloom", {}, "too many values"),  # its positions are distances in the row
    ("gpt_neo", {"window_size": 4}, "its windows count a row's columns"),
    ("qwen3_next", {}, "its linear_attention layers read a row from end to end"),
])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_that_cannot_share_are_found_out_and_fall_back(family, changes, why, dtype, capsys):
    model = tiny.causal(family, **changes).to(dtype)
    policy = Policy(model, tiny.tokenizer())
    assert not policy.shared
    warning = capsys.readouterr().err
    assert why in warning and "using padded rows" in warning
    if dtype == torch.float32:
        examples = [tiny.example(9, 4, 7, 2), tiny.example(5, 11, 3, 6)]
        with torch.no_grad():
            actual = policy.logps(policy.pack(examples))
            plain = torch.stack([plain_logps(model, example) for example in examples])
        torch.testing.assert_close(actual, plain, rtol=1e-6, atol=0)


def test_positions_by_place_are_found_out_in_any_precision(capsys):
    """MPT's: in bf16 too much is rounded for a completion right behind its prompt to show it."""
    assert not Policy(tiny.causal("mpt").to(torch.bfloat16), tiny.tokenizer()).shared
    assert "shared prompts differ by" in capsys.readouterr().err


def test_models_that_can_share_are_silent(capsys):
    assert Policy(tiny.causal("mistral", sliding_window=64), tiny.tokenizer()).shared
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("family", ["mistral", "gemma3", "llama4"])
def test_a_window_that_is_not_heeded_is_found_out(family, monkeypatch, capsys):
    """By a text on load that is shorter than the model's window."""
    monkeypatch.setattr(policy_module, "model_windows", lambda config: {"full_attention": None})
    assert not Policy(tiny.causal(family), tiny.tokenizer()).shared
    assert "shared prompts differ by" in capsys.readouterr().err


# -- what is rounding --------------------------------------------------------------------------------------------


def test_single_tokens_off_by_rounding_are_no_other_attention():
    """SmolLM2 trained by exo-rw has tokens in bf16 whose states turn round; half of them do only in another text."""
    wanted = torch.ones(4, 8)
    vectors = wanted.clone()
    vectors[0] -= 1.1
    assert relative_error(vectors, wanted, exact=True) == pytest.approx(1.1)
    assert relative_error(vectors, wanted, exact=False) == 0
    vectors[2] -= 1.1
    assert relative_error(vectors, wanted, exact=False) == pytest.approx(1.1)
    assert relative_error(torch.full((8,), 1.25).bfloat16(), wanted[0].bfloat16(), exact=False) == 0.25


def test_layers_in_4_bits_may_compute_in_less_than_their_states():
    """What they give is float32 and has bf16's rounding: SmolLM2's prompts were not shared for that."""
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    states = torch.ones(2)
    assert is_exact(policy, states) and not is_exact(policy, states.bfloat16())
    policy.core.model.layers[0].mlp.up_proj.compute_dtype = torch.float32  # as of bitsandbytes' Linear4bit
    assert is_exact(policy, states)
    policy.core.model.layers[0].mlp.down_proj.compute_dtype = torch.bfloat16
    assert not is_exact(policy, states)
