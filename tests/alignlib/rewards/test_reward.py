"""A reward by its name: a program or a model, with a weight; both are asked in one way."""

import click
import pytest

from alignlib.rewards.reward import ModelReward, reward_for, split_weight
from helpers.commands import folders, lines, read, rewarded, run


@pytest.mark.parametrize(("text", "weight", "name"), [
    ("rm", 1, "rm"), ("2:rm", 2, "rm"), ("0.5:toy:overall", 0.5, "toy:overall"), ("toy:overall", 1, "toy:overall"),
    (".5:length", 0.5, "length"), ("-1:length", -1, "length"), ("1e-3:py:r.py:f", 1e-3, "py:r.py:f"),
    ("py:r.py:f", 1, "py:r.py:f"), ("re:1:2", 1, "re:1:2"), ("3:re:1:2", 3, "re:1:2"), ("cmd:./j 2", 1, "cmd:./j 2"),
    ("7b/rm", 1, "7b/rm"), ("7b:rm", 1, "7b:rm"), ("2024/rm", 1, "2024/rm"), ("2:2024/rm", 2, "2024/rm"),
    ("w.pt@base", 1, "w.pt@base"), ("0:math", 0, "math"), ("2.:rm", 2, "rm"),
])
def test_a_weight_comes_before_a_name(text, weight, name):
    assert split_weight(text) == (weight, name)


def test_a_folder_that_is_called_so_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2:rm").mkdir()
    assert split_weight("2:rm") == (1, "2:rm") and split_weight("2:./2:rm") == (2, "./2:rm")


@pytest.mark.parametrize("text", ["2:", "1e999:rm", "inf:rm", "nan:length"])
def test_a_weight_of_nothing_or_of_no_size_is_refused(text):
    with pytest.raises(click.UsageError, match=text):
        split_weight(text)


@pytest.mark.parametrize(("name", "bare"), [("0.5:length", "length"), ("2:rm", "rm")])
def test_where_one_reward_is_taken_it_has_no_weight(name, bare):
    with pytest.raises(click.UsageError, match=f"^{name}: one reward alone has no weight: {bare}$"):
        reward_for(name)


def test_a_program_needs_no_model():
    with reward_for("length", device="none such") as reward:
        asked = [("in:1", reward.prepare({"prompt": "p", "completions": ["a b", ""]}))]
        assert reward.score(asked) == [[2, 0]] and (reward.tokens, reward.cut, reward.window) == (0, {}, 1)


@pytest.mark.slow
def test_a_model_s_rewards_are_al_scores():
    records = rewarded(5, 3)
    with reward_for(folders().reward, device="cpu", on_long="fail") as reward:
        found = reward.score([("in:1", reward.prepare(record)) for record in records])
    assert isinstance(reward, ModelReward) and reward.tokens > 0
    scored = read(run("al-score", folders().reward, stdin=lines(*records)).stdout)
    assert found == [pytest.approx(record["rewards"], abs=1e-5) for record in scored]


@pytest.mark.slow
def test_a_model_that_reads_no_conversations_is_named():
    talk = {"messages": [{"role": "user", "content": "Hi."}], "completions": ["a"]}
    for more, cure in (({}, ""), ({"template": None}, r" \(--template FILE gives one\)")):
        with reward_for(folders().reward, device="cpu", **more) as reward, \
                pytest.raises(ValueError, match=f"^messages: the reward model .* has no chat template{cure}$"):
            reward.prepare(talk)


@pytest.mark.slow
def test_models_that_give_no_rewards():
    with pytest.raises(click.UsageError, match="a classifier of bad, fair, good, no reward model"):
        reward_for(folders().classifier)
    with reward_for(str(folders().broken(folders().reward))) as reward:
        asked = [("in:1", reward.prepare(rewarded(1)[0]))]
        with pytest.raises(FloatingPointError, match="^in:1: .* gives rewards that are not finite"):
            reward.score(asked)
