"""What al-data does with every set, as processes: shares, splits, long questions, domains; a set it cannot reach."""

import gzip
import json
import subprocess

import pytest

from alignlib.records.dialogue import dialogue_prompt
from alignlib.toy import world
from helpers.commands import lines
from helpers.process import call, command, environment, succeeded


def chat(number, turns=1):
    conversation = [{"from": speaker, "value": f"{speaker} {number} {turn}"}
                    for turn in range(turns) for speaker in ("human", "gpt")]
    return {"id": f"c{number}", "conversations": conversation}


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([chat(number, turns=2) for number in range(20)], indent=1))
    return path


def test_two_shares_are_the_whole(chats):
    whole = succeeded(call("al-data", "sharegpt", "--from", chats, "--turns", 2))
    first = succeeded(call("al-data", "sharegpt", "--from", chats, "--turns", 2, "--fraction", 0.1))
    rest = succeeded(call("al-data", "sharegpt", "--from", chats, "--turns", 2, "--skip-fraction", 0.1))
    assert [record["id"] for record in first] == ["c0", "c0-2", "c1", "c1-2"]
    assert first + rest == whole and len(whole) == 40
    done = call("al-data", "sharegpt", "--from", chats, "--fraction", 0.1, "--skip-fraction", 0.2)
    assert done.returncode == 2 and "--skip-fraction 0.2 leaves nothing of --fraction 0.1" in done.stderr


def test_long_questions_are_counted():
    rows = [{"data": [text, "yes"]} for text in ("a" * 7999, "a" * 8000, "b " * 1999, "b " * 2000)]
    done = call("al-data", "ultrachat", "--from", "-", "--max-chars", 8000, "--max-words", 2000, stdin=lines(*rows))
    around = len(dialogue_prompt(""))
    assert [len(record["prompt"]) for record in succeeded(done)] == [7999 + around, 3997 + around]
    assert "2 records, 2 dropped (a long question)" in done.stderr


WEBGPT = {"question": {"full_text": "Why?"}, "answer_0": "Bad.", "answer_1": "Good.", "score_0": -1, "score_1": 1}
HH = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}
OURS = {"prompt": "p", "chosen": " c", "rejected": " r"}


def test_domains(tmp_path):
    assert succeeded(call("al-data", "webgpt", "--from", "-", stdin=lines(WEBGPT)))[0]["domain"] == "webgpt"
    both = lines(WEBGPT, {**OURS, "domain": "mine"})
    written = succeeded(call("al-data", "webgpt", "--from", "-", "--domain", "web", stdin=both))
    assert [record["domain"] for record in written] == ["web", "web"]
    written = succeeded(call("al-data", "webgpt", "--from", "-", stdin=lines({"domain": "mine", **OURS})))
    assert written == [{"domain": "mine", **OURS}]
    for folder, domain in (("helpful-base", "helpful"), ("harmless-base", "harmless")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "test.jsonl.gz"
        path.write_bytes(gzip.compress(lines(HH)))
        assert succeeded(call("al-data", "hh", "--from", path))[0]["domain"] == domain
    assert "domain" not in succeeded(call("al-data", "hh", "--from", "-", stdin=lines(HH)))[0]


def test_splits_of_two_kinds_lie_in_one_folder(tmp_path):
    for kind, answer in (("prefs", "Good."), ("sft", "Other.")):
        sides = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", answer),
                                                                                ("rejected", "Bad."))}
        (tmp_path / f"test_{kind}-00000.jsonl").write_bytes(lines({"prompt": "Why?", **sides}))
    written = succeeded(call("al-data", "ultrafeedback", "--from", tmp_path, "--split", "test"))
    assert written == [{"prompt": dialogue_prompt("Why?"), "chosen": " Good.", "rejected": " Bad."}]


def test_a_file_is_split_by_the_prompt_s_hash(tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_bytes(lines(*({**OURS, "prompt": f"{number}:"} for number in range(500))))
    train, test = (succeeded(call("al-data", "hh", "--from", path, "--split", split)) for split in world.SPLITS)
    assert len(train) + len(test) == len(succeeded(call("al-data", "hh", "--from", path))) == 500
    assert not {record["prompt"] for record in train} & {record["prompt"] for record in test}
    assert 25 < len(test) < 80


@pytest.mark.slow
def test_offline_says_how_to_go_on(tmp_path):
    """A host that refuses at once stands for a machine without network. The Hub's client would sleep and try again."""
    settings = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    clean = {name: value for name, value in environment().items() if "proxy" not in name.lower()}
    for name in ("hh", "tldr", "tldr-pref", "imdb", "sharegpt"):
        python, option, code, *args = command("al-data", name)
        watched = f"import sys, time; time.sleep = lambda seconds: print('it sleeps', file=sys.stderr); {code}"
        done = subprocess.run([python, option, watched, *args], capture_output=True, env={**clean, **settings})
        message = done.stderr.decode()
        assert done.returncode == 1 and done.stdout == b"", message
        assert len(message.splitlines()) == 1 and "cannot reach the Hub" in message and "--from PATH" in message
