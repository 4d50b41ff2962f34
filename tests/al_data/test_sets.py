"""al-data's sets as processes, in the forms they are published in."""

import copy
import json
from collections import Counter

import click
import pytest
from click.testing import CliRunner

from al_data import DATA_SETS, main
from alignlib.records.dialogue import dialogue_prompt
from helpers.commands import lines
from helpers.process import call, succeeded


def test_a_teacher_s_file_is_one_object(tmp_path):
    path = tmp_path / "gpt4_completions.json"
    path.write_text(json.dumps({"human 0 0": ["A pear."], "human 1 0": ["A plum."]}, indent=2))
    written = succeeded(call("al-data", "sharegpt", "--teacher", "gpt4", "--from", path))
    assert written == [{"prompt": dialogue_prompt("human 0 0"), "chosen": " A pear."},
                       {"prompt": dialogue_prompt("human 1 0"), "chosen": " A plum."}]
    piped = call("al-data", "sharegpt", "--teacher", "claude", "--from", "-", stdin=path.read_text())
    assert succeeded(piped) == written
    done = call("al-data", "sharegpt", "--teacher", "gpt4", "--turns", 2, "--from", path)
    assert done.returncode == 2 and "first turns only" in done.stderr
    done = call("al-data", "sharegpt", "--teacher", "gpt4", "--from", "-", stdin="[]")
    assert (done.returncode, done.stderr) == (65, "al-data: <stdin>: expected an object, got an array\n")
    path.write_text('{"a": ["b"],\n "c": "d"}')
    done = call("al-data", "sharegpt", "--teacher", "gpt4", "--from", path)
    assert done.returncode == 65 and f"{path}: item 2: expected a list of answers, got a string" in done.stderr


def test_writing_prompts_as_published(tmp_path):
    path = tmp_path / "test.wp_source"
    path.write_text("[ WP ] You wake up .\n[wp] A door opens , and \u2026\n\n[ EU ] \nNo mark .\n")
    done = call("al-data", "writing-prompts", "--from", path)
    prompts = [record["prompt"] for record in succeeded(done)]
    assert prompts == ["You wake up .", "A door opens , and \u2026", "No mark ."]
    assert "2 dropped (no text)" in done.stderr
    rows = lines({"prompt": "[ WP ] You wake up .", "story": " It is dark . "}, {"prompt": "Go .", "id": "7"})
    assert succeeded(call("al-data", "writing-prompts", "--from", "-", stdin=rows)) == [
        {"prompt": "You wake up .", "chosen": " It is dark ."}, {"prompt": "Go .", "id": "7"}]
    done = call("al-data", "writing-prompts", "--from", "-", stdin=lines({"prompt": 3}))
    assert done.returncode == 65 and "<stdin>:1: prompt: expected a string, got a number" in done.stderr


def test_annotations_as_preferences(tmp_path):
    pair = {"instruction": "q", "output_1": "ref", "output_2": "mine"}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([{**pair, "preference": preference} for preference in (2, 1.5, None, 1.2)]))
    written = succeeded(call("al-data", "alpaca-eval", "--from", path))
    assert [(record["id"], record["winner"]) for record in written] == [
        ("alpaca-eval-0", 0), ("alpaca-eval-1", None), ("alpaca-eval-3", 1)]
    done = call("al-data", "alpaca-eval", "--from", path, "--only", "pref")
    assert [record["chosen"] for record in succeeded(done)] == [" mine", " ref"]
    assert "1 dropped (a tie), 1 dropped (no preference)" in done.stderr
    rest = succeeded(call("al-data", "alpaca-eval", "--from", path, "--skip-fraction", 0.75))
    assert [record["id"] for record in rest] == ["alpaca-eval-3"]


def test_gsm8k_keeps_its_answers_beside_its_prompts():
    row = lines({"question": "1 + 1?", "answer": "1 + 1 = 2\n#### 2"})
    assert succeeded(call("al-data", "gsm8k", "--from", "-", "--chat", "--only", "prompts", stdin=row)) == [
        {"messages": [{"role": "user", "content": "1 + 1?"}], "answer": "2"}]


@pytest.mark.slow
def test_every_set_names_a_bad_row():
    for name in ("sharegpt", "ultrachat", "alpaca-eval", "ultrafeedback", "shp", "stackexchange", "webgpt", "rtp",
                 "gsm8k"):
        done = call("al-data", name, "--from", "-", stdin=lines({"x": 1}))
        assert done.returncode == 65 and done.stderr.startswith("al-data: <stdin>:1: "), (name, done.stderr)
        assert len(done.stderr.splitlines()) == 1
    done = call("al-data", "oasst1", "--from", "-", stdin=lines({"x": 1}))
    assert (done.returncode, done.stderr) == (65, "al-data: <stdin>:1: message_id: expected a string\n")


def test_tldr_and_imdb_from_files(tmp_path):
    post = {"subreddit": "a", "title": "b", "post": "c", "summary": " d"}
    prompt = "SUBREDDIT: r/a\nTITLE: b\nPOST: c\nTL;DR:"
    assert succeeded(call("al-data", "tldr", "--from", "-", stdin=lines(post))) == [{"prompt": prompt, "chosen": " d"}]
    pair = {"info": post, "summaries": [{"text": "x"}, {"text": "y "}], "choice": 1}
    assert succeeded(call("al-data", "tldr-pref", "--from", "-", stdin=lines(pair))) == [
        {"prompt": prompt, "chosen": " y", "rejected": " x", "domain": "summarisation"}]
    for label, text in (("pos", "a fine film"), ("neg", "a poor film")):
        (tmp_path / "train" / label).mkdir(parents=True)
        (tmp_path / "train" / label / "0_1.txt").write_text(text)
    assert succeeded(call("al-data", "imdb", "--from", tmp_path, "--labels")) == [
        {"text": "a poor film", "label": "negative"}, {"text": "a fine film", "label": "positive"}]
    assert succeeded(call("al-data", "imdb", "--from", tmp_path, "--prompt-words", 2))[1] == {
        "prompt": "a fine", "chosen": " film"}


