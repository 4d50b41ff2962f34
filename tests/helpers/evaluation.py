"""al-eval run on records, its figures read."""

import json

from helpers.process import call

NONE = {"mean": None, "low": None, "high": None, "n": 0}


def jsonl(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def record(*rewards, prompt="p", **fields):
    return {"prompt": prompt, "completions": [f"{'w ' * (i + 1)}" for i in range(len(rewards))],
            "rewards": rewards, **fields}


def evaluate(*args, stdin=""):
    done = call("al-eval", *args, stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert "NaN" not in done.stdout
    return json.loads(done.stdout)


def refused(code, *args, stdin=""):
    """The one line on stderr of a run that must fail; a summary of nothing done may not follow."""
    done = call("al-eval", *args, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    return done.stderr.rstrip("\n")


def save(path, *records):
    path.write_text(jsonl(*records))
    return path
