"""A fuzzer of the commands: what it gives them is drawn from a seed, what must hold whatever they are given is checked.

    fuzz_lines("al-pref2rw", 500, seed=1)      # 500 lines, most of them mutated, in one run -> what is wrong, in words
    fuzz_reader("al-eval reward", seed=1)      # one mutated line among good ones, for what reads all

Options, folders and servers' answers are in fuzz_around.py. `fault`, everywhere: one that is planted (planted.py), to
see that it is found.
"""

import functools
import itertools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any

import outputs
from alignlib.records.fields import ALIGNED, FIELDS
from helpers.commands import folders, pairs, prompts, rewarded, run
from helpers.mutations import mutated

CODES = (0, 1, 2, 65)
TOO_LONG = (-9, -24)  # how the kernel ends what takes more of the processor than planted.plant allows
# What Python calls an error that nobody foresaw, where a command's own words should be.
UNFORESEEN = re.compile(r"^al-[a-z0-9 -]+: (?!FloatingPointError)[\w.]*(Error|Exception|Interrupt|Iteration)\b")
BESIDE = re.compile(r"^(skipped |warning: |note: |al-[a-z0-9 -]+: [\d,]+ records)")  # lines on stderr that are no error
NAMED = re.compile(r"^skipped (?:<stdin>|\S+):(\d+): ", re.MULTILINE)


def endings(done: subprocess.CompletedProcess, codes: tuple[int, ...] = CODES) -> Iterator[str]:
    """What is wrong with how a command ended: its code, a traceback, an error that is not one line of its own words."""
    said = done.stderr.splitlines()
    errors = [line for line in said if line and not BESIDE.match(line)]
    if done.returncode in TOO_LONG:
        return
    if done.returncode not in codes:
        yield f"exit code {done.returncode}: {' / '.join(said)[-300:]}"
    if "Traceback" in done.stderr:
        yield f"a traceback: {done.stderr[-300:]}"
    yield from (f"control characters on stderr: {line[:300]!r}" for line in done.stderr.split("\n")
                if not line.isprintable())
    if done.returncode == 0:
        return
    yield from (f"unforeseen: {line[:300]}" for line in errors if UNFORESEEN.match(line))
    if len(errors) != 1:
        yield f"{len(errors)} lines for one error: {' / '.join(errors)[-300:]}"


# -- filters: many lines a run -------------------------------------------------------------------------------------


