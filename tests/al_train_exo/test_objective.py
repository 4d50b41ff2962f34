"""The declared losses, and the objective on packs of a tiny policy: groups, pairs, verdicts, figures."""

import math
from functools import partial

import click
import pytest
import torch

from al_train_exo.objective import LOSSES, mismatched_examples, with_verdict
from alignlib.models.encoding import Encoder
from alignlib.models.example import Example
from alignlib.models.policy import Policy
from alignlib.records.jsonl import DataError
from alignlib.training import losses, passes
from alignlib.training.batches import Batches, Shuffled
from alignlib.training.engine import AskingEngine
from helpers import tiny

RECORD = {"prompt": "Say it.", "completions": [" Yes.", " No.", " So be it.", " Why?"], "rewards": [1.0, 3.0, 2.0, 0.0]}


def encoder() -> Encoder:
    return Encoder(tiny.tokenizer(), max_length=tiny.CONTEXT)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_has_its_function_and_what_it_takes_says_what_it_needs(loss):
    assert callable(getattr(losses, loss.replace("-", "_")))
    declared = LOSSES[loss]
    assert declared.pairs == (loss not in ("exo-rw", "dpo-rw", "kto"))
    assert declared.single == declared.mismatched == declared.heeds("kto_threshold") == (loss == "kto")
    assert declared.reference == ("log_ratio" in declared.takes)
    assert declared.heeds("beta_pi") == (loss != "orpo") == (not declared.heeds("orpo_lambda"))
    assert declared.heeds("beta_r") == (loss in ("exo-rw", "dpo-rw"))
    assert declared.heeds("smoothing") == (loss in ("exo-pref", "dpo-pref", "robust"))
    assert declared.heeds("gamma") == (loss == "simpo") and declared.heeds("ref") == declared.reference


def test_a_group_is_a_pair_or_so_many_or_all():
    assert tiny.contrast("dpo-pref").width(4) == 2
    assert tiny.contrast("exo-rw").width(4) == 4 and tiny.contrast("exo-rw", num_contrastive=2).width(4) == 2
    example = tiny.example(3, 2, 2, 2, 2)
    assert [tiny.contrast(loss).size(example) for loss in ("dpo-pref", "exo-rw", "kto")] == [2, 1, 4]


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
    if objective.needs.single:  # of each of the four
        assert total.item() == pytest.approx(2) and figures["accuracy"].item() == 2 and figures["kl"].item() == 0
    elif objective.needs.reference:
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
    ("dpo-pref", {"rewards": [1, 2, 0.3, 0.1 + 0.2]}, "a tie, no preference"),  # in float32
    ("orpo", {"rewards": [100000000, 100000001, 0, 1]}, "a tie, no preference"),
    ("exo-rw", {"rewards": [0, 1, 1e39, 0]}, r"rewards\[2\]: 1e\+39 is beyond 1.7e\+38, half of float32's range"),
    ("dpo-rw", {"rewards": [0, 1, 1e38, 0]}, r"rewards / --beta-r\[2\]: 2e\+38 is beyond 1.7e\+38, half of "),
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


# -- in no pairs ---------------------------------------------------------------------------------------------------


def test_completions_are_good_or_bad_by_their_rewards_or_their_label():
    def good(record, **changes):
        return tiny.contrast("kto", **changes).example(encoder(), record).values["good"]

    assert good(RECORD) == [1, 1, 1, 0] and good(RECORD, kto_threshold=1.0) == [0, 1, 1, 0]
    bare = {"prompt": "Say it.", "chosen": " Yes."}
    assert good({**bare, "label": True}) == [1] and good({**bare, "label": False}) == [0]
    assert good({"prompt": "p", "completions": [" a", " b"], "label": False}) == [0, 0]
    assert good({**bare, "rejected": " No."}) == [1, 0]  # a preference
    assert good({**RECORD, "label": "fair"}) == [1, 1, 1, 0]  # rewards say it
    for wrong, message in (({**bare, "label": "yes"}, "label: expected true or false, got a string"),
                           ({**bare, "label": 1}, "label: expected true or false, got a number"),
                           (bare, "completions: missing"),
                           ({"prompt": "p", "completions": [" a"]}, "rewards: missing")):
        with pytest.raises(ValueError, match=message):
            good(wrong)


