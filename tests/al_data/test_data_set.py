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


@pytest.mark.slow
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


@pytest.mark.parametrize("name, of_row", [
    ("sharegpt --turns 2", lambda i: [chat(i, turns=2)]),
    ("ultrachat --turns 3", lambda i: [{"id": f"c{i}", "data": [f"{turn} {i}" for turn in range(6)]}]),
    ("oasst1", lambda i: [{"message_id": f"c{i}-{place}", "parent_id": parent and f"c{i}-{parent}", "role": role,
                           "text": f"{place} {i}", "rank": rank} for place, parent, role, rank in (
        ("a", None, "prompter", None), ("b", "a", "assistant", 0), ("c", "a", "assistant", 1),
        ("d", "b", "prompter", None), ("e", "d", "assistant", 0), ("f", "d", "assistant", 1))]),
])
def test_the_records_of_a_conversation_are_in_one_part(name, of_row, tmp_path):
    """The first question's: else a later turn's prompt in train would hold a test's answer."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(*(row for i in range(200) for row in of_row(i))))
    whole = succeeded(call("al-data", *name.split(), "--from", path))
    first = {record["id"].split("-")[0]: record["prompt"] for record in reversed(whole)}
    assert len(first) == 200 and len(whole) >= 400
    for split in world.SPLITS:
        written = succeeded(call("al-data", *name.split(), "--from", path, "--split", split))
        assert written == [record for record in whole if world.split_of(first[record["id"].split("-")[0]]) == split]
        assert len(written) >= 20


BOTH = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Good."}]
BRIEF = {"role": "system", "content": "Be brief."}
UTTERED = [{"from": "system", "value": "Be brief."}, *({"from": turn["role"], "value": turn["content"]}
                                                      for turn in BOTH * 2)]
DIALOGUES = {  # a set's rows as published; whether they have a system's turn
    "hh": ([{side: f"\n\nHuman:  Hi \n\nAssistant:Hello.\n\nHuman: Who? \n\nAssistant: {side}" for side in
             ("chosen", "rejected")}], False),
    "ultrafeedback": ([{"prompt": "Why?", "prompt_id": "u", "chosen": [BRIEF, *BOTH], "rejected": [
        BRIEF, BOTH[0], {"role": "assistant", "content": "Bad."}]}], True),
    "shp": ([{"post_id": "p", "history": "Why?", "human_ref_A": "Bad.", "labels": 0, "human_ref_B": "Good.",
              "score_A": 4, "score_B": 9}], False),
    "stackexchange --all-answers": ([{"qid": 1, "question": "<p>Why?</p>", "answers": [
        {"text": f"<p>{text}</p>", "pm_score": score} for text, score in (("Good.", 2), ("Bad.", 1))]}], False),
    "webgpt": ([WEBGPT], False),
    "oasst1": ([{"message_id": name, "parent_id": name[:-1] or None, "role": "assistant" if name[1:] else "prompter",
                 "text": name, "rank": int(name[1:] or 0)} for name in ("a", "a1", "a0")], False),
    "sharegpt --turns 2": ([{"id": "c", "conversations": UTTERED}], True),
    "ultrachat --turns 2": ([{"prompt": "Why?", "prompt_id": "u", "messages": [BRIEF, *BOTH, *BOTH]},
                             {"id": "1", "data": ["Why?", "Good."]}], True),
    "sharegpt --teacher gpt4": ([{"Why?": ["Good."]}], False),
    "alpaca-eval": ([{"instruction": "Why? ", "output_1": " Good.", "output_2": "Bad.\n", "preference": 1}], False),
}


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.slow
def test_with_chat_the_same_turns_are_messages(name):
    """A record has its fields in either form: but for the system's turns, each follows from the other."""
    rows, has_system = DIALOGUES[name]
    texts = succeeded(call("al-data", *name.split(), "--from", "-", stdin=lines(*rows)))
    chats = succeeded(call("al-data", *name.split(), "--from", "-", "--chat", stdin=lines(*rows)))
    assert texts and len(texts) == len(chats)
    for text, chat in zip(texts, chats, strict=True):
        messages = chat["messages"]
        assert ["messages" if field == "prompt" else field for field in text] == list(chat)
        systems = [turn["content"] for turn in messages if turn["role"] == "system"]
        assert systems == (["Be brief."] if has_system and chat.get("id") != "1" else [])
        spoken = [turn["content"].strip() for turn in messages if turn["role"] != "system"]
        assert "".join(dialogue_prompt(*spoken).split()) == "".join(text["prompt"].split())
        for field in ("chosen", "rejected"):
            assert field not in text or text[field] == f" {chat[field]}"
        assert text.get("completions") == ([f" {answer}" for answer in chat["completions"]]
                                           if "completions" in chat else None)


def test_hh_s_white_space_stays_in_the_text_alone():
    rows, _ = DIALOGUES["hh"]
    (text,) = succeeded(call("al-data", "hh", "--from", "-", stdin=lines(*rows)))
    (chat,) = succeeded(call("al-data", "hh", "--from", "-", "--chat", stdin=lines(*rows)))
    assert text["prompt"] == "\n\nHuman:  Hi \n\nAssistant:Hello.\n\nHuman: Who? \n\nAssistant:"
    assert [turn["content"] for turn in chat["messages"]] == ["Hi", "Hello.", "Who?"]


