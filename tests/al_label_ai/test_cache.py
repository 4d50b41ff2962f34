"""A judge's answers, kept: found again, shared by processes, in a file of their own."""

import sqlite3
import subprocess
import sys

import click
import pytest

from al_label_ai.cache import REFUSAL, Cache, Reply, request_key
from alignlib.records.disk import DiskFull
from helpers.disks import small_disk
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


# -- what is under way -----------------------------------------------------------------------------------------------

A_REPLY = Reply("A", "stop", 7, 1)


def names(folder) -> list[str]:
    """The files beside a cache, SQLite's own apart."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm")))


def test_what_one_run_asks_another_waits_for(tmp_path):
    one, two, three = (Cache(str(tmp_path / "c")) for _ in range(3))
    assert one.claim(["k"]) is True is one.claim(["k"])
    assert two.claim(["k"]) is False and two.claim(["other"]) is True and three.claim(["other"]) is False
    assert names(tmp_path) == ["c", "c-run-1", "c-run-2"]
    one.put("k", "m", A_REPLY)
    assert two.claim(["k"]) == A_REPLY
    one.release("k")
    two.release("k")  # which it does not hold
    assert three.claim(["k"]) == A_REPLY and three.claim(["k2", "k"]) == A_REPLY
    two.release("other")  # it failed
    assert three.claim(["other"]) is True
    for cache in (one, two, three):
        cache.close()
    assert names(tmp_path) == ["c"]


def test_what_a_run_leaves_undone_at_its_end_is_anybodys(tmp_path):
    one, two = Cache(str(tmp_path / "c")), Cache(str(tmp_path / "c"))
    assert one.claim(["k"]) and two.claim(["k"]) is False
    one.close()
    assert two.claim(["k"]) is True
    two.close()


@pytest.mark.slow
def test_what_a_killed_run_had_under_way_is_anybodys(tmp_path):
    """Its number too; and its file goes with the last run."""
    code = ("import sys; from al_label_ai.cache import *\n"
            "cache = Cache(sys.argv[1]); cache.claim(['k']); cache.claim(['l']); print('claimed', flush=True); input()")
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "c"], env=environment(), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"claimed\n"
    early, late = Cache(str(tmp_path / "c")), Cache(str(tmp_path / "c"))
    assert early.claim(["k"]) is False and early.claim(["mine"]) is True and names(tmp_path)[1:] == [
        "c-run-1", "c-run-2"]
    process.kill()
    process.communicate()
    assert early.claim(["k"]) is True and late.claim(["k"]) is False
    assert late.claim(["m"]) is True and late.run == 1 and late.claim(["l"]) is True and early.claim(["l"]) is False
    early.close()
    assert names(tmp_path) == ["c", "c-run-1"]
    late.close()
    (tmp_path / "c-run-x").write_text("mine")
    third = Cache(str(tmp_path / "c"))
    assert third.claim(["k"]) and third.claim(["l"])
    third.close()
    assert names(tmp_path) == ["c", "c-run-x"]


def test_a_run_that_asks_nothing_leaves_no_file(tmp_path):
    cache = Cache(str(tmp_path / "c"))
    cache.put("k", "m", A_REPLY)
    assert cache.get("k") == A_REPLY and names(tmp_path) == ["c"]
    cache.close()
    again = Cache(str(tmp_path / "c"))
    assert again.claim(["k"]) == A_REPLY and names(tmp_path) == ["c"]
    again.close()


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


def test_runs_know_each_other_through_a_link(tmp_path):
    """One name is the file's, the other a link's: what one has under way the other waits for."""
    (tmp_path / "link").symlink_to("c")
    one, two = Cache(str(tmp_path / "c")), Cache(str(tmp_path / "link"))
    assert one.claim(["k"]) is True and two.claim(["k"]) is False
    one.close()
    assert two.claim(["k"]) is True
    two.close()
    assert names(tmp_path) == ["c", "link"]


@pytest.mark.slow
def test_a_full_disk_is_said_by_its_folder(tmp_path):
    """In the middle, and before there is a table; the end of the run raises nothing more."""
    with small_disk(tmp_path, 120) as small:
        cache = Cache(str(small.at / "c"))
        assert cache.claim(["k"]) is True
        with pytest.raises(DiskFull, match=f"no space left on device: {small.at}$"):
            for i in range(1000):
                cache.put(str(i), "m", Reply("A" * 1000, "stop", 1, 1))
        cache.close()
        with pytest.raises(DiskFull, match=f"no space left on device: {small.at}$"):
            Cache(str(small.at / "other"))
