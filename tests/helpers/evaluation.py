"""al-eval run on records, its figures read."""

import json

from helpers.process import call

NONE = {"mean": None, "low": None, "high": None, "n": 0}


def jsonl(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def record(*rewards, prompt="p", **fields):
    return {"prompt": prompt, "completions": [f"{'w ' * (i + 1)}" for i in range(len(rewards))],
            "rewards": rewards, **fields}


def judged(winner=0, prompt="p", completions=(" aa", " bbbb"), **fields):
    """A record of two completions that were judged: `winner` 0, 1 or None."""
    return {"prompt": prompt, "completions": list(completions), "winner": winner, **fields}


def reward_gaps(n, scale=1.0, seed=0):
    """Preferred less other reward of n pairs, of a model whose rewards are `scale` times calibrated ones: (n,)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    log_odds = rng.normal(0, 1.5, n)
    preferred = rng.random(n) < 1 / (1 + np.exp(-log_odds))
    return scale * np.where(preferred, log_odds, -log_odds)


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
