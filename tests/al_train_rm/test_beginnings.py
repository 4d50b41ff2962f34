"""Random beginnings: which they are, where their scores stand, and that these are the scores of the texts cut there."""

import json
from collections import Counter

import pytest
import torch

from al_train_rm import beginnings
from al_train_rm.beginnings import NONE
from al_train_rm.ranking import Ranking, pair_accuracy
from alignlib.models.encoding import Encoder
from alignlib.models.example import Example
from alignlib.models.policy import RewardModel
from alignlib.training import losses
from helpers import tiny
from helpers.commands import folders, lines, log, one_line, pairs, run, stopped, weights


def lengths(example: Example, number: int = 1, seed: int = 0) -> list[list[float]]:
    return list(beginnings.cut(example, number, seed).values())


def test_a_beginning_is_cut_and_not_all_read_alike():
    """From the first token that differs to the last but one of the longest; a shorter text stays whole."""
    assert lengths(Example([9], [[1, 2, 3, 4], [1, 2, 5]]), 3) == [[3, 3]] * 3
    found = Counter(tuple(row) for row in lengths(Example([9], [[1, 2, 3, 4, 5, 6], [1, 7]]), 300))
    assert set(found) == {(2, 2), (3, 2), (4, 2), (5, 2)} and min(found.values()) > 40
    assert lengths(Example([9], [[1, 2], [1, 2, 3]])) == [[NONE, NONE]]  # only the whole tells them apart
    assert lengths(Example([9], [[1, 2], [1, 2]])) == [[NONE, NONE]]
    assert lengths(Example([9], [[], [1, 2]])) == [[0, 1]]
    assert beginnings.cut(Example([9], [[1], [2, 3]]), 0, 0) == {}


def test_the_seed_and_the_texts_decide_alone():
    one = tiny.example(5, 40, 50)
    assert lengths(one, 4) == lengths(one, 6)[:4] == lengths(tiny.example(5, 40, 50), 4)
    assert lengths(one, 4, seed=1) != lengths(one, 4)
    assert lengths(Example([1], one.completions), 4) != lengths(one, 4)


@pytest.mark.parametrize("kind", [{}, {"shared": False}])
def test_their_places_in_a_pack(kind):
    """In rows that prompts share, and in rows of their own; of an empty completion at the prompt's end."""
    examples = [tiny.example(6, 9, 4, seed=1), tiny.example(3, 2, 7, seed=2), tiny.example(4, 0, 5, seed=3)]
    for example in examples:
        example.values |= beginnings.cut(example, 2, 0)
    model = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    batch = model.pack_as(examples, shared=kind.get("shared", True), flat=False)
    places = beginnings.last_places(batch, 2)
    wanted = [[(example.prompt + row[:int(length)])[-1] for example in examples
               for row, length in zip(example.completions, example.values[beginnings.column(i)], strict=True)]
              for i in range(2)]
    assert batch.ids.flatten()[places].tolist() == wanted


