"""al-eval difference as a real process: what one method gets more than another, prompt by prompt."""

import json

import pytest

from helpers.evaluation import NONE, evaluate, record, refused, save
from helpers.process import call

NOISE = [0.7, -1.1, 0.2, 1.6, -0.4, 0.9, -2.0, 0.1]


def answers(tmp_path, name, rewards):
    """A file of one answer to each prompt."""
    records = [record(reward, prompt=f"p{place}") for place, reward in enumerate(rewards)]
    return save(tmp_path / f"{name}.jsonl", *records)


def checkpoints(tmp_path, name, points):
    """Records of checkpoints (KL, reward): every prompt has its noise, the same for all."""
    rows = [{"prompt": f"p{place}", "completions": ["x"], "rewards": [reward + noise], "logps": [kl - 3],
             "ref_logps": [-3.0], "step": step}
            for step, (kl, reward) in enumerate(points) for place, noise in enumerate(NOISE)]
    return save(tmp_path / f"{name}.jsonl", *rows)


def test_what_both_have_of_a_prompt_goes_out(tmp_path):
    """The prompts differ by more than one nat, the methods by a half on each: the interval has no width."""
    better = answers(tmp_path, "better", [noise + 0.5 for noise in NOISE])
    figures = evaluate("difference", f"a={better}", f"b={answers(tmp_path, 'plain', NOISE)}")
    assert figures["of"] == "a - b" and figures["difference"]["n"] == len(NOISE) and "kls" not in figures
    assert [figures["difference"][part] for part in ("mean", "low", "high")] == pytest.approx([0.5] * 3)


def test_the_interval_is_of_the_differences_and_several_answers_are_one_prompts(tmp_path):
    gaps = [0.0, 1.0] * 8
    first = save(tmp_path / "first.jsonl", *(
        {"prompt": f"p{place}", "completions": ["x", "y"], "rewards": [5 + gap - 1, 5 + gap + 1]}
        for place, gap in enumerate(gaps)))
    second = answers(tmp_path, "second", [5.0] * 16)
    figures = evaluate("difference", f"a={first}", f"b={second}", "--resamples", 4000)["difference"]
    assert figures["mean"] == pytest.approx(0.5)
    spread = 1.96 * 0.5 / 4  # of the mean of sixteen zeros and ones
    assert [figures["low"], figures["high"]] == pytest.approx([0.5 - spread, 0.5 + spread], abs=0.03)


def test_one_prompt_has_no_interval(tmp_path):
    """Nothing says how far another would lie; of two runs, that other runs would lie elsewhere."""
    a, b, c = (answers(tmp_path, name, [reward]) for name, reward in (("a", 2.0), ("b", 1.5), ("c", 1.0)))
    figures = evaluate("difference", f"a={a}", f"b={b}")
    assert figures["difference"] == figures["runs"][0] == {"mean": 0.5, "low": None, "high": None, "n": 1}
    figures = evaluate("difference", f"a={a}", f"b={b}", f"a={a}", f"b={c}")
    assert [(run["mean"], run["low"], run["high"]) for run in figures["runs"]] == [(0.5, None, None), (1, None, None)]
    both = [figures["difference"][part] for part in ("mean", "low", "high", "n")]
    assert both == pytest.approx([0.75, 0.75 - 12.7 / 4, 0.75 + 12.7 / 4, 2], rel=0.03)


def test_a_prompt_s_answers_count_by_their_mean_in_whichever_records_they_are(tmp_path):
    p, q = record(1.0, prompt="p"), record(0.0, prompt="q")
    apart = save(tmp_path / "apart.jsonl", p, q, record(3.0, 5.0, prompt="p"))
    together = save(tmp_path / "together.jsonl", record(1.0, 3.0, 5.0, prompt="p"), q)
    plain = save(tmp_path / "plain.jsonl", p, q)
    figures = evaluate("difference", f"a={apart}", f"b={plain}")
    assert figures["difference"]["mean"] == 1.0  # of 3 - 1 and 0 - 0
    assert evaluate("difference", f"a={together}", f"b={plain}") == figures


