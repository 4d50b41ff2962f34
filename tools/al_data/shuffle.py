"""al-data shuffle: records in random order, of files larger than memory.

Each line draws a key of 64 bits, and lines leave in the order of their keys: every order is as likely as any other, and
it does not depend on how much memory there is. What memory does not hold is dealt into blocks on disk by the first bits
of the keys; a block is put in order when its turn comes, or, if memory does not hold it, dealt out once more.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from random import Random
from typing import IO, Any

import click

from al_data.lines import kept, write_lines
from al_data.write import open_output
from alignlib.cli import bars, options, paths
from alignlib.records.jsonl import count_ahead
from alignlib.records.links import regular

BITS = 6  # of the keys, by which lines are dealt out: into 64 blocks
HEADER = struct.Struct("<QQ")  # before each line of a block: its key, its length
UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}
Keyed = tuple[int, bytes]


class Size(click.ParamType[int]):
    """ "500M" as a number of bytes, of at least a million."""

    name = "BYTES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        digits = value.upper().removesuffix("B")
        unit = UNITS.get(digits[-1:], 1)
        try:
            number = round(float(digits.rstrip("KMG")) * unit)
        except (ValueError, OverflowError):
            self.fail(f"{value}: expected a number of bytes, as in 500M or 2G", param, ctx)
        if number < UNITS["M"]:
            self.fail(f"{value}: at least 1M", param, ctx)
        return number


@options.command(name="shuffle")
@options.files
@click.option("--memory", type=Size(), default="1G", help="What lines may take there; the rest is beside -o meanwhile.")
@click.option("--seed", type=options.Seed(), default=0, help="Of the order, whatever the memory.")
@options.output_option
def shuffle_command(files: tuple[str, ...], memory: int, seed: int, output: str | None) -> None:
    """Write the records of FILES in random order, byte for byte; they may be larger than memory.

    What does not fit into --memory goes through blocks on disk, as large as the input: beside the output, or, where
    that is no file, in TMPDIR. Reads all input first.
    """
    paths.must_exist(files)
    output = None if output == "-" else output
    summary = options.Summary()
    summary.count(records=0)
    folder = os.path.dirname(os.path.realpath(output)) if output and regular(output) else tempfile.gettempdir()
    where = None if bars.typed(files) else bars.terminal(sys.stderr)
    with open_output(output) as handle:  # before anything is read: another run is told at once
        with bars.Bar(count_ahead(files) if where else None, name="reading", unit="records", where=where) as bar:
            order = Order(drawn(kept(files), Random(seed), bar), memory, folder)
        write_lines(order, handle, summary, order.count)
    summary.close()


def drawn(lines: Iterable[bytes], keys: Random, bar: bars.Bar) -> Iterator[Keyed]:
    """The lines, each with a key."""
    for number, line in enumerate(lines, 1):
        yield keys.getrandbits(64), line
        bar.reach(number)


class Held:
    """Lines in memory, with their keys; `size` is what they take."""

    def __init__(self) -> None:
        self.text, self.keys, self.ends = bytearray(), array("Q"), array("Q")

    @property
    def size(self) -> int:
        return len(self.text) * 9 // 8 + 40 * len(self.keys)  # room to grow; two numbers a line, three to sort by

    def add(self, key: int, line: bytes) -> None:
        self.text += line
        self.keys.append(key)
        self.ends.append(len(self.text))

    def line(self, number: int) -> bytes:
        start = self.ends[number - 1] if number else 0
        return bytes(memoryview(self.text)[start:self.ends[number]])

    def as_read(self) -> Iterator[Keyed]:
        for number, key in enumerate(self.keys):
            yield key, self.line(number)

    def __iter__(self) -> Iterator[bytes]:
        """In the order of the keys; of two with one key the earlier first."""
        import numpy as np

        for number in np.frombuffer(self.keys, "u8").argsort(kind="stable") if self.keys else ():
            yield self.line(number)


class Order:
    """The lines in the order of their keys, to be gone through once; all of them are read at once.

    memory  bytes that lines may take
    folder  where blocks lie: files without a name, gone with this process whatever its end
    level   how often these lines have been dealt out already
    count   of the lines

    Raises OSError that names the folder where its disk is full.
    """

    def __init__(self, lines: Iterable[Keyed], memory: int, folder: str, level: int = 0):
        self.memory, self.folder, self.level = memory, folder, level
        self.held, self.count = Held(), 0
        self.blocks: list[IO[bytes]] = []
        self.stack = ExitStack()
        lines = iter(lines)
        for key, line in lines:
            self.held.add(key, line)
            self.count += 1
            if self.held.size > memory and (level + 1) * BITS < 64:
                self.deal(chain(self.held.as_read(), lines))
                break

    def deal(self, lines: Iterator[Keyed]) -> None:
        """Into blocks, by the keys' next bits."""
        shift = 64 - (self.level + 1) * BITS
        try:
            self.blocks = [self.stack.enter_context(tempfile.TemporaryFile(dir=self.folder, buffering=1 << 16))
                           for _ in range(1 << BITS)]
            for self.count, (key, line) in enumerate(lines, 1):
                self.blocks[key >> shift & (1 << BITS) - 1].write(HEADER.pack(key, len(line)) + line)
            for block in self.blocks:
                block.seek(0)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.folder) from error
        self.held = Held()

    def __iter__(self) -> Iterator[bytes]:
        with self.stack:
            yield from self.held
            for block in self.blocks:
                yield from Order(dealt(block), self.memory, self.folder, self.level + 1)
                block.close()


def dealt(block: IO[bytes]) -> Iterator[Keyed]:
    """The lines of a block."""
    while header := block.read(HEADER.size):
        key, length = HEADER.unpack(header)
        yield key, block.read(length)
