"""Faults that are planted into a command, in the process that is about to run it, to see that the fuzzer finds them."""

import resource
import sys
from collections.abc import Callable

SECONDS = 20  # of the processor, for a command that is fuzzed: some options ask for more than any test can wait for


def plant(fault: str) -> None:
    """Plant it, by name, "" for none; and let the command name every bad line that it puts aside, not the first few."""
    from alignlib.records import shown

    shown.WARNINGS = sys.maxsize
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    if fault:
        FAULTS[fault]()


def drop_lines() -> None:
    from alignlib.records.stream import Stream

    write = Stream.write
    Stream.write = lambda self, line, *records: None if line.index % 20 == 7 else write(self, line, *records)


def swallow_bad_lines() -> None:
    from alignlib.records.stream import Stream

    reject = Stream._reject_before

    def swallowing(self: Stream, index: int | None) -> None:
        if self._bad and self._bad[0].index % 7 == 0:
            self._bad.popleft()
        reject(self, index)

    Stream._reject_before = swallowing


def put_aside_in_part() -> None:
    from alignlib.records.stream import Stream

    reject = Stream._reject_before

    def cutting(self: Stream, index: int | None) -> None:
        for line in self._bad:
            line.raw = line.raw.replace(b"\0", b"")
        reject(self, index)

    Stream._reject_before = cutting


def miss_a_field() -> None:
    import al_pref2rw

    convert = al_pref2rw.to_rw
    al_pref2rw.to_rw = lambda record: convert({**record, "id": record["id"]})


def name_the_next_line() -> None:
    from alignlib.records.jsonl import Line

    Line.where = property(lambda self: f"{self.file}:{self.number + 1}")


def name_no_line() -> None:
    from alignlib.records.jsonl import DataError, Line

    Line.failure = lambda self: DataError(str(self.error))


def rewrite(change: Callable[[dict], dict]) -> None:
    """Let every record be written as `change` makes it."""
    from alignlib.records.stream import Stream

    write = Stream.write
    Stream.write = lambda self, line, *records: write(self, line, *map(change, records))


def write_nan() -> None:
    rewrite(lambda record: {**record, "rewards": [float("nan")] * len(record["rewards"])})


def write_another_record() -> None:
    before: list[dict] = []

    def late(record: dict) -> dict:
        before.append(record)
        return before[-2 if len(before) > 9 else -1]

    rewrite(late)


def write_too_few_rewards() -> None:
    rewrite(lambda record: {**record, "rewards": record["rewards"][:3]})


def end_with_another_code() -> None:
    from alignlib.cli import exits

    exits.BAD_DATA = 3


def print_a_traceback() -> None:
    import traceback

    from alignlib.records.jsonl import DataError, Line

    failure = Line.failure

    def printing(self: Line) -> Exception:
        try:
            raise failure(self)
        except DataError as error:
            traceback.print_exc()
            return error

    Line.failure = printing


def print_what_was_read() -> None:
    from alignlib.records.jsonl import Line

    failure = Line.failure

    def printing(self: Line) -> Exception:
        print(f"skipped {self.where}: {self.raw.decode(errors='replace')}", file=sys.stderr)
        return failure(self)

    Line.failure = printing


def trust_an_option() -> None:
    from alignlib.cli.options import Seed

    Seed.convert = lambda self, value, param, context: int(value)


def take_any_folder() -> None:
    from alignlib.cli import exits

    exits.USAGE = 0


def trust_a_folder() -> None:
    from alignlib.models import load

    load_reward = load.load_reward

    def trusting(path: str, *rest: object) -> object:
        import json
        from pathlib import Path

        for file in Path(path).glob("*.json"):
            json.loads(file.read_bytes())
        return load_reward(path, *rest)

    load.load_reward = trusting


def trust_an_answer() -> None:
    from alignlib.server import client

    read = client.read_body

    def trusting(content: bytes, *rest: object) -> dict:
        body = read(content, *rest)
        return {**body, "usage": {name: int(body["usage"][name]) for name in ("prompt_tokens", "completion_tokens")}}

    client.read_body = trusting


FAULTS: dict[str, Callable[[], None]] = {
    "drops lines": drop_lines,
    "swallows bad lines": swallow_bad_lines,
    "puts a bad line aside in part": put_aside_in_part,
    "misses a field": miss_a_field,
    "names the next line": name_the_next_line,
    "names no line": name_no_line,
    "writes NaN": write_nan,
    "writes another record": write_another_record,
    "writes too few rewards": write_too_few_rewards,
    "ends with another code": end_with_another_code,
    "prints a traceback": print_a_traceback,
    "prints what was read": print_what_was_read,
    "trusts an option": trust_an_option,
    "takes any folder": take_any_folder,
    "trusts a folder": trust_a_folder,
    "trusts an answer": trust_an_answer,
}
