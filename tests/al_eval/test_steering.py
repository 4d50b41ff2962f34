"""al-eval conditions and toxicity as processes: figures worked by hand, bad lines, plots."""

import json

import pytest

from helpers.evaluation import NONE, evaluate, jsonl, refused, save
from helpers.process import call

TAGS = ["Good. input: ", "Bad. input: ", "Ugly. input: "]


def steered(condition, *rewards, prompt="p"):
    return {"prompt": prompt, "condition": condition, "completions": ["x"] * len(rewards), "rewards": list(rewards)}


def policy(path):
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"conditions": {"best": TAGS[0], "tags": TAGS, "exemplars": []}}))
    return path


def test_reward_by_condition_by_hand():
    rows = [steered(TAGS[0], 2, 4, prompt="a"), steered(TAGS[1], 1, prompt="a"), steered(TAGS[0], 0, prompt="b")]
    figures = evaluate("conditions", stdin=jsonl(*rows))
    assert (figures["what"], figures["records"]) == ("conditions", 3)
    assert [(row["condition"], row["reward"]["mean"], row["reward"]["n"]) for row in figures["conditions"]] == [
        ("Good.", 2, 3), ("Bad.", 1, 1)]
    assert figures["policies"] == [{"conditions": 2, "spearman": pytest.approx(1)}]


def test_the_policys_tags_are_the_order(tmp_path):
    rows = [steered(TAGS[2], 1), steered(TAGS[1], 3), steered(TAGS[0], 2)]
    figures = evaluate("conditions", "--order", policy(tmp_path / "alt"), stdin=jsonl(*rows))
    assert [row["condition"] for row in figures["conditions"]] == ["Good.", "Bad.", "Ugly."]
    assert figures["policies"][0]["spearman"] == pytest.approx(0.5)
    assert evaluate("conditions", stdin=jsonl(*rows))["policies"][0]["spearman"] == pytest.approx(-0.5)  # as they come
    message = refused(65, "conditions", "--order", tmp_path / "alt", stdin=jsonl(steered("Else. ", 1)))
    assert message == "al-eval: <stdin>:1: condition: 'Else. ' is none of the tags"
    assert "al-eval: --order: " in refused(2, "conditions", "--order", tmp_path, stdin=jsonl(*rows))


@pytest.mark.slow
def test_policies_side_by_side(tmp_path):
    first = save(tmp_path / "1.jsonl", steered(TAGS[0], 1), steered(TAGS[1], 2))
    second = save(tmp_path / "2.jsonl", steered(TAGS[0], 3), steered(TAGS[1], 2))
    plot = tmp_path / "c.png"
    figures = evaluate("conditions", f"one={first}", f"two={second}", "--plot", plot)
    assert figures["policies"] == [{"method": "one", "conditions": 2, "spearman": pytest.approx(-1)},
                                 {"method": "two", "conditions": 2, "spearman": pytest.approx(1)}]
    assert [row["method"] for row in figures["conditions"]] == ["one", "one", "two", "two"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    done = call("al-eval", "conditions", f"one={first}", f"two={second}", "--histograms", "--plot", plot)
    assert done.returncode == 2 and "--histograms: of one policy" in done.stderr
    evaluate("conditions", first, "--histograms", "--plot", tmp_path / "h.png")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")


def test_toxicity_by_hand():
    rows = [{"prompt": "a", "completions": ["x", "y"], "toxicities": [0.5, 0.1]},
            {"prompt": "a", "completions": ["x", "y"], "toxicities": [0.9, None]},
            {"prompt": "b", "completions": ["x"], "toxicities": [None]}]
    figures = evaluate("toxicity", stdin=jsonl(*rows))
    assert (figures["records"], figures["unknown"], figures["completions_a_prompt"]) == (3, 2, 1)
    assert (figures["max_toxicity"]["mean"], figures["max_toxicity"]["n"]) == (pytest.approx(0.7), 2)
    assert figures["toxic_share"]["mean"] == 0.5 and figures["toxicity"]["mean"] == pytest.approx(0.5)
    none = evaluate("toxicity", stdin="")
    assert none["max_toxicity"] == none["toxicity"] == NONE and none["completions_a_prompt"] is None


@pytest.mark.parametrize(("values", "words"), [
    (None, "toxicities: expected an array, got null"), ([0.5], "toxicities: 1 entries for 2 completions"),
    ([0.5, 1.5], "toxicities[1]: expected 0 to 1, got 1.5"),
    ([0.5, "x"], "toxicities[1]: expected a number, got a string"),
])
def test_what_is_no_toxicity_is_named(values, words):
    record = {"prompt": "a", "completions": ["x", "y"], "toxicities": values}
    assert refused(65, "toxicity", stdin=jsonl(record)).endswith(f"<stdin>:1: {words}")


def test_toxicities_under_another_name():
    record = {"prompt": "a", "completions": ["x"], "rude": [0.25]}
    assert evaluate("toxicity", "--field", "rude", stdin=jsonl(record))["toxicity"]["mean"] == 0.25
    assert refused(65, "toxicity", stdin=jsonl(record)).endswith("<stdin>:1: toxicities: missing")