def talks() -> list[dict]:
    """Conversations, some with their answers as turns."""
    turn = {"role": "assistant", "content": " Yes."}
    return [{"id": f"t{n}", "chosen": [turn], "rejected": " No.", "completions": [" Yes.", [turn]], "rewards": [n, 0.5],
             "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"{n}?"}]}
            for n in range(5)]


@functools.cache
def filters() -> dict[str, tuple[list[object], list[dict]]]:
    """Name -> arguments, records to mutate."""
    at = folders()
    scored, talked = [*rewarded(12), *talks()], [*prompts(12), *talks()]
    policy, reward = at.templated(at.policy), at.templated(at.reward)
    return {
        "al-pref2rw": ([], [*pairs(12), *talks()]),
        "al-pref2rw chosen": (["--to", "chosen"], [*pairs(12), *talks()]),
        "al-pref2rw pref": (["--to", "pref"], scored),
        "al-pref2rw sft": (["--to", "sft"], scored),
        "al-score toy": (["toy:overall"], rewarded(12)),
        "al-score": ([reward], scored),
        "al-score logps": ([policy, "--logps", "--perplexity"], scored),
        "al-sample": ([policy, "-m", 2, "--ids"], talked),
        "al-args": ([policy, reward, "-m", 2, "-k", 2], talked),
        "al-label-ai": (["--judge-rm", reward], [*rewarded(12, 2), *talks()]),
    }


def batch(chance: Random, records: list[dict], count: int) -> bytes:
    """Lines, two of three mutated; empty lines, CRLF, a last line without its end now and then."""
    lines = []
    for _ in range(count):
        record = chance.choice(records)
        line = mutated(chance, record) if chance.random() < 0.67 else json.dumps(record).encode()
        lines.append(line + chance.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n")))
    return b"".join(lines).removesuffix(b"\n" if chance.random() < 0.3 else b"\0")


def read_lines(data: bytes) -> dict[int, bytes]:
    """The lines that are not blank, by number from 1."""
    lines = enumerate(data.split(b"\n"), 1)
    return {number: line for number, line in lines if line.removeprefix(b"\xef\xbb\xbf" * (number == 1)).strip()}


def fuzz_lines(name: str, count: int, seed: int, fault: str = "") -> list[str]:
    """Give a filter `count` lines, put its bad ones aside; then once more, to see it end at the first bad one."""
    args, records = filters()[name]
    chance = Random(f"{name} {seed}")
    data = batch(chance, records, count)
    rejects = folders().new("rejects")
    command = name.split()[0]
    done = run(command, *args, "--on-error", "skip", "--rejects", rejects, stdin=data, fault=fault)
    wrong = [*endings(done, (0,))]
    aside = rejects.read_bytes().split(b"\n")[:-1] if rejects.exists() else []
    if not wrong:
        wrong += accounts(command, read_lines(data), done, aside)
    wrong += stops(command, args, data, done, fault)
    return [f"{name}, {count} lines, seed {seed}: {what}" for what in wrong]


def accounts(command: str, lines: dict[int, bytes], done: subprocess.CompletedProcess, aside: list[bytes]
             ) -> Iterator[str]:
    """Every line is written or put aside, byte for byte, and then named; what is written is whole, and valid."""
    written = done.stdout.split("\n")[:-1]
    if len(written) + len(aside) != len(lines):
        yield f"{len(lines)} read, but {len(written)} written and {len(aside)} put aside"
    named = [int(number) for number in NAMED.findall(done.stderr)]
    if [lines.get(number) for number in named] != aside:
        yield f"put aside are not the {len(named)} lines that are named"
    good = [line for number, line in lines.items() if number not in set(named)]
    fields = schema(command)
    for before, after in zip(good, written, strict=False):
        yield from (f"{what}: {before[:200]!r}" for what in itertools.islice(faults_of(fields, before, after), 1))


def faults_of(fields: set[str], before: bytes, after: str) -> Iterator[str]:
    """What is wrong with a line that was made of another."""
    try:
        record = json.loads(after, parse_constant=lambda name: name / 0)
        origin = json.loads(before.removeprefix(b"\xef\xbb\xbf"))
        if record.get("id") != origin.get("id") and isinstance(origin.get("id"), str):
            yield "written is not the record that was read"
        for name in fields & record.keys():
            FIELDS[name].check(record[name], name)
            if name in ALIGNED and "completions" in fields and len(record[name]) != len(record["completions"]):
                yield f"{name}: {len(record[name])} for {len(record['completions'])} completions"
        if not all(map(isfinite, record.get("rewards", []) if "rewards" in fields else [])):
            yield "rewards that are not finite"
    except (ValueError, AttributeError, TypeError) as error:
        yield f"written is not valid ({error})"


@functools.cache
def schema(command: str) -> set[str]:
    """The fields that a command says it writes."""
    return set(json.loads(run(command, "--schema").stdout)["output"]["properties"]) & FIELDS.keys()


def stops(command: str, args: list[object], data: bytes, skipped: subprocess.CompletedProcess, fault: str
          ) -> Iterator[str]:
    """Without --on-error skip it ends at the first bad line, by name, and has written what comes before."""
    done = run(command, *args, stdin=data, fault=fault)
    first = NAMED.search(skipped.stderr)
    yield from endings(done, (65,) if first else (0,))
    if first and f"<stdin>:{first[1]}: " not in done.stderr:
        yield f"line {first[1]} is bad, but this is said: {done.stderr[-300:]}"
    before = sum(number < int(first[1]) for number in read_lines(data)) if first else skipped.stdout.count("\n")
    if done.stdout.count("\n") != before:
        yield f"{before} lines come before the first bad one, {done.stdout.count(chr(10))} are written"


# -- what reads all: a bad line a run ------------------------------------------------------------------------------


@functools.cache
def readers() -> dict[str, tuple[list[object], list[dict]]]:
    """Name -> arguments before the file, records to mutate one of. Trainers and new-model write into OUT."""
    at = folders()
    scored, policy = [*rewarded(5), *talks()], at.templated(at.policy)
    train = ["-o", "OUT", "--steps", 1, "--batch-size", 2]
    figures = [{**record, "logps": [-1.5] * 2, "ref_logps": [-2] * 2, "condition": f"c{i % 2}", "domain": "a",
                "toxicities": [0.5, 0.1]} for i, record in enumerate(rewarded(5, 2))]
    results = [{"method": name, "step": step, "kl": step * 0.5, "reward": {"mean": 1.0, "low": 0, "high": 2, "n": 3}}
               for name in ("exo", "dpo") for step in (1, 2)]
    return {name: ([*words, "--from"], rows) for name, (words, rows) in SETS.items()} | {
        "al-data chat": (["chat"], talks()),
        "al-data new-model": (["new-model", "OUT", "--size", "1m", "--vocab-size", 300], [*pairs(5), *talks()]),
        "al-sft": ([policy, *train], [*pairs(5), *talks()]),
        "al-train-rm": ([policy, *train], [*pairs(5), *talks()]),
        "al-train-exo": ([policy, *train], scored),
        "al-train-alt": ([policy, *train, "--quantiles", 2, "--tags", "Good.", "--tags", "Bad."], scored),
        "al-train-ppo": ([policy, *train, "--reward", "length", "-n", 2, "-m", 2], [*prompts(5), *talks()]),
        **{f"al-eval {what}": ([what], figures) for what in ("reward", "rm", "kl", "text", "conditions", "toxicity")},
        "al-eval winrate": (["winrate"], [{**record, "winner": i % 2} for i, record in enumerate(rewarded(5, 2))]),
        "al-eval table": (["table"], results[::2]), "al-eval frontier": (["frontier"], results),
        "al-eval curve": (["curve"], [{"step": step, "loss": 1 / step, "tokens": 9} for step in (1, 2, 3)]),
    }


def read_whole(name: str, lines: list[bytes], fault: str) -> tuple[Path, subprocess.CompletedProcess]:
    """Give it a file of these lines."""
    file, out = folders().new("rows").with_suffix(".jsonl"), folders().new("out")
    file.write_bytes(b"\n".join(lines) + b"\n")
    args = (out if word == "OUT" else word for word in readers()[name][0])
    return file, run(name.split()[0], *args, file, fault=fault)


def untouched(name: str) -> list[str]:
    """What is wrong before anything is mutated."""
    _, done = read_whole(name, [json.dumps(record).encode() for record in readers()[name][1]], "")
    return [*endings(done, (0,))]


# What is said of a line that another one leads to, where that is no longer found under its name.
MISSED = {"al-data oasst1": ": parent_id: no such message"}


def fuzz_reader(name: str, seed: int, fault: str = "") -> list[str]:
    """Give it a file with one mutated line: it takes that, or names it."""
    records = readers()[name][1]
    chance = Random(f"{name} {seed}")
    lines = [json.dumps(record).encode() for record in records]
    at = chance.randrange(len(lines))
    lines[at] = mutated(chance, records[at]).replace(b"\n", b"")
    file, done = read_whole(name, lines, fault)
    wrong = [*endings(done, (0, 65))]
    lost = name in MISSED and f"{MISSED[name]}\n" in done.stderr
    if not wrong and done.returncode and f"{file}:{at + 1}: " not in done.stderr and not lost:
        wrong = [f"line {at + 1} is not named: {done.stderr[-300:]}"]
    return [f"{name}, seed {seed}: {what}: {lines[at][:300]!r}" for what in wrong]


def faults(fuzz: Callable[..., list[str]], *args: Any, seeds: range, fault: str = "") -> list[str]:
    """What `fuzz` finds with all these seeds."""
    return [what for seed in seeds for what in fuzz(*args, seed=seed, fault=fault)]


# The names alone: of what they stand for models are made, and not before a test wants them.
FILTERS = ("al-pref2rw", "al-pref2rw chosen", "al-pref2rw pref", "al-pref2rw sft", "al-score toy", "al-score",
           "al-score logps", "al-sample", "al-args", "al-label-ai")
SETS = {f"al-data {words.split()[0]}": (words.split(), rows) for words, _, rows in outputs.SETS
        if isinstance(rows, list) and "--only" not in words and "--fraction" not in words}
READERS = (*SETS, "al-data chat", "al-data new-model", "al-sft", "al-train-rm", "al-train-exo", "al-train-alt",
           "al-train-ppo", *(f"al-eval {what}" for what in ("reward", "rm", "kl", "text", "conditions", "toxicity",
                                                            "winrate", "table", "frontier", "curve")))
