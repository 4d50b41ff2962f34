"""The fuzzer's other kinds: options of every command, folders of models, answers of servers (see fuzz.py)."""

import functools
import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import click

from helpers.commands import folders, lines, pairs, prompts, rewarded, run
from helpers.faulty import CUT, DROP, Server, answer
from helpers.fuzz import FILTERS, READERS, endings, readers
from helpers.judging import right
from helpers.mutations import TEXTS, encode, mutate_bytes, mutate_value, mutated

# -- options -------------------------------------------------------------------------------------------------------

WORDS = ("", " ", "-", "--", "-1", "0", "1", "2", "0.5", "-0.5", "1e3", "1e999", "nan", "inf", "-inf", "1/2", "0/0",
         "3/2", "1,2", "0x10", "1_0", "\u0663", "10000000000000000000000", "a=b", "=", "\u00e9", "\udcff", "a\nb",
         "\x1b[31m", "/", "/dev/null", "/dev/full", ".", "missing/x", "{}", "[]", "[1]", '{"a": 1}', "null",
         "toy:overall", "%s", "{x}", "x" * 300)
# Options that serve, start other processes or engines, or do not end: nothing of what is checked here.
LEFT_OUT = {"serve_judge", "processes", "launch", "deepspeed", "backend", "base_url", "data_parallel",
            "help", "schema", "version", "verbose"}


COMMANDS = (*READERS, "al-data toy", *(name for name in FILTERS if name not in ("al-pref2rw chosen", "al-pref2rw sft",
                                                                               "al-pref2rw pref")))


@functools.cache
def whole_commands() -> dict[str, tuple[list[object], bytes]]:
    """Name -> arguments that a command needs, and its standard input. OUT: a new path."""
    at = folders()
    policy, reward = at.templated(at.policy), at.templated(at.reward)
    scored = lines(*rewarded(4))
    trained = {name: ([policy, *more, "-o", "OUT", "--steps", 1, "--batch-size", 2], data) for name, more, data in (
        ("al-sft", [], lines(*pairs(4))), ("al-train-rm", [], lines(*pairs(4))), ("al-train-exo", [], scored),
        ("al-train-alt", ["--quantiles", 2, "--tags", "Good.", "--tags", "Bad."], scored),
        ("al-train-ppo", ["--reward", "length", "-n", 2, "-m", 2], lines(*prompts(4))))}
    readers_of_all = {name: ([*args, "-"], lines(*records)) for name, (args, records) in readers().items()
                      if name.startswith(("al-data", "al-eval"))}
    return trained | readers_of_all | {
        "al-data toy": (["toy", "--limit", 3], b""),
        "al-pref2rw": ([], lines(*pairs(4))),
        "al-score toy": (["toy:overall"], scored),
        "al-score": ([reward], scored),
        "al-score logps": ([policy, "--logps"], scored),
        "al-sample": ([policy, "-m", 2], lines(*prompts(4))),
        "al-args": ([policy, reward, "-m", 2, "-k", 2], lines(*prompts(4))),
        "al-label-ai": (["--judge-rm", reward], lines(*rewarded(4, 2))),
    }


def options_of(name: str, words: list[object]) -> list[click.Option]:
    command = importlib.import_module(name.replace("-", "_")).main
    command = command.commands[str(words[0])] if isinstance(command, click.Group) else command
    return [option for option in command.params if isinstance(option, click.Option) and option.name not in LEFT_OUT]


def fuzz_options(name: str, seed: int, fault: str = "") -> list[str]:
    """One to three options that the command has, each with a value of its kind or of another."""
    args, data = whole_commands()[name]
    chance = Random(f"{name} {seed}")
    command = name.split()[0]
    more: list[str] = []
    for option in chance.sample(options_of(command, args), chance.choice((1, 1, 2, 3))):
        more.append(chance.choice(option.opts))
        if not option.is_flag:
            more += [chance.choice(WORDS) for _ in range(max(option.nargs, 1))]
            if isinstance(option.type, click.Choice) and chance.random() < 0.7:
                more[-1] = str(chance.choice(option.type.choices))
    home = folders().new("home")
    home.mkdir()
    words = [home / "OUT" if word == "OUT" else word for word in args]
    done = run(command, *words, *more, stdin=data, fault=fault, home=home)
    wrong = [*endings(done)]
    shutil.rmtree(home)
    return [f"{name}, seed {seed}: {what}: {' '.join(map(repr, more))}" for what in wrong]


# -- folders -------------------------------------------------------------------------------------------------------

FOLDERS = {"al-score": ("reward", [], rewarded), "al-score logps": ("policy", ["--logps"], rewarded),
           "al-sample": ("policy", ["-m", 2], prompts)}
# Files without which, or with whose content in ruins, a folder is no model.
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


