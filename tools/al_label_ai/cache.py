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
        try:
            # Each statement is its own transaction; one thread uses it at a time, not always the same.
            self.file = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            must_be_cache(self.file, path)
            self.file.execute("PRAGMA journal_mode = WAL")  # readers and a writer at a time
            self.file.execute("PRAGMA synchronous = NORMAL")  # outlives the process; of a power cut, all but the last
            self.file.execute(TABLE)
            self.file.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.OperationalError as error:
            raise click.UsageError(f"--cache {path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise damaged(path, str(error)) from error

    def get(self, key: str) -> Reply | None:
        rows = self.file.execute("SELECT text, reason, prompt_tokens, tokens FROM answers WHERE key = ?", (key,))
        row = rows.fetchone()
        return Reply(*row) if row else None

    def put(self, key: str, model: str, reply: Reply) -> None:
        """Another process may have been faster: then its answer stays."""
        self.file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", (key, model, *reply))

    def close(self) -> None:
        self.file.close()
