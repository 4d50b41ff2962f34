"""The declared losses, and the objective on packs of a tiny policy: groups, pairs, verdicts, figures."""

import math

import pytest
import torch

from al_train_exo.objective import LOSSES, with_verdict
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Policy
from alignlib.training import losses
from helpers import tiny

RECORD = {"prompt": "Say it.", "completions": [" Yes.", " No.", " So be it.", " Why?"], "rewards": [1.0, 3.0, 2.0, 0.0]}


def encoder() -> Encoder:
    return Encoder(tiny.tokenizer(), max_length=tiny.CONTEXT)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_has_its_function_and_what_it_takes_says_what_it_needs(loss):
    assert callable(getattr(losses, loss.replace("-", "_")))
    declared = LOSSES[loss]
    assert declared.pairs == (loss not in ("exo-rw", "dpo-rw"))
    assert declared.reference == ("log_ratio" in declared.takes)
    assert declared.heeds("beta_pi") and declared.heeds("beta_r") == (not declared.pairs)
    assert declared.heeds("smoothing") == (loss in ("exo-pref", "dpo-pref", "robust"))
    assert declared.heeds("gamma") == (loss == "simpo") and declared.heeds("ref") == declared.reference


def test_a_group_is_a_pair_or_so_many_or_all():
    assert tiny.contrast("dpo-pref").width(4) == 2
    assert tiny.contrast("exo-rw").width(4) == 4 and tiny.contrast("exo-rw", num_contrastive=2).width(4) == 2
    example = tiny.example(3, 2, 2, 2, 2)
    assert [tiny.contrast(loss).size(example) for loss in ("dpo-pref", "exo-rw")] == [2, 1]


def test_of_a_pair_the_preferred_comes_first():
    tensors = {"logps": torch.tensor([[1.0, 2.0, 3.0, 4.0]]), "rewards": torch.tensor([[0.0, 5.0, 7.0, 6.0]])}
    assert tiny.contrast("dpo-pref").groups(tensors)["logps"].tolist() == [[2, 1], [3, 4]]
    assert tiny.contrast("exo-rw").groups(tensors)["logps"].tolist() == [[1, 2, 3, 4]]
    assert tiny.contrast("exo-rw", num_contrastive=2).groups(tensors)["logps"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_policy_that_is_its_own_reference_prefers_nothing(loss):
    model, objective = Policy(tiny.causal("llama"), tiny.tokenizer()), tiny.contrast(loss)
    example = objective.example(encoder(), RECORD)
    with torch.no_grad():
        example.values["ref_logps"] = model.logps(model.pack([example]))[0].tolist()
        total, figures = objective(model, model.pack([example]))
    assert math.isfinite(total.item())
    if objective.needs.reference:
        assert [figures[name].item() for name in ("margin", "accuracy", "kl")] == pytest.approx([0, 0.5, 0], abs=1e-6)
    else:
        assert "kl" not in figures


def test_a_small_log_ratio_of_long_texts_is_not_rounded():
    """Of 440 nats float32 has none below 3e-5."""
    model, objective = Policy(tiny.causal("llama"), tiny.tokenizer()), tiny.contrast("dpo-pref", beta_pi=1.0)
    example = tiny.example(3, 120, 120, rewards=[1.0, 0.0])
    with torch.no_grad():
        logps = model.logps(model.pack([example]))[0]
        example.values["ref_logps"] = [logps[0].item() - 1e-6, logps[1].item()]
        _, figures = objective(model, model.pack([example]))
    assert logps.max() < -300 and figures["margin"].item() == pytest.approx(1e-6, rel=1e-3)


def test_weights_and_the_likelihood_of_the_preferred_are_added():
    """By hand, on one pair: importance times the loss, less sft-reg times the log-probability of the better one."""
    groups = {"logps": torch.tensor([[-2.0, -5.0]]), "log_ratio": torch.tensor([[0.5, -0.25]])}
    plain = math.log1p(math.exp(-0.5 * 0.75))
    assert tiny.contrast("dpo-pref").group_losses(groups).tolist() == pytest.approx([plain])
    weighed = tiny.contrast("dpo-pref", importance=True, sft_reg=0.1).group_losses(groups)
    assert weighed.tolist() == pytest.approx([math.exp(-0.25) * plain + 0.1 * 2.0])
    free = tiny.contrast("dpo-pref", reference_free=True).group_losses(groups)
    assert free.tolist() == pytest.approx([math.log1p(math.exp(-0.5 * 3.0))])


@pytest.mark.parametrize(("loss", "change", "message"), [
    ("exo-rw", {"completions": [" a"], "rewards": [1]}, "one alone has nothing to be compared with"),
    ("dpo-pref", {"completions": [" a", " b", " c"], "rewards": [1, 2, 3]}, "3 make no groups of 2"),
    ("dpo-pref", {"rewards": [1, 2, 5, 5]}, "a tie, no preference"),
    ("exo-rw", {"rewards": None}, "rewards: expected an array"),
])
def test_records_that_say_nothing(loss, change, message):
    with pytest.raises(ValueError, match=message):
        tiny.contrast(loss).example(encoder(), {**RECORD, **change})


def test_stored_log_probabilities_are_of_the_same_temperature():
    record = {**RECORD, "ref_logps": [-1.0, -2.0, -3.0, -4.0]}
    assert tiny.contrast(ref="ref_logps").example(encoder(), record).values["ref_logps"] == record["ref_logps"]
    assert "ref_logps" not in tiny.contrast("simpo", ref="ref_logps").example(encoder(), record).values
    with pytest.raises(ValueError, match="made at temperature 1.0, not 0.5"):
        tiny.contrast(ref="ref_logps", temperature=0.5).example(encoder(), record)


def test_a_verdict_is_rewards():
    """Where chosen and rejected are the two completions, in either order; else the record stays as it is."""
    record = {"completions": ["a", "b"], "chosen": "b", "rejected": "a"}
    assert with_verdict(record)["rewards"] == [0, 1]
    assert with_verdict({**record, "chosen": "a", "rejected": "b"})["rewards"] == [1, 0]
    assert with_verdict({"chosen": "b", "rejected": "a"}) == {
        "chosen": "b", "rejected": "a", "completions": ["b", "a"], "rewards": [1, 0]}
    for other in ({**record, "chosen": "c"}, {"completions": ["a", "b"]}, {"chosen": "b"}):
        assert with_verdict(other) is other
