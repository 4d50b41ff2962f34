"""Answers to the same prompts side by side, ten prompts by seed: python examples/answers.py NAME=SCORED.jsonl..."""

import json
import random
import sys


def read(path: str) -> list[dict]:
    with open(path) as file:
        return [json.loads(line) for line in file]


named = {name: read(path) for name, path in (argument.split("=", 1) for argument in sys.argv[1:])}
first = next(iter(named.values()))


def last_words(record: dict) -> str:
    """What was said last, in one line."""
    said = record["messages"][-1]["content"] if "messages" in record else record["prompt"]
    return " ".join(said.split())


for place in sorted(random.Random(0).sample(range(len(first)), min(10, len(first)))):
    print("## " + last_words(first[place]), end="\n\n")
    for name, records in named.items():
        print(f"- {name} ({records[place]['rewards'][0]:+.2f}): " + " ".join(records[place]["completions"][0].split()))
    print()
