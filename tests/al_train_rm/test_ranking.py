"""The objectives of al-train-rm on single examples: pairs of a prompt's completions, classes of texts."""

import json

import pytest
import torch

from al_train_rm.ranking import Classes, Ranking, ordered
from alignlib.models.encoding import Encoder
from alignlib.models.policy import RewardModel
from alignlib.records.jsonl import DataError, Skip
from helpers import tiny


def encoder() -> Encoder:
    return Encoder(tiny.tokenizer(), max_length=tiny.CONTEXT, eos=False)


def test_ranking_alone_is_the_objective_without_more():
    assert Ranking().size(tiny.example(3, 2, 2, rewards=[1.0, 0.0])) == 1


def reward_model(labels=1) -> RewardModel:
    return RewardModel(tiny.classifier("llama", labels), tiny.tokenizer())


def test_a_preference_is_two_rewards_and_what_goes_with_other_completions_goes():
    record = {"prompt": "p", "chosen": " good", "rejected": " bad"}
    plain = Ranking().example(encoder(), record)
    assert plain.values["rewards"] == [1, 0] and plain == Ranking().example(
        encoder(), {"prompt": "p", "completions": [" good", " bad"], "rewards": [1, 0]})
    judged = {**record, "completions": [" bad", " good"], "finish_reasons": ["length", "stop"]}
    assert Ranking().example(encoder(), judged) == plain


def test_rewards_are_compared_as_float32_has_them():
    record = {"prompt": "p", "completions": [" a", " b", " c"]}
    example = Ranking().example(encoder(), {**record, "rewards": [0.1 + 0.2, 0.3, 1.0]})
    assert Ranking().size(example) == 2
    for equal in ([1, 1, 1], [2**24 + 1, 2**24, 2**24]):
        with pytest.raises(Skip, match="all equal, no preference"):
            Ranking().example(encoder(), {**record, "rewards": equal})


def test_every_ordered_pair_is_one():
    better = ordered(torch.tensor([[2.0, 1.0, 2.0]]))
    assert better.int().tolist() == [[[0, 1, 0], [0, 0, 0], [0, 1, 0]]]
    assert [Ranking().size(tiny.example(3, 2, 2, 2, rewards=rewards)) for rewards in
            ([2.0, 1.0, 2.0], [3.0, 2.0, 1.0])] == [2, 3]


def test_the_figures_by_hand():
    """Of three scores, two of three pairs are right and one ties; the best completion is the second."""
    figures = Ranking().figures(torch.tensor([[0.5, 2.0, 0.5]]), torch.tensor([[2.0, 3.0, 1.0]]))
    assert {name: value.item() for name, value in figures.items()} == {
        "accuracy": pytest.approx(2.5 / 3), "best_score": 2.0, "worst_score": 0.5}


def test_the_loss_is_of_the_models_scores():
    model, objective = reward_model(), Ranking(margin=0.5)
    batch = model.pack([tiny.example(6, 3, 4, rewards=[1.0, 0.0])])
    with torch.no_grad():
        scores = model.scores(batch)[0]
        loss, figures = objective(model, batch)
    assert loss.item() == pytest.approx(torch.nn.functional.softplus(scores[1] - scores[0] + 0.5).item(), rel=1e-5)
    assert (figures["best_score"].item(), figures["worst_score"].item()) == pytest.approx(tuple(scores.tolist()))


@pytest.mark.slow
def test_classes_are_numbered_by_name_whatever_the_order_of_the_texts():
    numbers = []
    for order in (["sad", "glad", "dull", "sad"], ["dull", "sad", "sad", "glad"]):
        objective = Classes()
        given = [objective.example(encoder(), {"text": f"a {label} day", "label": label}) for label in order]
        parts = tiny.stored(given[:3]), tiny.stored(given[3:])
        objective.settle(*parts)
        examples = [*parts[0], *parts[1]]
        assert objective.names == ["dull", "glad", "sad"]
        numbers.append({label: example.values["label"] for label, example in zip(order, examples, strict=True)})
    assert numbers[0] == numbers[1] == {"dull": [0], "glad": [1], "sad": [2]}


@pytest.mark.slow
def test_classes_may_be_numbers_and_truths():
    """By their JSON; whole numbers by their size, before other names. The string of a number is its class."""
    for order in (["x", 10, 9, True, "9", -1, False], [False, -1, 9, "x", True, "10"]):
        objective = Classes()
        examples = tiny.stored(objective.example(encoder(), {"text": "a day", "label": label}) for label in order)
        objective.settle(examples, tiny.stored([]))
        assert objective.names == ["-1", "9", "10", "false", "true", "x"]
        names = [label if isinstance(label, str) else json.dumps(label) for label in order]
        assert [objective.names[example.values["label"][0]] for example in examples] == names


def test_one_class_is_none():
    objective = Classes()
    example = objective.example(encoder(), {"text": "a day", "label": "sad"})
    with pytest.raises(DataError, match="^label: one class only, sad: a classifier needs two or more$"):
        objective.settle([example], [])


def test_the_cross_entropy_of_a_text_s_class():
    model, objective = reward_model(labels=3), Classes()
    batch = model.pack([tiny.example(2, 4, label=[2]), tiny.example(3, 5, label=[0])])
    with torch.no_grad():
        logits = model.logits(batch)
        loss, figures = objective(model, batch)
    chances = logits.softmax(-1)
    assert loss.item() == pytest.approx(-(chances[0, 2].log() + chances[1, 0].log()).item(), rel=1e-5)
    assert figures["accuracy"].item() == (logits.argmax(-1) == torch.tensor([2, 0])).sum().item()
