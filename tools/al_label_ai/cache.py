"""What a judge has been paid for: its answers in an SQLite file, found again by model, messages and parameters.

An answer is in the file before anybody sees it, and a kill does not undo it. Several processes may share one file, and
see there what the others have under way. Each holds a lock on a file of its own beside it, which ends with the process
however that ends: what a dead run had under way is anybody's. (So far as locks of files go: on one machine.)
"""

import fcntl
import glob
import hashlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import BinaryIO, NamedTuple

import click
import orjson

from alignlib.records import disk
from alignlib.records.jsonl import Record

VERSION = 1
REFUSAL = "refusal"
PATIENCE = 60.0  # seconds to wait for another process that writes
TABLE = """CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL) WITHOUT ROWID"""
UNDER_WAY = "CREATE TABLE IF NOT EXISTS under_way (key TEXT PRIMARY KEY, run INTEGER NOT NULL) WITHOUT ROWID"


class Reply(NamedTuple):
    """A server's answer as it came; "length" is the reason of one that was cut, tokens are what it was charged for.

    REFUSAL is the reason of an answer that is none, and `text` what was said instead.
    """

    text: str
    reason: str
    prompt_tokens: int
    tokens: int


def request_key(request: Record) -> str:
    """Stands for a request: the model, the messages and every parameter."""
    return hashlib.blake2b(orjson.dumps(request, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def must_be_cache(file: sqlite3.Connection, path: str) -> None:
    """Raises UsageError, before anything is written, for an SQLite file that is another's, or damaged."""
    version = file.execute("PRAGMA user_version").fetchone()[0]
    tables = [name for name, in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if version == 0 and tables and "answers" not in tables:  # with it: killed before it said its version
        raise click.UsageError(f"--cache {path}: an SQLite file of another program, with {', '.join(tables[:3])} in "
                               "it; name another")
    if version not in (0, VERSION):
        raise click.UsageError(f"--cache {path}: made by another version of this command; name another")
    columns = [column for _, column, *_ in file.execute("PRAGMA table_info(answers)")]
    if tables and columns != ["key", "model", *Reply._fields]:
        raise click.UsageError(f"--cache {path}: its answers are not those of this command; name another")
    said = file.execute("PRAGMA quick_check(1)").fetchone()[0]
    if said != "ok":
        raise damaged(path, said)


def damaged(path: str, said: str) -> click.UsageError:
    """What to say of a file that SQLite cannot read."""
    return click.UsageError(f"--cache {path}: damaged, or no cache ({' '.join(said.split())}); `sqlite3 FILE .recover` "
                            "saves what can be read of one; another name begins anew")


class Cache:
    """The file at `path`, made if it is not there. Raises UsageError for a file that is something else."""

    def __init__(self, path: str):
        self.path, self.run = path, 0  # which run this is, once it has something under way
        self.place = os.path.realpath(path)  # runs know each other, by whatever name each has it
        self.lock: BinaryIO | None = None  # of the run's file
        try:
            # Each statement is its own transaction; one thread uses it at a time, not always the same.
            self.file = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            must_be_cache(self.file, path)
            self.file.execute("PRAGMA journal_mode = WAL")  # readers and a writer at a time
            self.file.execute("PRAGMA synchronous = NORMAL")  # outlives the process; of a power cut, all but the last
            self.file.execute(TABLE)
            self.file.execute(UNDER_WAY)
            self.file.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.OperationalError as error:
            if disk.full(error):
                raise disk.DiskFull(disk.no_space(error, path)) from error
            raise click.UsageError(f"--cache {path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise damaged(path, str(error)) from error

    def get(self, key: str) -> Reply | None:
        rows = self.file.execute("SELECT text, reason, prompt_tokens, tokens FROM answers WHERE key = ?", (key,))
        row = rows.fetchone()
        return Reply(*row) if row else None

    def put(self, key: str, model: str, reply: Reply) -> None:
        """Another process may have been faster: then its answer stays. Raises DiskFull."""
        with disk.writing(self.path):
            self.file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", (key, model, *reply))

    # -- what is under way -------------------------------------------------------------------------------

    def claim(self, keys: Sequence[str]) -> Reply | bool:
        """The answer to any of the requests; where there is none, whether the first of them is this run's to make:
        False while another run, which lives, has it under way."""
        with disk.writing(self.path), self.file:
            self.file.execute("BEGIN IMMEDIATE")  # nobody else writes until the end
            if reply := next(filter(None, map(self.get, keys)), None):
                return reply
            row = self.file.execute("SELECT run FROM under_way WHERE key = ?", (keys[0],)).fetchone()
            if row and row[0] != self.run and not self.is_dead(row[0]):
                return False
            self.run = self.run or self.enter()
            self.file.execute("INSERT OR REPLACE INTO under_way VALUES (?, ?)", (keys[0], self.run))
            return True

    def release(self, key: str) -> None:
        """The request is under way no more: its answer has been put, or there is none."""
        with disk.writing(self.path):
            self.file.execute("DELETE FROM under_way WHERE key = ? AND run = ?", (key, self.run))

    def enter(self) -> int:
        """A number that no living run has, whose file is locked from now on. In a transaction."""
        for number in count(1):
            self.lock = open(self.lock_path(number), "ab")
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.lock.close()
            else:
                break
        self.file.execute("DELETE FROM under_way WHERE run = ?", (number,))  # a dead run's
        return number

    def is_dead(self, number: int) -> bool:
        """Whether the run with this number has ended: then nobody holds its lock."""
        try:
            with open(self.lock_path(number), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        return True

    def lock_path(self, number: int) -> str:
        return f"{self.place}-run-{number}"

    def close(self) -> None:
        """The end of this run, and of what dead ones have left.

        On a full disk that stays: it is a dead run's from now on, and counts for nothing.
        """
        if self.lock:
            with suppress(disk.DiskFull), self.lock, disk.writing(self.path), self.file:
                self.file.execute("BEGIN IMMEDIATE")  # and nobody enters meanwhile
                self.file.execute("DELETE FROM under_way WHERE run = ?", (self.run,))
                self.lock.close()  # so that it is known as dead, as those whose files go
                for path in glob.glob(f"{glob.escape(self.place)}-run-*"):
                    number = path.removeprefix(f"{self.place}-run-")
                    if number.isdecimal() and self.is_dead(int(number)):
                        os.unlink(path)
            self.lock = None
        self.file.close()