@pytest.mark.slow
def test_both_forms_are_split_and_limited_alike(tmp_path):
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([{"id": f"c{number}", "conversations": [
        {"from": "system", "value": f"{number}"}, {"from": "human", "value": "a" * number},
        {"from": "gpt", "value": "b"}]} for number in range(1, 101)]))
    for name, *arguments in (("sharegpt", "--split", "test", "--from"), ("sharegpt", "--max-chars", 50, "--from"),
                             ("sharegpt", "--skip-fraction", 0.9, "--from"),
                             ("sharegpt", "--shuffle", "--limit", 9, "--from")):
        texts = succeeded(call("al-data", name, *arguments, path))
        chats = succeeded(call("al-data", name, "--chat", *arguments, path))
        assert 0 < len(texts) < 60 and [text["id"] for text in texts] == [chat["id"] for chat in chats]
        same = succeeded(call("al-data", "chat", path, *arguments[:-1]))
        assert [chat["id"] for chat in same] == [text["id"] for text in texts] and same == chats
    for only in ("prompts", "sft"):
        chats = succeeded(call("al-data", "sharegpt", "--chat", "--only", only, "--from", path))
        assert list(chats[0]) == ["id", "messages", "chosen"][:2 if only == "prompts" else 3]


def test_our_own_records_are_a_chat_too():
    """Text that is no dialogue is one turn of the user; messages pass through, with --chat and without."""
    rows = [{"id": "1", "prompt": dialogue_prompt("Hi", "Hello.", "Who?"), "chosen": " Me.", "rejected": " You."},
            OURS, {"messages": [{"role": "user", "content": "Hi"}], "chosen": "Hello.", "rejected": "Go."}]
    chats = succeeded(call("al-data", "hh", "--from", "-", "--chat", stdin=lines(*rows)))
    assert chats == [
        {"id": "1", "messages": [{"role": role, "content": text} for role, text in (
            ("user", "Hi"), ("assistant", "Hello."), ("user", "Who?"))], "chosen": "Me.", "rejected": "You."},
        {"messages": [{"role": "user", "content": "p"}], "chosen": "c", "rejected": "r"}, rows[2]]
    assert succeeded(call("al-data", "hh", "--from", "-", stdin=lines(*rows))) == rows
    done = call("al-data", "hh", "--from", "-", stdin=lines({"messages": [], "chosen": "x"}))
    assert done.returncode == 65 and done.stderr.startswith("al-data: <stdin>:1: messages: ")


@pytest.mark.parametrize("name", ["hh", "ultrafeedback", "shp", "webgpt", "stackexchange", "sharegpt", "ultrachat",
                                  "gsm8k", "alpaca-eval", "tldr"])
@pytest.mark.slow
def test_our_own_records_may_be_conversations_as_trl_has_them(name):
    """They leave as commands see them, whatever looks at the prompt before."""
    row = {"prompt": BOTH[:1], "chosen": BOTH[1:], "rejected": [{"role": "assistant", "content": "Bad."}]}
    seen = {"messages": BOTH[:1], "chosen": "Good.", "rejected": "Bad."}
    part, other = sorted(world.SPLITS, key=lambda split: split != world.split_of(dialogue_prompt("Why?")))
    for given, expected in (([], [seen]), (["--split", part, "--max-chars", 5], [seen]), (["--max-chars", 4], []),
                            (["--split", other] if name == "tldr" else ["--split", other, "--chat"], []),
                            ([] if name == "tldr" else ["--chat"], [seen])):
        written = succeeded(call("al-data", name, "--from", "-", *given, stdin=lines(row)))
        assert [{field: record[field] for field in seen} for record in written] == expected, given


def test_a_turn_that_only_calls_a_tool_is_a_turn_of_a_prompt():
    call_of_a_tool = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f"}}]}
    row = {"messages": [*BOTH[:1], call_of_a_tool, {"role": "tool", "content": "7"}], "chosen": "7.", "rejected": "8."}
    parts = [succeeded(call("al-data", "hh", "--from", "-", "--split", split, "--max-chars", 99, stdin=lines(row)))
             for split in world.SPLITS]
    assert sum(parts, []) == [row]


@pytest.mark.slow
def test_offline_says_how_to_go_on(tmp_path):
    """A host that refuses at once stands for a machine without network. The Hub's client would sleep and try again."""
    settings = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    clean = {name: value for name, value in environment().items() if "proxy" not in name.lower()}
    for name, where in (("hh", "with --from PATH"), ("tldr", "with --from PATH"), ("tldr-pref", "with --from PATH"),
                        ("imdb", "with --from PATH"), ("sharegpt", "with --from PATH"),
                        ("chat owner/name", "in its place")):
        python, option, code, *args = command("al-data", *name.split())
        watched = f"import sys, time; time.sleep = lambda seconds: print('it sleeps', file=sys.stderr); {code}"
        done = subprocess.run([python, option, watched, *args], capture_output=True, env={**clean, **settings})
        message = done.stderr.decode()
        assert done.returncode == 1 and done.stdout == b"", message
        assert len(message.splitlines()) == 1 and "cannot reach the Hub" in message and where in message
