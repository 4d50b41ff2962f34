"""Packs: their layout, who may look at whom, how examples are dealt into them; the RLAIF study's batches."""

import json
import math
import random
from types import SimpleNamespace

import pytest
import torch

from al_sft import Likelihood
from alignlib.models import packs
from alignlib.models.example import Example
from alignlib.models.packs import pack, plan
from alignlib.models.policy import Policy
from alignlib.models.windows import Window
from helpers import tiny

A, B, C, D, E = range(1, 6)


def cases(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- layout -----------------------------------------------------------------------------------------------------


def test_the_row_drawn_in_the_docstring():
    batch = pack([Example([A, B], [[C, D], [E]])])
    assert batch.ids.tolist() == [[A, B, C, D, E]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.mask[0, 0].int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0],
                                              [1, 1, 0, 0, 1]]
    assert batch.sources.tolist() == [1, 2, 1] and batch.targets.tolist() == [C, D, E]
    assert batch.owner.tolist() == [0, 0, 1] and batch.last.tolist() == [3, 4]
    assert batch.counts().tolist() == [[2, 1]] and batch.tokens == 5 and batch.shape == (1, 2)
    assert batch.sums(torch.tensor([1.0, 10.0, 100.0])).tolist() == [[11.0, 100.0]]


def test_windows_count_positions():
    """The second completion looks back to the prompt as if no other lay between; one mask for each kind of layers."""
    windows = {"full_attention": None, "sliding_attention": Window(2), "chunked_attention": Window(2, chunked=True)}
    example = Example([A, B], [[C, D], [E]])
    masks = {kind: mask[0, 0].int().tolist() for kind, mask in pack([example], windows=windows).mask.items()}
    assert masks["full_attention"] == pack([example]).mask[0, 0].int().tolist()
    assert masks["sliding_attention"] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0],
                                          [0, 1, 0, 0, 1]]
    assert masks["chunked_attention"] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0],
                                          [0, 0, 0, 0, 1]]
    flat = pack([example], windows=windows, flat=True).mask
    seen = [torch.tensor(place) for place in range(5)]
    for kind, mask in masks.items():
        assert [[int(flat[kind].mask_mod(0, 0, query, key)) for key in seen] for query in seen] == mask


def test_windows_as_long_as_the_texts_need_no_masks_of_their_own():
    example = Example([A, B], [[C, D], [E]])
    loose = pack([example], windows={"full_attention": None, "sliding_attention": Window(4)}).mask
    assert torch.equal(loose, pack([example]).mask)
    alike = pack([example], windows={"sliding_attention": Window(2)}).mask
    assert isinstance(alike, torch.Tensor) and alike.sum() == 9  # all layers have it
    assert pack([Example([A, B], [[C, D]])], windows={"sliding_attention": Window(2)}).mask is None  # a plain text


def test_two_examples_of_different_length():
    one = Example([A], [[B], []], {"rewards": [1, 0]})
    batch = pack([one, Example([A, B, C], [[D], [E]], {"rewards": [0, 2]})], [7, 4])
    assert batch.ids.tolist() == [[A, B, 0, 0, 0], [A, B, C, D, E]]
    assert batch.sources.tolist() == [0, 7, 7] and batch.targets.tolist() == [B, D, E]
    assert batch.last.tolist() == [1, 0, 8, 9]  # of the empty completion: the prompt's last
    assert batch.counts().tolist() == [[1, 0], [1, 1]]
    assert batch.indices == [7, 4] and batch.tokens == 7 and batch.values["rewards"].tolist() == [[1, 0], [0, 2]]
    assert batch.sums(torch.tensor([1.0, 2.0, 3.0])).tolist() == [[1.0, 0.0], [2.0, 3.0]]


