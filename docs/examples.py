"""The examples of the commands' pages, docs/examples/NAME.txt: bash runs what stands behind `$`, the rest is printed.

They are run in one folder, one after the other in the order of STORY, as if someone went through all pages: what one
has made the next ones take. `make doc-examples` writes down what they print now; a test runs them, and compares.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from command_pages import EXAMPLES

STORY = ("al-data", "al-sft", "al-train-rm", "al-sample", "al-score", "al-pref2rw", "al-label-ai", "al-train-exo",
         "al-train-alt", "al-train-ppo", "al-args", "al-eval")
BY_A_MODEL = {"completions", "chosen", "rejected", "finish_reasons"}  # what another processor's rounding may change
OF_THE_CLOCK = re.compile("second")
THREADS = {"OMP_NUM_THREADS": "1"}  # sums of several round otherwise
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
TIME = re.compile(r" (s\b|(tokens|records)/s)")  # behind a number


def run(text: str, folder: Path, env: Mapping[str, str]) -> str:
    """The example with what its commands print in `folder` now, both streams together.

    Raises RuntimeError where a command fails.
    """
    printed = []
    for command in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=folder, env=env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"{command}: exit code {done.returncode}: {done.stdout}")
        printed += [f"$ {command}\n", done.stdout]
    return "".join(printed)


def difference(before: str, now: str) -> str | None:
    """The first line in which two runs differ by more than the clock and rounding, both of it; None: they do not."""
    lines, others = before.splitlines(), now.splitlines()
    for line, other in zip(lines, others, strict=False):
        if not alike(line, other):
            return f"{line}\n{other}"
    return None if len(lines) == len(others) else f"{len(lines)} lines, now {len(others)}"


def alike(line: str, other: str) -> bool:
    """Whether two printed lines say the same, but for the clock and for what rounding may do to a trained model."""
    if line.startswith("{") and other.startswith("{"):
        return same_value(json.loads(line), json.loads(other))
    line, other = plain(line), plain(other)
    if NUMBER.split(line) != NUMBER.split(other):
        return False
    pairs = zip(NUMBER.finditer(line), NUMBER.finditer(other), strict=True)
    return all(TIME.match(line, one.end()) or near(number(one[0]), number(two[0])) for one, two in pairs)


def plain(line: str) -> str:
    """Without what loading took, where that is said, and the width of columns."""
    return " ".join(re.sub(r" \+ [\d.]+ s loading", "", line).split())


def same_value(value: Any, other: Any, name: str = "") -> bool:
    """The same for a part of a record, under the key `name`."""
    if isinstance(value, dict) and isinstance(other, dict):
        return list(value) == list(other) and all(same_value(value[key], other[key], key) for key in value)
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(same_value(*pair, name) for pair in zip(value, other, strict=True))
    if isinstance(value, float | int) and isinstance(other, float | int):
        return bool(OF_THE_CLOCK.search(name)) or near(value, other)
    return type(value) is type(other) and (value == other or name in BY_A_MODEL)


def number(text: str) -> float:
    return float(text.replace(",", ""))


def near(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=0.3, abs_tol=0.3)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name in STORY:
            file = EXAMPLES / f"{name}.txt"
            print(name, file=sys.stderr)
            file.write_text(run(file.read_text(), Path(folder), os.environ | THREADS))
