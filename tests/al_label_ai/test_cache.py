"""A judge's answers, kept: found again, shared by processes, in a file of their own."""

import sqlite3
import subprocess
import sys

import click
import pytest

from al_label_ai.cache import REFUSAL, Cache, Reply, request_key
from helpers.process import environment


def test_an_answer_is_found_again_by_model_messages_and_parameters(tmp_path):
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
    others = [request | change for change in ({"model": "n"}, {"temperature": 1}, {"top_p": 1}, {"messages": []})]
    reply = Reply("A", "stop", 7, 1)
    cache = Cache(str(tmp_path / "c"))
    assert cache.get(request_key(request)) is None
    cache.put(request_key(request), "m", reply)
    cache.put(request_key(request), "m", Reply("B", "stop", 1, 1))  # another process was faster
    again = Cache(str(tmp_path / "c"))  # while the other has it open
    assert again.get(request_key(dict(reversed(request.items())))) == reply == cache.get(request_key(request))
    assert [again.get(request_key(other)) for other in others] == [None] * 4


def test_a_cache_of_old_is_read(tmp_path):
    """One that was made before there were refusals in it."""
    with sqlite3.connect(tmp_path / "c") as file:
        file.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, reason TEXT "
                     "NOT NULL, prompt_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL) WITHOUT ROWID")
        file.execute("PRAGMA user_version = 1")
        file.execute("INSERT INTO answers VALUES ('aeb1c6f9ae500c662d030ddec3a1029c', 'm', 'A', 'stop', 7, 1)")
    cache = Cache(str(tmp_path / "c"))
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 1024}
    assert cache.get(request_key(request)) == Reply("A", "stop", 7, 1)
    cache.put("k", "m", Reply("no", REFUSAL, 1, 1))
    assert cache.get("k").reason == "refusal"


def test_several_processes_write_one_cache(tmp_path):
    code = ("import sys; from al_label_ai.cache import *\n"
            "cache = Cache(sys.argv[1])\n"
            "for i in range(200): cache.put(f'{sys.argv[2]} {i}', 'm', Reply('A', 'stop', 1, 1))\n")
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "c", str(i)], env=environment())
               for i in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    cache = Cache(str(tmp_path / "c"))
    assert all(cache.get(f"{i} {j}") for i in range(3) for j in range(200))


def test_a_file_that_is_no_cache_is_left_alone(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "p"}\n' * 100)
    with pytest.raises(click.UsageError, match="in.jsonl: damaged, or no cache .file is not a database.*begins anew"):
        Cache(str(tmp_path / "in.jsonl"))
    assert (tmp_path / "in.jsonl").read_text() == '{"prompt": "p"}\n' * 100
    with sqlite3.connect(tmp_path / "later") as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(click.UsageError, match="another version"):
        Cache(str(tmp_path / "later"))


def test_a_file_of_another_program_is_named_and_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "other") as file:
        file.execute("CREATE TABLE bookmarks (url TEXT)")
    before = (tmp_path / "other").read_bytes()
    with pytest.raises(click.UsageError, match="other: an SQLite file of another program, with bookmarks in it"):
        Cache(str(tmp_path / "other"))
    assert (tmp_path / "other").read_bytes() == before
    with sqlite3.connect(tmp_path / "answers") as file:
        file.execute("CREATE TABLE answers (question TEXT)")
    with pytest.raises(click.UsageError, match="its answers are not those of this command"):
        Cache(str(tmp_path / "answers"))


def test_a_damaged_cache_is_said_to_be_with_what_to_do(tmp_path):
    cache = Cache(str(tmp_path / "c"))
    for i in range(500):
        cache.put(f"{i:032}", "m", Reply("A" * 100, "stop", 1, 1))
    cache.close()
    whole = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(whole[:8192] + b"\xa5" * 8192 + whole[16384:])
    with pytest.raises(click.UsageError, match="c: damaged, or no cache .*recover"):
        Cache(str(tmp_path / "c"))
    (tmp_path / "c").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(click.UsageError, match="c: damaged, or no cache"):
        Cache(str(tmp_path / "c"))