def fuzz_folder(name: str, seed: int, fault: str = "") -> list[str]:
    """A model's folder of which one file is another: it is taken, or refused with 2 by its name; in ruins, refused."""
    kind, args, records = FOLDERS[name]
    chance = Random(f"{name} {seed}")
    at = folders()
    folder = at.without(at.templated(getattr(at, kind)))
    file = chance.choice([path for path in sorted(folder.iterdir()) if path.name != "chat_template.jinja"])
    what = spoil(chance, file)
    done = run(name.split()[0], folder, *args, stdin=lines(*records(2)), fault=fault)
    wrong = [*endings(done, (0, 2))]
    if not wrong and done.returncode and str(folder) not in done.stderr:
        wrong = [f"the folder is not named: {done.stderr[-300:]}"]
    if done.returncode == 0 and what in ("gone", "empty", "a list", "cut") and file.name in NEEDED:
        wrong.append("taken for a model")
    shutil.rmtree(folder)
    return [f"{name}, seed {seed}: {say}: {file.name}: {what}" for say in wrong]


def spoil(chance: Random, file: Path) -> str:
    """Change a file; in words, how."""
    kind = chance.randrange(8)
    data = file.read_bytes()
    if kind == 0:
        file.unlink()
        return "gone"
    if kind == 1:
        file.write_bytes(b"")
        return "empty"
    if kind == 2:
        file.write_bytes(data[:chance.randrange(len(data) // 2)])
        return "cut"
    if file.suffix != ".json":  # its header, which is JSON of that many bytes
        size = int.from_bytes(data[:8], "little")
        header = mutated(chance, json.loads(data[8:8 + size])) if kind < 7 else mutate_bytes(chance, data[8:8 + size])
        file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size:])
        return f"header {header[:200]!r}"
    if kind == 3:
        file.write_bytes(b"[]")
        return "a list"
    if kind == 4:
        file.write_bytes(mutate_bytes(chance, data))
        return "bytes"
    before = json.loads(data)
    if file.name == "tokenizer.json":  # of its many tokens none is worth a try
        before["model"]["vocab"] = dict(list(before["model"]["vocab"].items()))
    owner = chance.choice(list(before))
    after = mutate_value(chance, before[owner]) if kind < 7 else mutate_value(chance, chance.choice(TEXTS))
    file.write_bytes(encode(chance, {**before, owner: after}))
    return f"{owner}: {encode(chance, after)[:200]!r}"


# -- answers -------------------------------------------------------------------------------------------------------

STATUS = (200, 200, 200, 200, 200, 200, 200, 204, 302, 400, 408, 413, 422, 429, 500, 502, 503, 529, 999)
FOR_ALL = (401, 403, 404)  # after which no other call is worth its time: the run ends
HEADERS: tuple[dict[str, str], ...] = (
    {}, {}, {}, {}, {"Content-Type": "text/html"}, {"Content-Type": ""}, {"Content-Encoding": "gzip"},
    {"Content-Type": "application/json; charset=latin-1"}, {"Retry-After": "soon"}, {"Retry-After": "-1"},
    {"Retry-After": "1e999"}, {"Content-Length": "3"}, {"Location": "http://127.0.0.1:9/"}, {"X-Odd": "\x1b[31m"})
SERVED = {
    "al-label-ai": ["--judge", "overall"],
    "al-label-ai rate": ["--judge", "overall", "--mode", "rate"],
    "al-sample": ["m", "--backend", "openai", "-n", 2, "-m", 4],
}


def fuzz_answers(name: str, count: int, seed: int, fault: str = "") -> list[str]:
    """Records for which a server answers, most of its answers mutated: each record is written, or put aside by name."""
    command = name.split()[0]

    def script(request: dict, nth: int) -> Any:
        chance = Random(f"{name} {seed} {json.dumps(request, sort_keys=True)}")
        body = json.loads(right(request)[2]) if command == "al-label-ai" else answer(request)
        if chance.random() < 0.2:
            return 200, {}, json.dumps(body).encode()
        if chance.random() < 0.05:
            return chance.choice((DROP, CUT))
        status = chance.choice(FOR_ALL if chance.random() < 0.002 else STATUS)
        return status, chance.choice(HEADERS), mutated(chance, body)

    data = lines(*(rewarded(count, 2) if command == "al-label-ai" else prompts(count)))
    with Server(script) as server:
        done = run(command, *SERVED[name], "--base-url", server.url, "--retries", 0, "--on-error", "skip",
                   "--timeout", 5, stdin=data, fault=fault)
    wrong = [*endings(done, (0, 1)), *answered(done, count)]
    return [f"{name}, {count} records, seed {seed}: {what}" for what in wrong]


def answered(done: Any, count: int) -> Iterator[str]:
    """Where the run goes on, as it does unless all calls must fail, no record is lost."""
    written, aside = done.stdout.count("\n"), done.stderr.count("\nskipped ") + done.stderr.startswith("skipped ")
    if done.returncode == 0 and written + aside != count:
        yield f"{count} read, but {written} written and {aside} put aside"
    for line in done.stdout.splitlines():
        try:
            json.loads(line, parse_constant=lambda name: name / 0)
        except (ValueError, TypeError) as error:
            yield f"written is not valid ({error}): {line[:200]}"


