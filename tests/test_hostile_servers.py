"""Servers that mean harm: memory stays bounded, the key shows nowhere, and the run goes on or ends by name.

al-label-ai and al-sample ask them, for al-eval winrate asks through the former.
"""

import base64
import json
from pathlib import Path

import pytest

from al_data import toy_judge
from helpers.commands import lines, one_line, read
from helpers.faulty import Server, ok
from helpers.process import call, watched
from helpers.servers import CONTROLS, HOSTILE, counted, message
from helpers.terminal import at_terminal

pytestmark = pytest.mark.slow

KEY = "sk-a-secret-that-nobody-may-see"
PACKED = [base64.b64encode(f"{before}{KEY}".encode()).decode()[4:-4] for before in ("", "a", "ab")]
FORMS = [form.encode() for form in (KEY[1:-1], KEY[:20], KEY[-20:], *PACKED)]
MEMORY = 300_000_000
ASK = {"al-label-ai": ("--judge", "m", "--mode", "rate", "--ask-again", 0),
       "al-sample": ("m", "--backend", "openai", "--api", "chat")}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def asked(request: dict) -> str:
    """The prompt that a request is about: al-sample's, or one that al-label-ai shows between tags."""
    content = request["messages"][0]["content"]
    return toy_judge.text(content, "prompt") if "<prompt" in content else content


def record(prompt: str) -> dict:
    return {"prompt": prompt, "completions": ["Yes."]}


def holds_no_key(folder: Path, *streams: str) -> None:
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()) + "".join(streams).encode()
    assert not [form for form in FORMS if form in kept]