@pytest.mark.parametrize("coefficient", [0.0, 0.5])
def test_the_loss_is_that_of_the_texts_cut_there(coefficient):
    """Beside that of the whole texts; an example without beginnings counts once."""
    model = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    objective = Ranking(margin=0.3, prefixes=2, lm_coef=coefficient)
    if coefficient:
        objective.output_head = torch.nn.Linear(32, tiny.VOCABULARY)
    examples = [tiny.example(6, 9, 4, seed=1, rewards=[1.0, 0.0]), tiny.example(3, 7, 5, seed=2, rewards=[0.0, 2.0]),
                Example([5, 6], [[1, 2], [1, 2, 3]], {"rewards": [1.0, 0.0]})]
    for example in examples:
        example.values |= beginnings.cut(example, 2, 0)
    with torch.no_grad():
        loss, figures = objective(model, model.pack(examples))
        wanted, right, nll = 0.0, [], []
        for example in examples:
            cut = [Example(example.prompt, [row[:int(length)] for row, length in zip(
                example.completions, example.values[beginnings.column(i)], strict=True)]) for i in range(2)]
            there = example.values[beginnings.column(0)][0] != NONE
            rewards = torch.tensor([example.values["rewards"]])
            texts = [example, *(cut if there else [])]
            wanted += sum(losses.ranking(model.scores(model.pack([one])), rewards, 0.3).item() for one in texts)
            of_cut = [pair_accuracy(model.scores(model.pack([one])), rewards).item() for one in (cut if there else
                                                                                                 [example])]
            right.append(sum(of_cut) / len(of_cut))
            if coefficient:
                alone = model.pack([example])
                nll.append(len(texts) * objective.nll(model, model.hidden(alone), alone).item())
    assert loss.item() == pytest.approx(wanted + coefficient * sum(nll), rel=1e-5)
    assert figures["prefix_accuracy"].item() == pytest.approx(sum(right), abs=1e-5)
    assert [objective.size(example) for example in examples] == [3, 3, 1]


def test_a_record_has_its_beginnings():
    encoder = Encoder(tiny.tokenizer(), max_length=tiny.CONTEXT, eos=False)
    record = {"prompt": "p", "chosen": " a good answer", "rejected": " a bad one"}
    example = Ranking(prefixes=3, seed=7).example(encoder, record)
    assert set(example.values) == {"rewards", "beginning_0", "beginning_1", "beginning_2"}
    assert set(Ranking().example(encoder, record).values) == {"rewards"}


# -- al-train-rm --------------------------------------------------------------------------------------------------


def train(*more, out=None):
    out = out or folders().new("rm")
    done = run("al-train-rm", folders().policy, "-o", out, "--batch-size", 4, *more, stdin=lines(*pairs(8)))
    assert done.returncode == 0, done.stderr
    return out, log(out)


@pytest.mark.slow
def test_it_trains_on_them_and_the_seed_says_which(tmp_path):
    (tmp_path / "eval").write_bytes(lines(*pairs(12)[8:]))
    how = ("--prefixes", 2, "--lr", "1e-3", "--eval", tmp_path / "eval")
    one, entries = train(*how)
    assert {"prefix_accuracy", "eval_prefix_accuracy", "eval_accuracy"} <= set(entries[-1])
    assert weights(train(*how)[0]) == weights(one)
    assert weights(train(*how, "--pack-tokens", 100)[0]).keys() == weights(one).keys()
    plain, without = train(*how[2:])
    assert weights(plain) != weights(one) and "prefix_accuracy" not in without[-1]
    assert json.loads((one / "run.json").read_text())["options"]["prefixes"] == 2


@pytest.mark.long
@pytest.mark.slow
def test_a_run_goes_on_with_the_same_ones():
    how = ("--prefixes", 2, "--lr", "1e-3", "--epochs", 40)
    whole, entries = train(*how)
    out = folders().new("rm")
    code, _, _ = stopped("al-train-rm", folders().policy, "-o", out, "--batch-size", 4, *how, stdin=lines(*pairs(8)))
    assert code == 143
    made, same = train(*how, "--resume", out=out)
    assert weights(made) == weights(whole) and same == entries


@pytest.mark.parametrize("args, said", [
    (("--more",), "--prefixes or --more: give one of the two"),
    (("--pool", "mean"), "--prefixes: a beginning is read at its last token: it goes with --pool last"),
    (("--loss", "next-token"), "--prefixes does nothing for --loss next-token"),
    (("--loss", "classify"), "--prefixes does nothing for --loss classify"),
    (("--head", "vocabulary"), "--prefixes does nothing for --head vocabulary"),
])
def test_what_has_no_beginnings_is_refused(args, said):
    done = run("al-train-rm", folders().policy, "-o", folders().new(), "--prefixes", 2, *args, stdin=lines(*pairs(4)))
    assert done.returncode == 2 and said in one_line(done.stderr)
