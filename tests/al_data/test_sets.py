"""al-data's sets as processes: shares, long questions, domains, records for a judge; files as they are published."""

import gzip
import json

import pytest

from alignlib.records.dialogue import dialogue_prompt
from helpers.process import call


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def records(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def chat(number, turns=1):
    said = [{"from": speaker, "value": f"{speaker} {number} {turn}"}
            for turn in range(turns) for speaker in ("human", "gpt")]
    return {"id": f"c{number}", "conversations": said}


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([chat(number, turns=2) for number in range(20)], indent=1))
    return path


def test_two_shares_are_the_whole(chats):
    whole = records(call("al-data", "sharegpt", "--from", chats, "--turns", 2))
    first = records(call("al-data", "sharegpt", "--from", chats, "--turns", 2, "--fraction", 0.1))
    rest = records(call("al-data", "sharegpt", "--from", chats, "--turns", 2, "--skip-fraction", 0.1))
    assert [record["id"] for record in first] == ["c0", "c0-2", "c1", "c1-2"]
    assert first + rest == whole and len(whole) == 40
    done = call("al-data", "sharegpt", "--from", chats, "--fraction", 0.1, "--skip-fraction", 0.2)
    assert done.returncode == 2 and "--skip-fraction 0.2 leaves nothing of --fraction 0.1" in done.stderr


def test_a_teacher_s_file_is_one_object(tmp_path):
    path = tmp_path / "gpt4_completions.json"
    path.write_text(json.dumps({"human 0 0": ["A pear."], "human 1 0": ["A plum."]}, indent=2))
    made = records(call("al-data", "sharegpt", "--teacher", "gpt4", "--from", path))
    assert made == [{"prompt": dialogue_prompt(f"human {i} 0"), "chosen": f" {text}"} for i, text in ((0, "A pear."),
                                                                                        (1, "A plum."))]
    assert records(call("al-data", "sharegpt", "--teacher", "claude", "--from", "-", stdin=path.read_text())) == made
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
    assert [record["prompt"] for record in records(done)] == ["You wake up .", "A door opens , and \u2026", "No mark ."]
    assert "2 dropped (no text)" in done.stderr
    rows = lines({"prompt": "[ WP ] You wake up .", "story": " It is dark . "}, {"prompt": "Go .", "id": "7"})
    assert records(call("al-data", "writing-prompts", "--from", "-", stdin=rows)) == [
        {"prompt": "You wake up .", "chosen": " It is dark ."}, {"prompt": "Go .", "id": "7"}]
    done = call("al-data", "writing-prompts", "--from", "-", stdin=lines({"prompt": 3}))
    assert done.returncode == 65 and "<stdin>:1: prompt: expected a string, got a number" in done.stderr


def test_long_questions_are_counted():
    rows = [{"data": [text, "yes"]} for text in ("a" * 7999, "a" * 8000, "b " * 1999, "b " * 2000)]
    done = call("al-data", "ultrachat", "--from", "-", "--max-chars", 8000, "--max-words", 2000, stdin=lines(*rows))
    around = len(dialogue_prompt(""))
    assert [len(record["prompt"]) for record in records(done)] == [7999 + around, 3997 + around]
    assert "2 records, 2 dropped (a long question)" in done.stderr


WEBGPT = {"question": {"full_text": "Why?"}, "answer_0": "Bad.", "answer_1": "Good.", "score_0": -1, "score_1": 1}
HH = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}
OURS = {"prompt": "p", "chosen": " c", "rejected": " r"}


def test_domains(tmp_path):
    assert records(call("al-data", "webgpt", "--from", "-", stdin=lines(WEBGPT)))[0]["domain"] == "webgpt"
    both = lines(WEBGPT, {**OURS, "domain": "mine"})
    made = records(call("al-data", "webgpt", "--from", "-", "--domain", "web", stdin=both))
    assert [record["domain"] for record in made] == ["web", "web"]
    made = records(call("al-data", "webgpt", "--from", "-", stdin=lines({"domain": "mine", **OURS})))
    assert made == [{"domain": "mine", **OURS}]
    for folder, domain in (("helpful-base", "helpful"), ("harmless-base", "harmless")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "test.jsonl.gz"
        path.write_bytes(gzip.compress(lines(HH).encode()))
        assert records(call("al-data", "hh", "--from", path))[0]["domain"] == domain
    assert "domain" not in records(call("al-data", "hh", "--from", "-", stdin=lines(HH)))[0]


def test_records_for_a_judge_hide_which_is_better():
    rows = [{**WEBGPT, "question": {"full_text": f"{number}?"}} for number in range(40)]
    done = call("al-data", "webgpt", "--from", "-", "--only", "judge", stdin=lines(*rows))
    made = records(done)
    assert [list(record) for record in made] == [["prompt", "domain", "completions", "human_winner"]] * 40
    assert all(record["completions"][record["human_winner"]] == " Good." for record in made)
    assert 8 < sum(record["human_winner"] for record in made) < 32
    again = records(call("al-data", "webgpt", "--from", "-", "--only", "judge", "--seed", 1, stdin=lines(*rows)))
    assert again != made


def test_annotations_as_preferences(tmp_path):
    pair = {"instruction": "q", "output_1": "ref", "output_2": "mine"}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([{**pair, "preference": preference} for preference in (2, 1.5, None, 1.2)]))
    made = records(call("al-data", "alpaca-eval", "--from", path))
    assert [(record["id"], record["winner"]) for record in made] == [
        ("alpaca-eval-0", 0), ("alpaca-eval-1", None), ("alpaca-eval-3", 1)]
    done = call("al-data", "alpaca-eval", "--from", path, "--only", "pref")
    assert [record["chosen"] for record in records(done)] == [" mine", " ref"]
    assert "1 dropped (a tie), 1 dropped (no preference)" in done.stderr
    rest = records(call("al-data", "alpaca-eval", "--from", path, "--skip-fraction", 0.75))
    assert [record["id"] for record in rest] == ["alpaca-eval-3"]


def test_splits_of_two_kinds_lie_in_one_folder(tmp_path):
    for kind, answer in (("prefs", "Good."), ("sft", "Other.")):
        sides = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", answer),
                                                                                ("rejected", "Bad."))}
        (tmp_path / f"test_{kind}-00000.jsonl").write_text(lines({"prompt": "Why?", **sides}))
    made = records(call("al-data", "ultrafeedback", "--from", tmp_path, "--split", "test"))
    assert made == [{"prompt": dialogue_prompt("Why?"), "chosen": " Good.", "rejected": " Bad."}]


def test_every_set_names_a_bad_row():
    for name in ("sharegpt", "ultrachat", "alpaca-eval", "ultrafeedback", "shp", "stackexchange", "webgpt", "rtp"):
        done = call("al-data", name, "--from", "-", stdin=lines({"x": 1}))
        assert done.returncode == 65 and done.stderr.startswith("al-data: <stdin>:1: "), (name, done.stderr)
        assert len(done.stderr.splitlines()) == 1
    done = call("al-data", "oasst1", "--from", "-", stdin=lines({"x": 1}))
    assert (done.returncode, done.stderr) == (65, "al-data: <stdin>:1: message_id: expected a string\n")
