"""Judges that ask no question: a reward model by its scores, a program by its numbers."""

import pytest

from al_label_ai.answers import NEITHER, A, B
from al_label_ai.reward_judge import better
from helpers.commands import folders, lines, one_line, read, run
from helpers.judging import pairs


def test_the_better_score_is_the_better_one():
    assert [better(*scores)["verdict"] for scores in ((2, 1), (-1, 0), (3, 3.0))] == [A, B, NEITHER]


@pytest.mark.slow
def test_a_reward_model_judges_as_it_scores():
    records = pairs(8)
    scored = read(run("al-score", folders().reward, stdin=lines(*records)).stdout)
    done = run("al-label-ai", "--judge-rm", folders().reward, stdin=lines(*records))
    expected = [int(record["rewards"][1] > record["rewards"][0]) for record in scored]
    assert [record["winner"] for record in read(done.stdout)] == expected, done.stderr
    assert {record["orders_agree"] for record in read(done.stdout)} == {None} and len(set(expected)) == 2
    assert " tokens, " in done.stderr


@pytest.mark.slow
def test_models_that_are_no_judges():
    for model, message in ((folders().policy, "reward model"), (folders().classifier, "no reward model")):
        done = run("al-label-ai", "--judge-rm", model, stdin=lines(*pairs(1)))
        assert done.returncode == 2 and message in one_line(done.stderr)
    done = run("al-label-ai", "--judge-rm", folders().broken(folders().reward), stdin=lines(*pairs(1)))
    assert done.returncode == 1 and "<stdin>:1: " in done.stderr and "not finite" in done.stderr


FUNCTION = """
def length(record, completions):
    return [len(text) if record.get("fine", True) else None for text in completions]
"""


@pytest.mark.slow
def test_a_program_judges(tmp_path):
    """By the numbers that al-score gets of it; what it fails at is named, or put aside with the bad lines."""
    (tmp_path / "length_rewards.py").write_text(FUNCTION)
    program = f"py:{tmp_path}/length_rewards.py:length"
    records = pairs(4)
    done = run("al-label-ai", "--judge-rm", program, stdin=lines(*records))
    lengths = [[*map(len, record["completions"])] for record in records]
    expected = [None if one == two else int(two > one) for one, two in lengths]
    assert [record["winner"] for record in read(done.stdout)] == expected and len(set(expected)) > 1, done.stderr
    records[2]["fine"] = False
    done = run("al-label-ai", "--judge-rm", program, stdin=lines(*records))
    assert done.returncode == 1 and len(read(done.stdout)) == 2
    assert f"<stdin>:3: {program}: completions[0]: expected a finite number, got None" in one_line(done.stderr)
    done = run("al-label-ai", "--judge-rm", program, "--on-error", "skip", stdin=lines(*records))
    assert done.returncode == 0 and len(read(done.stdout)) == 3 and "1 skipped" in done.stderr


@pytest.mark.parametrize(("args", "message"), [
    (("length", "--mode", "rate"), "--judge-rm compares: it goes with --mode pair"),
    (("length", "--device", "cpu"), "--device goes with a model's folder"),
    (("length", "--timeout", "3"), "--timeout goes with a server"),
    (("cmd:cat", "--retries", "3"), "--retries goes with a server"),
    (("cmd:no-such-program", "--timeout", "3"), "no-such-program: no such program"),
    (("py:none.py:f",), "none.py: no such file"),
])
def test_what_would_do_nothing_is_refused(args, message):
    done = run("al-label-ai", "--judge-rm", *args, stdin=lines(*pairs(1)))
    assert (done.returncode, done.stdout) == (2, "") and message in one_line(done.stderr)
