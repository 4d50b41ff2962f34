"""al-eval reward and kl as real processes: figures worked by hand, two files joined by their prompts."""

import json

import pytest

from al_eval.reward import read_by_prompt
from alignlib.records.jsonl import DataError
from alignlib.records.prompts import prompt_key
from helpers.evaluation import evaluate, jsonl, record, refused, save
from helpers.process import call


def test_reward_by_hand():
    figures = evaluate("reward", "--buckets", 2, stdin=jsonl(record(1, 2, id="a"), record(6, 7)))
    # Two records, so a resample's mean is 1.5, 4 or 6.5.
    assert figures["what"] == "reward" and figures["records"] == 2
    assert figures["reward"] == {"mean": 4.0, "low": 1.5, "high": 6.5, "n": 4}
    assert figures["words"] == {"mean": 1.5, "low": 1.5, "high": 1.5, "n": 4}
    assert figures["by_length"] == [
        {"words": [1, 1], "reward": {"mean": 3.5, "low": 1.0, "high": 6.0, "n": 2}},
        {"words": [2, 2], "reward": {"mean": 4.5, "low": 2.0, "high": 7.0, "n": 2}},
    ]
    # deviations -3 -2 2 3 and -.5 .5 -.5 .5: covariance 1, squares 26 and 1
    assert figures["reward_length_pearson"] == pytest.approx(1 / 26**0.5)
    assert figures["reward_length_spearman"] == pytest.approx(2 / (5 * 4) ** 0.5)


def test_reward_against_the_chosen(tmp_path):
    chosen = save(tmp_path / "chosen.jsonl", record(1, 9, prompt="p"), record(3, prompt="q"), record(4, prompt="q"))
    answers = jsonl(record(2, 1, prompt="p"), record(3.5, prompt="q"), record(3, prompt="q"))
    figures = evaluate("reward", "--against", chosen, stdin=answers)
    # p: above 1 wins, equal is half. q has two chosen: 3.5 beats one of them, 3 ties with one and loses to one.
    assert figures["winrate"]["mean"] == pytest.approx((1 + 0.5 + 0.5 + 0.25) / 4)
    assert figures["winrate"]["n"] == 4 and figures["winrate"]["low"] < figures["winrate"]["high"]
    named = evaluate("reward", "--against", chosen, "--as", "learned", stdin=answers)
    assert named["learned"] == figures["reward"] and named["learned_winrate"] == figures["winrate"]
    assert "reward" not in named and "winrate" not in named
    message = refused(65, "reward", "--against", chosen, stdin=jsonl(record(1), record(1, prompt="other")))
    assert message == f"al-eval: <stdin>:2: no record of {chosen} has this prompt"


def test_reward_joins_messages(tmp_path):
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    other = {"messages": [{"role": "user", "content": "ho"}]}
    answer = {"completions": ["x"], "rewards": [1]}
    chosen = save(tmp_path / "c.jsonl", {**chat, **answer}, {**other, "completions": ["y"], "rewards": [5]})
    assert evaluate("reward", "--against", chosen, stdin=jsonl({**chat, **answer}))["winrate"]["mean"] == 0.5


@pytest.mark.slow
def test_the_seed_decides_the_interval():
    data = jsonl(*(record(i**0.5) for i in range(40)))
    assert evaluate("reward", stdin=data) == evaluate("reward", "--seed", 0, stdin=data)
    assert evaluate("reward", "--seed", 1, stdin=data)["reward"] != evaluate("reward", stdin=data)["reward"]
    assert evaluate("reward", "--resamples", 50, stdin=data)["reward"] != evaluate("reward", stdin=data)["reward"]


def test_kl_by_hand():
    one = {"prompt": "p", "completions": ["a", "b"], "logps": [-1, -4.5], "ref_logps": [-2, -4],
           "completion_ids": [[5, 6], [7]], "finish_reasons": ["stop", "length"]}
    two = {"prompt": "q", "completions": ["c"], "logps": [-2], "ref_logps": [-4], "completion_ids": [[8, 9]]}
    figures = evaluate("kl", stdin=jsonl(one, two))
    assert figures["kl"] == {"mean": 2.5 / 3, "low": 0.25, "high": 2.0, "n": 3}  # 1, -.5 | 2
    # tokens: 2 + its end, 1 cut | 2 + its end
    assert figures["kl_per_token"] == {"mean": 2.5 / 7, "low": 0.125, "high": pytest.approx(2 / 3), "n": 3}
    del two["completion_ids"]
    assert evaluate("kl", stdin=jsonl(one, two))["kl_per_token"] is None


def test_kl_refuses_two_temperatures():
    row = {"prompt": "p", "completions": ["a"], "logps": [-1], "ref_logps": [-2], "logps_temperature": 0.8}
    message = refused(65, "kl", stdin=jsonl(row))
    assert message == "al-eval: <stdin>:1: logps_temperature: 0.8, but ref_logps_temperature: 1"
    assert evaluate("kl", stdin=jsonl({**row, "ref_logps_temperature": 0.8}))["kl"]["mean"] == 1.0


def test_kl_of_records_without_ids_has_no_figure_a_token():
    record = {"prompt": "p", "completions": ["a", "b"], "finish_reasons": ["stop", "length"], "logps": [-1, -2],
              "ref_logps": [-2, -2]}
    done = call("al-eval", "kl", "--json", stdin=json.dumps(record) + "\n")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kl"]["mean"] == 0.5 and result["kl_per_token"] is None


def test_a_file_is_read_by_prompt(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "b", "id": "1"}\n{"prompt": "a", "id": "2"}\n\n{"prompt": "b", "id": "3"}\n')
    ids = read_by_prompt(str(file), lambda record: record["id"])
    assert ids == {prompt_key({"prompt": "b"}): ["1", "3"], prompt_key({"prompt": "a"}): ["2"]}


def test_a_bad_record_is_named(tmp_path):
    def refuse(record):
        raise ValueError("id: missing")

    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "b"}\n')
    with pytest.raises(DataError, match="a.jsonl:1: id: missing"):
        read_by_prompt(str(file), refuse)