def test_what_kto_cannot_learn_from_is_refused():
    objective = tiny.contrast("kto")
    good, bad = (tiny.example(3, 2, good=[kind]) for kind in (1.0, 0.0))
    both, none = tiny.stored([good, bad]), tiny.stored([])
    objective.settle(both, none)
    with pytest.raises(DataError, match="all rewards are above --kto-threshold 0: none .* is a bad one"):
        objective.settle(tiny.stored([good, good]), none)
    with pytest.raises(DataError, match="all rewards are at most"):
        objective.settle(tiny.stored([bad]), none)
    with pytest.raises(click.UsageError, match="--eval has one record"):
        objective.settle(both, tiny.stored([good]))
    assert len(objective.order([good] * 8, 3)) == 8 and len(objective.order([good] * 2, 64)) == 2
    for number, size, cure in ((9, 4, ": --batch-size 5 leaves none"), (7, 3, ": --batch-size 4"), (1, 4, "$")):
        with pytest.raises(click.UsageError, match=f"leaves one of {number} records alone.*{cure}"):
            objective.order([good] * number, size)
    with pytest.raises(click.UsageError, match="alone"):
        objective.order([good] * 4, 1)


def test_the_mismatched_are_the_next_record_s_answers():
    """Cut where the other's prompt leaves too little room; the last prompt gets the first record's."""
    one, two, three = tiny.example(3, 2, 4), tiny.example(5, 6), tiny.example(2, 1, 1)
    made = mismatched_examples([one, two, three], 8)
    assert [example.prompt for example in made] == [one.prompt, two.prompt, three.prompt]
    assert [example.completions for example in made] == [[two.completions[0][:5]], three.completions, one.completions]
    assert not any(example.values for example in made)


def test_the_mismatched_log_ratio_is_the_step_s_mean():
    """By hand, from log-probabilities of plain rows: 0 of the reference itself, and where it is less."""
    policy, other = (Policy(tiny.causal("llama", seed), tiny.tokenizer()) for seed in (1, 0))
    examples = [tiny.example(3 + i, 4, 2 + i, good=[1.0, 0.0]) for i in range(5)]
    recipe = tiny.recipe("none", batch_size=3, pack_tokens=60)
    objective = tiny.contrast("kto", temperature=0.8)
    objective.longest = tiny.CONTEXT

    def asked(model):
        return partial(passes.measure, model, AskingEngine(model), recipe)

    batches = Batches(Shuffled(5), recipe)
    objective.reference_means = objective.step_means(examples, examples[:2], batches, asked(other))
    assert len(objective.reference_means) == 3  # two steps and the evaluation
    found = []
    for step in (0, 1, None):
        indices = [0, 1] if step is None else batches.at(step)
        rows = [(examples[i].prompt, answer) for i, j in zip(indices, [*indices[1:], indices[0]], strict=True)
                for answer in examples[j].completions]
        with torch.no_grad():
            sums = [[model.logps(model.pack([Example(prompt, [answer])]), 0.8).item() for prompt, answer in rows]
                    for model in (policy, other)]
        objective.before(step, indices, examples[:2] if step is None else examples, asked(policy))
        mean = (sum(sums[0]) - sum(sums[1])) / len(rows)
        assert objective.mismatched == pytest.approx(max(0, mean), abs=1e-4)
        objective.before(step, indices, examples[:2] if step is None else examples, asked(other))
        assert objective.mismatched == 0.0
        found.append(mean)
    assert len({round(mean, 3) for mean in found}) == 3 and max(found) > 0
