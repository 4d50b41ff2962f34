"""Best-of-n by a program: al-sample's texts, the one with the best number of each completion's candidates."""

import pytest

from helpers.commands import folders, lines, one_line, prompts, read, run
from helpers.guided import M, guided, refused

pytestmark = pytest.mark.slow

FUNCTION = """
def spaces(record, completions):
    assert len(completions) == len(record["finish_reasons"]) and "rewards" not in record
    if record.get("bad"):
        raise ValueError("a bad record")
    return [text.count(" ") for text in completions]
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "space_rewards.py").write_text(FUNCTION)
    return f"py:{tmp_path}/space_rewards.py:spaces"


def test_best_of_n_is_the_best_of_al_samples(program):
    records = [{**record, "completions": ["old"], "rewards": [1]} for record in prompts(5)]
    how = ("-t", 0.8, "--seed", 3)
    sampled = run("al-sample", folders().policy, *M, "-n", 6, *how, "--ids", stdin=lines(*records)).stdout
    scored = read(run("al-score", program, stdin=sampled).stdout)
    made = guided(records, "--method", "best-of-n", "--best-of", 3, "-n", 2, *how, "--ids", "--time", rm=program)
    for one, six in zip(made, scored, strict=True):
        best = [max(part, key=six["rewards"].__getitem__) for part in (range(3), range(3, 6))]
        for name in ("completions", "rewards", "finish_reasons", "completion_ids", "end_ids"):
            assert one[name] == [six[name][place] for place in best], name
        assert all(share > 0 for share in one["seconds"])


def test_settings_of_a_grid_and_a_resumed_run(program, tmp_path):
    (tmp_path / "grid").write_bytes(lines({"best_of": 1}, {"best_of": 4}))
    (tmp_path / "in").write_bytes(lines(*prompts(3)))
    how = ("--method", "best-of-n", "--grid", tmp_path / "grid")
    made = guided(prompts(3), *how, rm=program)
    assert [record["search"]["best_of"] for record in made] == [1, 4] * 3
    assert all(one["rewards"][0] <= four["rewards"][0] for one, four in zip(made[::2], made[1::2], strict=True))
    args = (folders().policy, program, *M, *how, tmp_path / "in", "-o", tmp_path / "out")
    assert run("al-args", *args).returncode == 0 and read((tmp_path / "out").read_text()) == made
    assert "complete: nothing to resume" in run("al-args", *args, "--resume").stderr


def test_what_it_fails_at_is_named_or_put_aside(program):
    records = prompts(3)
    records[1]["bad"] = True
    args = (folders().policy, program, *M, "--method", "best-of-n", "--best-of", 2)
    done = run("al-args", *args, stdin=lines(*records))
    assert done.returncode == 1 and len(read(done.stdout)) == 1
    assert f"<stdin>:2: {program}: ValueError: a bad record (space_rewards.py:5)" in one_line(done.stderr)
    done = run("al-args", *args, "--on-error", "skip", stdin=lines(*records))
    assert done.returncode == 0 and [record["id"] for record in read(done.stdout)] == [
        records[0]["id"], records[2]["id"]]
    message = refused("--method", "best-of-n", rm="math", code=65)
    assert "<stdin>:1: answer: missing" in message


@pytest.mark.parametrize(("args", "message"), [
    ((), "length: a program judges whole texts: it goes with --method best-of-n, not greedy"),
    (("--method", "segment"), "not segment"),
    (("--method", "best-of-n", "--rm-device", "cpu"), "--rm-device goes with a reward model, not with length"),
    (("--method", "best-of-n", "--end", "token"), "--end goes with a reward model"),
    (("--method", "best-of-n", "--timeout", 3), "--timeout goes with cmd:PROGRAM"),
])
def test_what_would_do_nothing_is_refused(args, message):
    assert message in refused(*args, rm="length")