def test_other_runs_would_have_been_others(tmp_path):
    """Two runs, level within themselves, a nat apart: Student's t of one degree, 12.7 halves to each side."""
    plain = answers(tmp_path, "plain", NOISE)
    files = [f"a={answers(tmp_path, 'high', [noise + 1 for noise in NOISE])}", f"b={plain}", f"a={plain}", f"b={plain}"]
    figures = evaluate("difference", *files)
    assert [run["mean"] for run in figures["runs"]] == pytest.approx([1, 0])
    both = [figures["difference"][part] for part in ("mean", "low", "high")]
    assert both == pytest.approx([0.5, -5.85, 6.85], rel=0.03)
    same = evaluate("difference", *files[:2], *files[:2])["difference"]  # runs that agree say no more than one
    assert [same[part] for part in ("mean", "low", "high")] == pytest.approx([1, 1, 1])


def test_at_equal_kl_checkpoints_are_compared_where_both_are(tmp_path):
    """a: reward = KL + 1/2 at KLs 1, 2, 4; b: reward = KL at 0, 3: from 1 to 3 nats a is half a nat higher."""
    a = checkpoints(tmp_path, "a", [(1, 1.5), (2, 2.5), (4, 4.5)])
    b = checkpoints(tmp_path, "b", [(0, 0), (3, 3)])
    figures = evaluate("difference", f"a={a}", f"b={b}", "--at-equal-kl", "--set", "of_world=toy")
    assert figures["kls"] == [[1, 1.5, 2, 2.5, 3]] and figures["of_world"] == "toy"
    assert [figures["difference"][part] for part in ("mean", "low", "high")] == pytest.approx([0.5] * 3)
    last = evaluate("difference", f"a={a}", f"b={b}")["difference"]["mean"]  # the last steps, whatever they cost
    assert last == pytest.approx(1.5)


def test_what_goes_further_for_less_is_lower_there(tmp_path):
    """a falls from 2 to 0 between KLs 1 and 3, where b stays at 1: level on the mean."""
    a = checkpoints(tmp_path, "a", [(1, 2), (3, 0)])
    b = checkpoints(tmp_path, "b", [(1, 1), (3, 1)])
    figures = evaluate("difference", f"a={a}", f"b={b}", "--at-equal-kl")
    assert figures["difference"]["mean"] == pytest.approx(0, abs=1e-12)


def test_methods_that_reach_no_kl_in_common_have_no_difference(tmp_path):
    near = checkpoints(tmp_path, "near", [(0, 0), (1, 1)])
    far = checkpoints(tmp_path, "far", [(2, 2), (3, 3)])
    done = call("al-eval", "difference", f"a={near}", f"b={far}", "--at-equal-kl")
    figures = json.loads(done.stdout)
    assert "warning: no KL is reached by both: 0 to 1, 2 to 3" in done.stderr and done.returncode == 0
    assert figures["difference"] == NONE and figures["runs"] == [NONE] and figures["kls"] == [[]]
    high = checkpoints(tmp_path, "high", [(0, 1), (1, 2)])
    both = evaluate("difference", f"a={near}", f"b={far}", f"a={high}", f"b={near}", "--at-equal-kl")
    assert both["runs"][0] == NONE and both["difference"]["mean"] == pytest.approx(1)
    assert both["difference"]["n"] == len(NOISE)


def test_what_cannot_be_compared_is_named(tmp_path):
    one = answers(tmp_path, "one", NOISE)
    assert "two methods" in refused(2, "difference", one)
    assert "two methods" in refused(2, "difference", f"a={one}")
    assert "a has 2 runs, b 1" in refused(2, "difference", f"a={one}", f"a={one}", f"b={one}")
    short = answers(tmp_path, "short", NOISE[:-2])
    assert f"{short}: step 0 lacks 2 of the prompts" in refused(65, "difference", f"a={one}", f"b={short}")
    assert f"{one}:7: the files before do not have this prompt" in refused(65, "difference", f"a={short}", f"b={one}")
    assert "logps: missing" in refused(65, "difference", f"a={one}", f"b={one}", "--at-equal-kl")
    odd = save(tmp_path / "odd.jsonl", {**record(1.0, prompt="p0"), "step": "last"})
    assert "step: expected a number" in refused(65, "difference", f"a={odd}", f"b={one}")
    assert "no records" in refused(65, "difference", f"a={save(tmp_path / 'none.jsonl')}", f"b={one}")
