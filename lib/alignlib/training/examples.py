"""Examples that lie in two files, mapped into memory: each is made anew whenever it is asked for.

    ids      uint32: of one example after the other its prompt, its completions, its bare prompt
    numbers  columns: where an example's ids and its completions begin, int64; values of completions, int64 or float64;
             lengths of prompts and of completions, uint32

That is 4 bytes a token and some 30 an example. Mapped pages are shared by the processes of a machine, and the system
drops them where memory is short.
"""

import os
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from alignlib.models.example import Example

GIVEN = 1 << 31  # added to an id that is read and not predicted
Column = NDArray[Any]
Layout = Mapping[str, Any]  # what `Writer.close` returns, as JSON has it


class Writer:
    """Writes Examples into `folder`, which is there, without keeping them. Raises OSError with the file's name.

    All have the same values, and the first says of each whether they are whole numbers.
    """

    def __init__(self, folder: Path):
        self.folder, self.crc, self.size = folder, 0, 0
        self.starts, self.rows = array("q", [0]), array("q", [0])
        self.prompts, self.lengths = array("I"), array("I")
        self.values: dict[str, array[Any]] = {}
        self.file = open(folder / "ids", "wb", buffering=1 << 20)

    def __len__(self) -> int:
        return len(self.prompts)

    def add(self, example: Example) -> None:
        """One more. Raises ValueError for one with other values than those before it."""
        ids = array("I", example.prompt)
        for row in example.completions:
            ids.extend(row)
            self.lengths.append(len(row))
        for place in example.given:
            ids[len(example.prompt) + place] += GIVEN
        ids.extend(example.bare)
        data = ids.tobytes()
        self.crc, self.size = zlib.crc32(data, self.crc), self.size + len(data)
        with naming(self.folder / "ids"):
            self.file.write(data)
        self.prompts.append(len(example.prompt))
        self.starts.append(self.starts[-1] + len(ids))
        self.rows.append(len(self.lengths))
        for name, numbers in example.values.items():
            if name not in self.values and len(self) == 1:
                self.values[name] = array("q" if isinstance(numbers[0], int) else "d")
            self.values[name].extend(numbers)
        if any(len(column) != len(self.lengths) for column in self.values.values()):
            raise ValueError(f"an example with values for {', '.join(example.values)} among {', '.join(self.values)}")

    def close(self) -> dict[str, Any]:
        """The end: the other file. Returns what `Examples` and `is_whole` need to know of both."""
        columns = {"starts": self.starts, "rows": self.rows,
                   **{f"value {name}": column for name, column in self.values.items()},
                   "prompts": self.prompts, "lengths": self.lengths}  # those of 8 bytes an entry first
        with naming(self.folder / "ids"):
            self.file.close()
        crc = 0
        with naming(self.folder / "numbers"), open(self.folder / "numbers", "wb") as file:
            for column in columns.values():
                file.write(column)
                crc = zlib.crc32(column, crc)
        files = {"ids": [self.size, self.crc], "numbers": [(self.folder / "numbers").stat().st_size, crc]}
        return {"files": files, "columns": {name: [column.typecode, len(column)] for name, column in columns.items()}}


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """In its body an OSError gets the name of the file's folder, which a full disk's has not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path.parent)) from error


def is_whole(folder: Path, layout: Layout) -> bool:
    """Whether the files are those that were written, byte for byte."""
    return all(checksum(folder / name) == [size, crc] for name, (size, crc) in layout["files"].items())


def checksum(file: Path) -> list[int] | None:
    """A file's size and CRC-32; None where there is none."""
    size = crc = 0
    try:
        with open(file, "rb") as handle:
            while data := handle.read(1 << 20):
                size, crc = size + len(data), zlib.crc32(data, crc)
    except FileNotFoundError:
        return None
    return [size, crc]


class Examples(Sequence[Example]):
    """The Examples `first` to `last` (that one not among them) of a folder, by their number from 0.

    values  one number a completion by name, [R] over the completions of all examples; a column may be put in another's
            place, or be added
    """

    def __init__(self, folder: Path, layout: Layout, first: int, last: int):
        columns: dict[str, Column] = {}
        offset = 0
        for name, (kind, count) in layout["columns"].items():
            columns[name] = mapped(folder / "numbers", kind, offset, count)
            offset += columns[name].nbytes
        self._ids = mapped(folder / "ids", "I", 0, int(columns["starts"][-1]))
        self._starts, self._rows = (columns[name][first:last + 1] for name in ("starts", "rows"))
        self._prompts = columns["prompts"][first:last]
        mine = slice(int(self._rows[0]), int(self._rows[-1]))
        self.lengths = columns["lengths"][mine]  # [R]
        self.values = {name.removeprefix("value "): column[mine] for name, column in columns.items()
                       if name.startswith("value ")}

    def __len__(self) -> int:
        return len(self._prompts)

    def rows(self, index: int) -> slice:
        """Which of the R completions are the example's."""
        before, begin, end = (int(self._rows[i]) for i in (0, index, index + 1))
        return slice(begin - before, end - before)

    def first_values(self, name: str) -> Column:
        """The number of each example's first completion: [N]."""
        return self.values[name][self._rows[:-1] - self._rows[0]]

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._example(i) for i in range(len(self))[index]]
        return self._example(range(len(self))[index])

    def _example(self, index: int) -> Example:
        mine = self.rows(index)
        ids = self._ids[self._starts[index]:self._starts[index + 1]]
        at = int(self._prompts[index])
        given = frozenset((np.flatnonzero(ids >= GIVEN) - at).tolist())
        tokens: list[int] = (ids & GIVEN - 1 if given else ids).tolist()
        prompt, completions = tokens[:at], []
        for length in self.lengths[mine].tolist():
            completions.append(tokens[at:at + length])
            at += length
        values = {name: column[mine].tolist() for name, column in self.values.items()}
        return Example(prompt, completions, values, given, bare=tokens[at:])


def mapped(file: Path, kind: str, offset: int, count: int) -> Column:
    """So many numbers of a file; an array's letter says of which kind."""
    if not count:  # which no system maps
        return np.empty(0, kind)
    return np.memmap(file, kind, "r", offset, (count,)).view(np.ndarray)
