"""Pairs to judge, and scripts for a server that judges them: the toy world's right answers, and what goes wrong."""

import functools
import hashlib
import json
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from al_data import toy_judge
from al_label_ai import modes, questions
from alignlib.toy import world
from helpers.commands import lines
from helpers.faulty import DROP, Server, ok, refuse, subject
from helpers.kills import filter_job
from helpers.process import call

KEY = "sk-a-secret-that-nobody-may-see"  # of every test's environment in tests/al_label_ai
RECORD = {"prompt": "Which is larger?", "completions": ["The first.", "The second."]}
KINDS = questions.load_categories()


@functools.cache
def _pairs(count: int) -> list[dict]:
    records = []
    for record in world.records("dialogue"):
        scores = [world.score("overall", record["prompt"], record[name]) for name in ("chosen", "rejected")]
        if abs(scores[0] - scores[1]) > 0.01:  # no ties but those a judge makes
            records.append({"id": record["id"], "prompt": record["prompt"],
                            "completions": [record["rejected"], record["chosen"]]})
        if len(records) == count:
            return records


def pairs(count: int, **more) -> list[dict]:
    return [{**record, **more} for record in _pairs(count)]


def labelled(record: dict) -> dict:
    """What an oracle that is asked rightly makes of a pair."""
    one, two = (world.score("overall", record["prompt"], text) for text in record["completions"])
    best = int(two > one)
    return {**record, "winner": best, "orders_agree": True, "chosen": record["completions"][best],
            "rejected": record["completions"][1 - best]}


def right(request: dict, nth: int = 0) -> tuple:
    """The oracle's answer."""
    return 200, {}, json.dumps(toy_judge.answer(request)).encode()


FAULTS = (
    DROP,
    refuse(429, "slow down", Retry_After="0"),
    refuse(500, "oops"),
    (200, {}, b"\x00\xffgarbage"),
    (200, {}, b""),
    (200, {}, b'{"choices": [{"message": {"content": "A'),
    (200, {}, json.dumps({"error": {"message": "overloaded", "code": 500}}).encode()),
)


def chance(request: dict, nth: int, what: str) -> float:
    """A number from 0 to 1 that is this try's own, in any run."""
    digest = hashlib.blake2b(f"{nth} {what} {subject(request)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def faulty(request: dict, nth: int, share: float = 0.3) -> object:
    """Goes wrong in that share of calls, though never four times running."""
    if nth < 3 and chance(request, nth, "fault") < share:
        return FAULTS[int(chance(request, nth, "which") * len(FAULTS))]
    return right(request)


def paid(server: Server) -> list[int]:
    """How often each question was asked."""
    return list(server.counts.values())


def judge_job(folder: Path, server: Server, count: int, concurrency: int):
    job = filter_job(folder, "al-label-ai", lines(*pairs(count)), "--judge", "overall", "--base-url", server.url,
                     "--concurrency", concurrency)
    job.paths += [folder / f"out.jsonl.cache{end}" for end in ("", "-wal", "-shm", "-run-1")]
    return job


# -- asking --------------------------------------------------------------------------------------------------


def label(server: Server, records: bytes | Sequence[dict], *args: object) -> subprocess.CompletedProcess:
    """Run al-label-ai to its end; the key shows nowhere."""
    data = records if isinstance(records, bytes) else lines(*records)
    done = call("al-label-ai", "--judge", "overall", "--base-url", server.url, *args, stdin=data)
    assert KEY not in done.stdout + done.stderr
    return done


def says(*texts: str) -> Callable[[dict, int], tuple]:
    """A script that answers each question with the next of the texts, and the last one ever after."""
    return lambda request, nth: ok(request, [texts[min(nth, len(texts) - 1)]])


def kept(cache: Path) -> int:
    """How many answers are in a cache, as another process sees it."""
    try:
        with sqlite3.connect(f"file:{cache}?mode=ro", uri=True, timeout=60) as file:
            return file.execute("SELECT count(*) FROM answers").fetchone()[0]
    except sqlite3.OperationalError:  # not made yet
        return 0


# -- questions -----------------------------------------------------------------------------------------------


def mode(name: str, *, question: str = "What counts.", template: str | None = None, as_json: bool = False,
         categories=(), **settings) -> modes.Mode:
    return modes.build_mode(name, question, template, categories=categories or KINDS, as_json=as_json, **settings)


def texts(content: str, *tags: str) -> list[str]:
    """What stands between tags of a question."""
    return [toy_judge.text(content, tag) for tag in tags]