def test_sums_are_made_in_float64():
    """440 nats of a thousand tokens; float32 would be off by more than 1e-4. What was stored comes back whole."""
    drawn = -0.88 * torch.rand(1000, generator=torch.Generator().manual_seed(1))
    batch = pack([Example([A], [[B] * 1000, [C]], {"ref_logps": [-440.00001234, 0.1], "rewards": [1.0, 0.5]})])
    sums = batch.sums(torch.cat([drawn, torch.tensor([0.25])]))
    assert sums.dtype == torch.float64 and sums.tolist() == [[pytest.approx(math.fsum(drawn.tolist()), abs=1e-9), 0.25]]
    narrow = torch.zeros(1).index_add(0, torch.zeros(1000, dtype=torch.long), drawn).item()
    assert abs(narrow - sums[0, 0].item()) > 1e-5  # what it was
    assert batch.values["ref_logps"].tolist() == [[-440.00001234, 0.1]]
    assert batch.values["rewards"].dtype == batch.counts().dtype == torch.float32  # as the scores that they go with


def test_one_completion_is_a_plain_causal_row():
    batch = pack([Example([A], [[B, C]]), Example([D, E], [[A]])])
    assert batch.mask is None and batch.positions is None
    assert batch.sources.tolist() == [0, 1, 4] and batch.targets.tolist() == [B, C, A]


def test_rows_that_may_not_share_repeat_the_prompt():
    batch = pack([Example([A, B], [[C, D], [], [E]])], shared=False)
    assert batch.ids.tolist() == [[A, B, C, D], [A, B, 0, 0], [A, B, E, 0]]
    assert batch.mask is None and batch.owner.tolist() == [0, 0, 2] and batch.last.tolist() == [3, 5, 10]
    assert batch.tokens == 9 and batch.shape == (1, 3)


def test_without_a_prompt_nothing_predicts_the_first_token():
    batch = pack([Example([], [[A, B]])])
    assert batch.sources.tolist() == [0] and batch.targets.tolist() == [B] and batch.last.tolist() == [1]


def test_a_long_group_is_split_into_rows(monkeypatch):
    monkeypatch.setattr(packs, "ROW_TOKENS", 5)
    batch = pack([Example([A, B], [[C, D], [E], [A], [B, C, D, E]])])
    assert batch.ids.tolist() == [[A, B, C, D, E, 0], [A, B, A, 0, 0, 0], [A, B, B, C, D, E]]
    assert batch.owner.tolist() == [0, 0, 1, 2, 3, 3, 3, 3] and batch.tokens == 14
    assert batch.last.tolist() == [3, 4, 8, 17]


def test_widths_must_match():
    with pytest.raises(ValueError, match="same number of completions"):
        pack([Example([A], [[B]]), Example([A], [[B], [C]])])


def test_padding_is_seen_by_nobody():
    batch = pack([Example([A], [[B], [C]]), Example([A, B, C], [[D], [E, A]])])
    assert not batch.mask[0, 0, :3, 3:].any() and batch.mask[1, 0, 5, [0, 1, 2, 4, 5]].all()


# -- plan -------------------------------------------------------------------------------------------------------


def rows_of(examples, indices, shared):
    batch = pack([examples[i] for i in indices], shared=shared)
    return batch.ids.shape


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tokens", [1, 64, 500, 100_000])
def test_plan_deals_every_index_once_and_holds_the_budget(tokens, shared, monkeypatch):
    monkeypatch.setattr(packs, "ROW_TOKENS", 60)
    numbers = random.Random(tokens)
    widths = [numbers.choice([1, 2, 4]) for _ in range(60)]
    examples = [tiny.example(numbers.randint(1, 30), *(numbers.randint(0, 20) for _ in range(k))) for k in widths]
    indices = numbers.sample(range(60), 41)
    dealt = plan(examples, indices, tokens, shared=shared)
    assert sorted(i for one in dealt for i in one) == sorted(indices)
    for one in dealt:
        assert len({len(examples[i].completions) for i in one}) == 1
        rows, long = rows_of(examples, one, shared)
        assert rows * long <= tokens or len(one) == 1
    assert dealt == plan(examples, sorted(indices), tokens, shared=shared)  # whatever the order they came in
    if tokens == 100_000:
        assert len(dealt) == len({len(examples[i].completions) for i in indices})


