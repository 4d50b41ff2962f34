"""New tokens and layers that train, of tiny policies; through the command: test_al_train_alt.py."""

import pytest
import torch

from al_train_alt.layers import Unadapted, add_tokens, train_top
from alignlib.models.policy import Policy
from alignlib.training.adapters import add_adapters
from helpers import tiny

WORDS = ["_GOOD_", "_BAD_"]


def policy(family="llama", **changes) -> Policy:
    return Policy(tiny.causal(family, **changes), tiny.tokenizer())


def trained(model: Policy) -> set[str]:
    return {name for name, weight in model.core.named_parameters() if weight.requires_grad}


def test_new_tokens_get_rows_and_the_others_stay():
    model = policy()
    before = model.core.get_input_embeddings().weight.detach().clone()
    first = add_tokens(model, WORDS)
    after = model.core.get_input_embeddings().weight
    assert first == len(before) == tiny.VOCABULARY and len(after) == len(before) + 2
    assert after[:first].equal(before) and not after[first].equal(after[first + 1])
    assert model.tokenizer("a_BAD_b", add_special_tokens=False)["input_ids"][1] == first + 1


def test_new_rows_are_drawn_from_the_seed():
    rows = []
    for seed in (1, 1, 2):
        model = policy()
        first = add_tokens(model, WORDS, seed)
        rows.append(model.core.get_input_embeddings().weight[first:])
    assert rows[0].equal(rows[1]) and not rows[0].equal(rows[2])


def test_known_tokens_and_spare_rows_change_no_matrix():
    model = policy(vocab_size=tiny.VOCABULARY + 9)
    before = model.core.get_input_embeddings().weight
    for _ in range(2):  # the second time the tokenizer knows them
        assert add_tokens(model, WORDS) == tiny.VOCABULARY
        assert model.core.get_input_embeddings().weight is before


@pytest.mark.parametrize(("share", "layers"), [(0.3, {2, 3}), (0.5, {2, 3}), (0.75, {1, 2, 3}), (1.0, {0, 1, 2, 3})])
def test_the_topmost_layers_train_rounded_up(share, layers):
    model = policy(num_hidden_layers=4)
    train_top(model, share)
    names = trained(model)
    assert {int(name.split(".")[2]) for name in names if ".layers." in name} == layers
    assert {"model.norm.weight", "lm_head.weight"} < names and "model.embed_tokens.weight" not in names


def test_a_share_of_layers_is_that_of_its_decimals():
    model = policy(num_hidden_layers=25)
    train_top(model, 0.28)  # 25 * 0.28 is 7.000000000000001 in binary
    assert len({name.split(".")[2] for name in trained(model) if ".layers." in name}) == 7


def test_the_input_trains_where_it_is_asked_for_or_tied():
    model = policy()
    train_top(model, 0.5, embeddings=True)
    assert "model.embed_tokens.weight" in trained(model)
    tied = policy("gpt2")
    train_top(tied, 0.5)
    assert tied.core.get_input_embeddings().weight.requires_grad and "transformer.wpe.weight" not in trained(tied)


def test_what_does_not_train_has_no_gradient():
    model = policy(num_hidden_layers=4)
    train_top(model, 0.25)
    (-model.logps(model.pack([tiny.example(5, 3)])).sum()).backward()
    moved = {name for name, weight in model.core.named_parameters() if weight.grad is not None}
    assert moved == trained(model) and torch.is_tensor(model.core.lm_head.weight.grad)


def test_without_its_adapters_a_policy_is_what_it_was():
    """Whatever they have learnt, also made before they were there; and they still train afterwards."""
    model = policy()
    batch = model.pack([tiny.example(9, 4, 7)])
    reference = Unadapted(model)
    with torch.no_grad():
        before = model.hidden(batch)
        add_adapters(model, tiny.recipe("x", lora=2))
        for name, weight in model.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
        assert not torch.allclose(model.hidden(batch), before, atol=0.1)
        torch.testing.assert_close(reference.hidden(batch), before, rtol=0, atol=0)
    assert trained(model) and all("lora_" in name for name in trained(model))
