"""al-data's sets as processes, in the forms they are published in."""

import json

import click
import pytest

from al_data import DATA_SETS
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
