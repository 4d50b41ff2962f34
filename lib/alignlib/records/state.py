"""A filter's memory beside its output, FILE.state: which line is next, and where the files stood before it."""

import os
from pathlib import Path
from typing import Any

import orjson

from alignlib.records.disk import Held, StateError, must_be_finished, named
from alignlib.records.links import place

FIELDS = {"key": str, "line": int, "crc": int, "crc_before": int, "out": int, "rejects": int, "written": int,
          "rejected": int, "put_aside": int | None, "records": int | None}
BYTES = 512  # one write of fixed size, in place: a kill leaves the old state or the new one
NOTHING = -1  # the "line" of a state whose run has written none


def state_path(output: str) -> Path:
    """Beside the file that the links at `output` lead to, so that every name of it finds the same state."""
    return Path(f"{place(output)}.state")


class State:
    """The state of the run that writes `output`, this process alone. Raises StateError where another run has it."""

    def __init__(self, output: str):
        self.output = output
        self.held = Held(state_path(output), shown=output)
        self.new = self.held.new

    def read(self, resume: bool) -> dict[str, Any]:
        """What a killed run has said, {} if nothing had left. Raises StateError if it had and nobody will `resume`."""
        raw = Path(self.held.path).read_bytes()
        state = parse(raw)
        if not raw.strip() or state and state["line"] == NOTHING:
            return {}
        if not resume:
            must_be_finished(self.output)
        if state is None:
            raise StateError(f"{self.held.path}: not the state of a run")
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Raises DiskFull."""
        data, done = orjson.dumps(state).ljust(BYTES), 0
        try:
            while done < len(data):  # on a disk that is nearly full a part of it may go
                done += os.pwrite(self.held.fd, data[done:], done)
        except OSError as error:
            raise named(error, self.output) from error

    def close(self, done: bool) -> None:
        """`done`: there is nothing that a resumed run would need it for."""
        if done:
            self.held.remove()
        self.held.close()


def parse(raw: bytes) -> dict[str, Any] | None:
    """What `State.write` has written; None for anything else."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    good = isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in FIELDS.items())
    return value if good else None
