"""What a record costs in the filters without a model: processor time beside a bare loop through the JSON parser."""

import os
import subprocess
import sys
from pathlib import Path

import orjson

from alignlib.toy import world
from helpers.process import command, environment

COPY = """
import orjson, sys
for line in open(sys.argv[1], "rb"):
    sys.stdout.buffer.write(orjson.dumps(orjson.loads(line), option=orjson.OPT_APPEND_NEWLINE))
"""
RECORDS, ROUNDS = 50_000, 3


def seconds(args: list[str]) -> float:
    """Processor time of one run, by user and system."""
    with subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


def test_a_record_costs_little(tmp_path: Path):
    """The quickest of the rounds, in turns; less what each takes with no records."""
    pairs, groups, none = (tmp_path / name for name in ("pairs", "groups", "none"))
    records = list(world.records("dialogue", limit=RECORDS // 10)) * 10
    pairs.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    groups.write_bytes(b"".join(orjson.dumps({"prompt": record["prompt"], "completions": [record["chosen"],
                                                                                        record["rejected"]]}) + b"\n"
                                for record in records))
    none.write_bytes(b"")
    ways = {"bare": ([sys.executable, "-c", COPY], pairs), "al-pref2rw": (command("al-pref2rw"), pairs),
            "al-score toy:overall": (command("al-score", "toy:overall"), groups)}
    costs = {name: [float("inf")] * 2 for name in ways}
    for _ in range(ROUNDS):
        for name, (args, file) in ways.items():
            costs[name] = [min(cost, seconds([*args, str(path)]))
                           for cost, path in zip(costs[name], (file, none), strict=True)]
    each = {name: (whole - start) / RECORDS for name, (whole, start) in costs.items()}
    print()
    for name, cost in each.items():
        print(f"{name:20} {cost * 1e6:5.1f} us a record, {cost / each['bare']:4.1f} times a bare copy")
    assert each["al-pref2rw"] < 8 * each["bare"] and each["al-score toy:overall"] < 40 * each["bare"]