@pytest.mark.parametrize("command", DATA_SETS, ids=lambda command: command.name)
def test_every_set_can_be_asked_for(command):
    """A set that is declared is a command, with a --help of its own and the options of all sets."""
    assert command.help and not command.help.startswith("partial(")
    with click.Context(command) as context:
        assert {"source", "split", "fraction", "domain", "only", "output"} <= {
            parameter.name for parameter in command.get_params(context)}


# -- odd rows of every set -----------------------------------------------------------------------------------------

ODD = (None, True, 1.0, 2**64 - 1, "x", [], ["a"], [{}], {"x": 1})
POST = {"subreddit": "a", "title": "b", "post": "c", "summary": " d"}
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
CHAT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
TREE = [{"message_id": "q", "parent_id": None, "role": "prompter", "text": "Why?", "rank": None, "lang": "en"},
        {"message_id": "a", "parent_id": "q", "role": "assistant", "text": "So.", "rank": 1, "lang": "en"},
        {"message_id": "b", "parent_id": "q", "role": "assistant", "text": "No.", "rank": 0, "lang": "en"}]
AS_PUBLISHED = {
    "hh": [[{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}]],
    "tldr-pref": [[{"info": POST, "summaries": [{"text": "x"}, {"text": "y "}], "choice": 1}]],
    "ultrafeedback": [[{"instruction": "q", "completions": [{"response": "a", "overall_score": 7.5},
                                                            {"response": "b", "overall_score": 5}]}],
                      [{"prompt": "p", "prompt_id": "i", "chosen": TALK, "rejected": [*TALK[:1], {**TALK[1]}]}]],
    "shp": [[{"post_id": "i", "history": "h", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_A": 10,
              "score_B": 2}]],
    "stackexchange": [[{"qid": 1, "question": "<p>q", "answers": [{"text": "<p>a</p>", "pm_score": 3},
                                                                  {"text": "b", "pm_score": 1}]}]],
    "webgpt": [[{"question": {"full_text": "q"}, "answer_0": "a", "answer_1": "b", "score_0": 1, "score_1": -1}]],
    "oasst1": [TREE, [{"prompt": {**TREE[0], "replies": [{**reply, "replies": []} for reply in TREE[1:]]}}]],
    "sharegpt": [[{"id": "x", "conversations": CHAT}]],
    "ultrachat": [[{"prompt_id": "x", "messages": TALK}], [{"id": "x", "data": ["a", "b"]}]],
    "alpaca-eval": [[{"instruction": "i", "output": "o"}],
                    [{"instruction": "q", "output_1": "ref", "output_2": "mine", "preference": 1.2}]],
    "tldr": [[POST]],
    "scitldr": [[{"source": ["We ask why .", "It is so ."], "target": ["Why ?"], "paper_id": "x", "title": "T"}]],
    "imdb": [[{"text": "a b c d e f g h i j k l", "label": 1}]],
    "rtp": [[{"prompt": {"text": "The dog"}, "continuation": {"text": " barked.", "toxicity": 0.25}}]],
    "writing-prompts": [[{"prompt": "[ WP ] You .", "story": " It ."}]],
    "chat": [[{"messages": TALK, "tools": []}], [{"conversations": CHAT}],
             [{"instruction": "i", "input": "j", "output": "o", "history": [["q", "a"]]}],
             [{"prompt": TALK[:1], "completion": TALK[1:], "label": True}],
             [{"prompt": "p", "completions": ["a", "b"], "rewards": [1, 2]}]],
    "gsm8k": [[{"question": "1 + 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}]],
}


def places(value: object, at: tuple = ()) -> list[tuple]:
    """Every place in it: ("rows"[0]) is (0,), that row's field (0, "text"), ..."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, part in pairs for place in places(part, (*at, key)))]


def with_odd(rows: list[dict], place: tuple, odd: object) -> list[dict]:
    rows = copy.deepcopy(rows)
    part = rows
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = odd
    return rows


@pytest.mark.slow
def test_an_odd_value_anywhere_in_a_row_is_bad_data(tmp_path, capfd):
    """Records are made, or the row is named, under 65: never a failure of the command, nor a traceback."""
    file, ended = tmp_path / "rows.jsonl", Counter()
    assert AS_PUBLISHED.keys() == {command.name for command in DATA_SETS}
    for name, samples in AS_PUBLISHED.items():
        for sample in samples:
            for place in (place for place in places(sample) if len(place) > 1):
                for odd in ODD:
                    file.write_bytes(lines(*with_odd(sample, place, odd)))
                    source = [str(file)] if name == "chat" else ["--from", str(file)]
                    done = CliRunner().invoke(main, [name, *source])
                    ended[done.exit_code] += 1
                    assert done.exit_code in (0, 65), (name, place, odd, capfd.readouterr().err)
    assert ended[0] > 300 and ended[65] > 300
    named = [line for line in capfd.readouterr().err.splitlines() if " records, " not in line]
    assert len(named) == ended[65] and all(f"{file}:" in line for line in named)
