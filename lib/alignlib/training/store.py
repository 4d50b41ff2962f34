"""Where a run's examples lie on a machine: in its folder, from the reading to the end, and after a kill till --resume.

    store = Store(run)
    if store.mine and not store.take_up():
        with store.writing() as writer:
            writer.add(example)
            store.finish(writer, {"counts": [1], ...})
    wait()                                         # till it is there
    examples, = store.open()
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import click
import orjson
import transformers

from alignlib import __version__, ranks
from alignlib.records import disk
from alignlib.training.examples import Examples, Writer, is_whole, naming
from alignlib.training.run_folder import EXAMPLES, FREE, Run


class Store:
    """The files of one machine, which its first process writes and all of them map.

    DIR/.examples/            `ids` and `numbers`; of further machines .examples-R, by the rank of the first process
    DIR/.examples/found.json  last: what else the reading found, with sizes and checksums of both

    mine   whether this process is the one that writes
    found  that JSON, once it is there
    """

    found: dict[str, Any]

    def __init__(self, run: Run):
        writer = ranks.reader()
        self.run, self.mine = run, writer == ranks.rank()
        self.folder = run.folder / (f"{EXAMPLES}-{writer}" if writer else EXAMPLES)
        self._lock: BinaryIO | None = None
        self._new: list[Path] = []  # folders that were not there before

    @property
    def key(self) -> str:
        """Of all that the examples depend on besides the input."""
        fixed = {name: value for name, value in self.run.fixed.items()
                 if name not in FREE and name not in ("input_crc", "eval_crc")}
        text = orjson.dumps([__version__, transformers.__version__, fixed], option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(text, digest_size=16).hexdigest()

    def take_up(self) -> bool:
        """Whether a killed run has left all of it, byte for byte; `found` is set then."""
        if not (self.folder / "found.json").exists():
            return False
        self.lock()
        try:
            self.load()
        except ValueError:  # cut
            return False
        return isinstance(self.found, dict) and self.found.get("key") == self.key and is_whole(self.folder, self.found)

    def lock(self) -> None:
        """Keep other runs off these files as long as this one lives. Raises UsageError where there is another."""
        if self._lock is None:
            self._lock = open(self.folder / "lock", "ab")
            try:
                disk.lock(self._lock)
            except BlockingIOError as error:
                raise click.UsageError(f"{self.run.folder}: another run is writing it") from error

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """A Writer of new files; where the body fails nothing of them is left, nor of the folders around them."""
        self._new = [place for place in (self.run.folder, *self.run.folder.parents) if not place.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock()
        try:
            (self.folder / "found.json").unlink(missing_ok=True)
            yield Writer(self.folder)
        except BaseException:
            self.remove()
            raise

    def finish(self, writer: Writer, found: dict[str, Any]) -> None:
        """All is written, and this was found besides."""
        content = orjson.dumps({**found, **writer.close(), "key": self.key})
        with naming(self.folder / "found.json"):
            (self.folder / "found.tmp").write_bytes(content)
            (self.folder / "found.tmp").replace(self.folder / "found.json")

    def load(self) -> None:
        self.found = orjson.loads((self.folder / "found.json").read_bytes())

    def open(self) -> list[Examples]:
        """The examples, `found`'s counts of each kind of them."""
        self.load()
        parts, first = [], 0
        for count in self.found["counts"]:
            parts.append(Examples(self.folder, self.found, first, first + count))
            first += count
        return parts

    def remove(self) -> None:
        """Leave nothing of it, nor a folder that was made for it and holds nothing else."""
        if self.mine:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.leave_no_folder()

    def leave_no_folder(self) -> None:
        """Remove the folders that were made for it, where they hold nothing."""
        for place in self._new:
            with suppress(OSError):
                place.rmdir()