@pytest.mark.parametrize("name", ASK)
def test_what_is_no_answer_is_put_aside_by_name_and_the_others_are_answered(name, tmp_path):
    """Endless bodies and bombs, as many at a time as there are calls, and one of everything else."""
    bad = [*["endless", "gzip bomb", "endless error", "gzip bomb as an error"] * 8, *HOSTILE]
    bad.remove("sent elsewhere")  # which is said of the server, and ends the run
    records = [record(what) for what in ("fine", *bad, "fine")]

    def script(request, nth):
        what = asked(request)
        return ok(request, ["7"]) if what == "fine" else HOSTILE[what][0]()

    with Server(script) as server:
        done, memory = watched(name, *ASK[name], "--base-url", server.url, "--concurrency", 64, "--on-error", "skip",
                               "--retries", 0, "--rejects", tmp_path / "bad", "-o", tmp_path / "out",
                               stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    assert [line["prompt"] for line in read((tmp_path / "out").read_text())] == ["fine", "fine"]
    assert (tmp_path / "bad").read_bytes() == lines(*(record(what) for what in bad))
    assert done.stderr.replace("\n", "").isprintable() and f"{len(bad)} skipped" in done.stderr
    print(f"{name}: {memory / 1e6:.0f} MB")
    assert memory < MEMORY
    holds_no_key(tmp_path, done.stdout, done.stderr)


@pytest.mark.parametrize("name", ASK)
def test_a_longer_answer_may_be_let_in(name):
    """And a shorter one be the most."""
    long = message("7" + " " * 1_500_000)
    with Server(lambda request, nth: (200, {}, json.dumps(long).encode())) as server:
        args = (name, *ASK[name], "--base-url", server.url, "--max-answer")
        done = call(*args, 1, stdin=lines(record("q")))
        assert done.returncode == 1 and "an answer of more than 1 MB: --max-answer" in one_line(done.stderr)
        assert len(server.calls) == 1  # it would be as long again
        more = call(*args, 2, stdin=lines(record("q")))
    if name == "al-sample":
        assert len(read(more.stdout)[0]["completions"][0]) == 1_500_001
    else:
        assert "an answer of 1,500,001 characters, where 1,000,000 are the most" in one_line(more.stderr)


@pytest.mark.parametrize("name", ASK)
def test_the_key_is_kept_nowhere(name, tmp_path):
    """In a text, a refusal, an error, a page, under 200 or not: whole, cut, quoted, packed."""
    packed = base64.b64encode(f"Bearer {KEY}".encode()).decode()
    echo = f"I see {KEY}, {KEY[1:]}, {KEY[:-1]}, {json.dumps({'Authorization': KEY})} and {packed}."
    answers = {
        "text": (200, {}, json.dumps(message(echo)).encode()),
        "escaped": (200, {}, b"".join(b"\\u%04x" % ord(char) for char in KEY).join(
            json.dumps(message("|")).encode().split(b"|"))),
        "reasoning": (200, {}, json.dumps(message("", reasoning=echo)).encode()),
        "refusal": (200, {}, json.dumps(message(None, refusal=echo)).encode()),
        "filter": (400, {}, json.dumps({"error": {"message": echo, "code": "content_filter"}}).encode()),
        "error": (400, {}, json.dumps({"error": {"message": echo}}).encode()),
        "header": (200, {"Content-Type": echo.replace("\n", " ")}, b"{}"),
        "page": (200, {"Content-Type": "text/html"}, echo.encode()),
        "reason": (200, {}, json.dumps(message("A", echo)).encode()),
        "names": (400, {}, json.dumps({"error": {KEY: echo}}).encode()),
    }
    with Server(lambda request, nth: answers[asked(request)]) as server:
        done = call(name, *ASK[name], "--base-url", server.url, "--on-error", "skip", "--retries", 0, "--rejects",
                    tmp_path / "bad", "-o", tmp_path / "out", stdin=lines(*map(record, answers)))
        assert all(headers["authorization"] == f"Bearer {KEY}" for _, headers, _ in server.calls)
    assert done.returncode == 0 and "***" in done.stderr and "***" in (tmp_path / "out").read_text(), done.stderr
    holds_no_key(tmp_path, done.stdout, done.stderr)


def test_tokens_beyond_sense_neither_end_a_run_nor_pay_for_it():
    """They are counted as where a server says nothing: about a quarter of the bytes."""
    figures = [(-10**9, -10**9), (2**63, 2**63), (2**53 + 1, 1), (0, 0), (1e300, 1), (None, "7"), (True, [])]
    records = lines(*(record(str(i)) for i in range(len(figures))))
    with Server(lambda request, nth: counted(*figures[int(asked(request))])) as server:
        ask = ("al-label-ai", *ASK["al-label-ai"], "--base-url", server.url, "--price-in", 1000, "--price-out", 1000)
        done = call(*ask, stdin=records)
        assert done.returncode == 0 and "7 records" in one_line(done.stderr), done.stderr
        spent = float(one_line(done.stderr).partition(" spent")[0].rpartition(" ")[2])
        assert 0.7 < spent < 3  # seven calls of about 200 tokens at 1000 a million
        few = call(*ask, "--budget", spent / 2, stdin=records)
    assert few.returncode == 1 and "is spent" in one_line(few.stderr)


def test_controls_in_an_answer_are_data_and_no_commands():
    """In a record they stand as the server sent them; a terminal gets their names, in records and in errors."""
    def script(request, nth):
        return ok(request, [f"7{CONTROLS}"]) if asked(request) == "fine" else HOSTILE[asked(request)][0]()

    with Server(script) as server:
        ask = ("al-label-ai", *ASK["al-label-ai"], "--base-url", server.url, "--on-error", "skip", "--retries", 0)
        given = lines(*map(record, ("fine", "controls", "a page of controls")))
        done, seen = call(*ask, stdin=given), at_terminal(*ask, stdin=given, streams=("stdout", "stderr"))
    assert read(done.stdout)[0]["unparsed_each"] == [f"7{CONTROLS}"]
    assert "\\u001b[31m" in seen.written and "\\u009b2J\\u007f\\u0000\\u202e" in seen.written
    assert "no [31m ]0;owned 2J more" in seen.written
    obeyed = {"\x1b[31m", "\x1b]", *(char for char in CONTROLS if not char.isprintable())} - {"\x1b"}  # bars need ESC
    assert not [code for code in obeyed if code in seen.written]