def test_like_lengths_go_together():
    examples = [tiny.example(length, 2) for length in (4, 30, 5, 29, 6, 28)]
    assert plan(examples, range(6), 96) == [[1, 3, 5], [4, 2, 0]]


# -- the RLAIF study's batches -----------------------------------------------------------------------------------


class LookUp(torch.nn.Module):
    """A stand-in for a language model: its hidden states are the logits that it was given."""

    def __init__(self, logits):
        super().__init__()
        self.table = torch.nn.Parameter(logits)
        self.config = tiny.config("llama", vocab_size=logits.shape[-1])
        self.device = logits.device
        self.asked_on_load = True

    def base_model(self, input_ids, **_):
        if self.asked_on_load:  # whether prompts can be shared: states of the token alone
            return SimpleNamespace(last_hidden_state=torch.eye(self.table.shape[-1])[input_ids])
        return SimpleNamespace(last_hidden_state=self.table[:, :input_ids.shape[1]])

    def forward(self, **inputs):
        return SimpleNamespace(logits=self.base_model(**inputs).last_hidden_state)

    def get_output_embeddings(self):
        return torch.nn.Identity()


def looking_up(logits):
    policy = Policy(LookUp(torch.tensor(logits)), None)
    policy.core.asked_on_load = False
    return policy


def rows(batch, side):
    """A side's rows as Examples: what is labelled is the completion."""
    for ids, labels in zip(batch[f"{side}_input_ids"], batch[f"{side}_labels"], strict=True):
        counted = [t for t in range(len(ids)) if labels[t] != -100]
        assert counted == list(range(counted[0], counted[-1] + 1))
        yield Example(ids[:counted[0]], [ids[counted[0]:counted[-1] + 1]])


def test_batch_metrics(fixtures):
    """Packs, log-probabilities, losses and gradients of whole batches, by the objects that train."""
    kinds = set()
    for case in cases(fixtures / "dpo-rlaif" / "get_batch_metrics.jsonl"):
        config = case["loss_config"]
        sides = ("chosen",) if config["name"] == "sft" else ("chosen", "rejected")
        examples = [row for side in sides for row in rows(case["batch"], side)]
        policy = looking_up(case["policy_logits"])
        batch = policy.pack(examples)
        sums = policy.logps(batch).detach()[:, 0]
        wanted = [value for side in sides for value in case["metrics"][f"logps_train/{side}"]]
        torch.testing.assert_close(sums.tolist(), wanted, rtol=1e-5, atol=1e-5)
        if config["name"] == "sft":
            objective = Likelihood("sequence")
            loss = objective(policy, batch)[0] / sum(map(objective.size, examples))
        else:
            ref = looking_up(case["reference_logits"]).logps(batch).detach()
            logps, ref = (x.view(2, -1).T for x in (policy.logps(batch), ref))  # [B, (chosen, rejected)]
            name = "ipo" if config["ipo"] else "robust" if config["robust_eps"] else "dpo-pref"
            objective = tiny.contrast(name, beta_pi=config["beta"], smoothing=config["robust_eps"],
                                      reference_free=config["reference_free"],
                                      importance=config["importance_correction"], sft_reg=config["sft_reg"])
            rewards = torch.tensor([[1.0, 0.0]]).expand_as(logps)
            tensors = {"logps": logps, "log_ratio": logps - ref, "rewards": rewards}
            loss = objective.group_losses(objective.groups(tensors)).mean()
            kinds |= {name, *(flag for flag in ("importance", "reference_free", "sft_reg") if getattr(objective, flag))}
        torch.testing.assert_close(loss.item(), case["mean_loss"], rtol=1e-5, atol=1e-5)
        (gradient,) = torch.autograd.grad(loss, policy.core.table)
        wanted = torch.tensor(case["grad_mean_loss_wrt_policy_logits"])
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)
    assert kinds == {"ipo", "robust", "dpo-pref", "importance", "reference_free", "sft_reg"}
