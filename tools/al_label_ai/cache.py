"""What a judge has been paid for: its answers in an SQLite file, found again by model, messages and parameters.

An answer is in the file before anybody sees it, and a kill does not undo it. Several processes may share one file.
"""

import hashlib
import sqlite3
from typing import NamedTuple

import click
import orjson

from alignlib.records.jsonl import Record

VERSION = 1
REFUSAL = "refusal"
PATIENCE = 60.0  # seconds to wait for another process that writes
TABLE = """CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, tokens INTEGER NOT NULL) WITHOUT ROWID"""


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


class Cache:
    """The file at `path`, made if it is not there. Raises UsageError for a file that is something else."""

    def __init__(self, path: str):
        try:
            # Each statement is its own transaction; one thread uses it at a time, not always the same.
            self.file = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            version = self.file.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise click.UsageError(f"--cache {path}: made by another version of this command")
            self.file.execute("PRAGMA journal_mode = WAL")  # readers and a writer at a time
            self.file.execute("PRAGMA synchronous = NORMAL")  # outlives the process; of a power cut, all but the last
            self.file.execute(TABLE)
            self.file.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.Error as error:
            raise click.UsageError(f"--cache {path}: {error}") from error

    def get(self, key: str) -> Reply | None:
        rows = self.file.execute("SELECT text, reason, prompt_tokens, tokens FROM answers WHERE key = ?", (key,))
        row = rows.fetchone()
        return Reply(*row) if row else None

    def put(self, key: str, model: str, reply: Reply) -> None:
        """Another process may have been faster: then its answer stays."""
        self.file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", (key, model, *reply))

    def close(self) -> None:
        self.file.close()
