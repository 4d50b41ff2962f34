"""al-pref2rw's speed: MB/s of records as long as HH's, beside a bare copy through the same JSON parser."""

import random
import subprocess
import sys
import time

import orjson
import pytest

from helpers.process import command, environment

COPY = """
import orjson, sys
out = sys.stdout.buffer
for line in sys.stdin.buffer:
    out.write(orjson.dumps(orjson.loads(line), option=orjson.OPT_APPEND_NEWLINE))
"""
MEGABYTES = 200


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, object]:
    """A file of preferences, about 1 kB a record as in HH, and one of four rewarded completions each."""
    draw, folder = random.Random(1), tmp_path_factory.mktemp("bench")
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randrange(1, 9))) for _ in range(2000)]
    words += ["\n\nHuman:", "\n\nAssistant:", '"well,"', "it’s"]

    def text(mean: int) -> str:
        return " ".join(draw.choices(words, k=draw.randrange(mean // 2, mean * 3 // 2)))

    pairs = [{"prompt": text(100), "chosen": text(40), "rejected": text(40)} for _ in range(2000)]
    groups = [{"prompt": text(80), "completions": [text(30) for _ in range(4)],
               "rewards": [draw.gauss(0, 1) for _ in range(4)]} for _ in range(2000)]
    files = {}
    for name, records in (("rw", pairs), ("pref", groups)):
        data = b"".join(orjson.dumps(record) + b"\n" for record in records)
        files[name] = folder / name
        with open(files[name], "wb") as handle:
            for _ in range(MEGABYTES * 10**6 // len(data)):
                handle.write(data)
    return files


def rate(args: list[str], path) -> float:
    """MB/s of input, best of three; start-up included."""
    best = 0.0
    for _ in range(3):
        with open(path, "rb") as source:
            start = time.perf_counter()
            subprocess.run(args, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
                           env=environment())
            best = max(best, path.stat().st_size / 1e6 / (time.perf_counter() - start))
    return best


@pytest.mark.parametrize(("to", "target"), [("rw", "stdout"), ("pref", "stdout"), ("rw", "-o"), ("pref", "-o")])
def test_megabytes_a_second(inputs, tmp_path, to, target):
    args = ["--to", to, *(["-o", tmp_path / "out"] if target == "-o" else [])]
    ours, copy = rate(command("al-pref2rw", *args), inputs[to]), rate([sys.executable, "-c", COPY], inputs[to])
    kind = "with state" if target == "-o" else "to stdout "
    print(f"\nal-pref2rw --to {to:4} {kind}: {ours:4.0f} MB/s; a bare copy through orjson {copy:4.0f}: "
          f"{ours / copy:.2f} of it")
    assert ours > 100


def test_the_first_record(inputs):
    """The first record is out after start-up, whatever the input's size."""
    with open(inputs["rw"], "rb") as source:
        start = time.perf_counter()
        with subprocess.Popen(command("al-pref2rw"), stdin=source, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, env=environment()) as process:
            assert process.stdout.readline()
            first = time.perf_counter() - start
            process.kill()
    print(f"\nal-pref2rw: first record after {first * 1000:.0f} ms")
    assert first < 1
