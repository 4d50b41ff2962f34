"""al-args with reward models of next tokens: what it writes, grids, resumed runs, and what it refuses."""

import functools

import pytest

from helpers.commands import folders, lines, one_line, prompts, read, run
from helpers.guided import M, ending
from helpers.kills import filter_job, survive

pytestmark = pytest.mark.slow


@functools.cache
def next_token(weights: str = "other") -> str:
    return str(folders().saying(getattr(folders(), weights), reward_kind="next-token"))


@functools.cache
def vocabulary() -> str:
    return str(folders().saying(folders().other, reward_kind="vocabulary"))


def guided(records, *more, rewards=("1.5",), lm=None, rms=None) -> list[dict]:
    """By next-token reward models of these weights."""
    named = rms or [next_token()] * len(rewards)
    how = [word for weight, rm in zip(rewards, named, strict=True) for word in ("--reward", f"{weight}:{rm}")]
    done = run("al-args", lm or folders().policy, "--method", "next-token", *how, *M, *more, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def by_values(records, *more, lm=None) -> list[dict]:
    done = run("al-args", lm or folders().policy, vocabulary(), *M, *more, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def test_nothing_after_one_token_has_a_reward():
    """A stop string may leave a completion empty: what would come next is what its prompt is worth then."""
    done = run("al-args", folders().policy, vocabulary(), "-m", 6, *(word for letter in "abcdefghijklmnopqrstuvwxyz "
               for word in ("--stop", letter)), stdin=lines({"prompt": ""}))
    (made,) = read(done.stdout)
    assert isinstance(made["rewards"][0], float)


def refused(*args, code=2, stdin=b'{"prompt": "Hi"}\n') -> str:
    done = run("al-args", *args, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return one_line(done.stderr)


def test_one_line_in_one_line_out(tmp_path):
    record = {"mine": 1, "prompt": "\n\nHuman: Hi\n\nAssistant:", "rewards": [3], "completions": ["old"], "id": "7"}
    (made,) = guided([record])
    assert list(made) == ["mine", "prompt", "id", "completions", "finish_reasons", "rewards"]
    (made,) = guided([record], "--ids", "--time", "-n", 2)
    assert list(made)[3:] == ["completions", "finish_reasons", "rewards", "completion_ids", "end_ids", "seconds"]
    assert all(len(made[name]) == 2 for name in list(made)[3:])
    (tmp_path / "in").write_bytes(lines(record))  # what stands behind LM is input
    done = run("al-args", folders().policy, tmp_path / "in", tmp_path / "in", "--method", "next-token", "--reward",
               next_token(), *M)
    assert done.returncode == 0 and len(read(done.stdout)) == 2, done.stderr


@pytest.mark.parametrize("how", [("-t", 0), ("-n", 2, "--top-p", 0.9), ("-n", 2, "-k", 20, "--stop", "the")])
@pytest.mark.parametrize("end", [(), ("--end", "none")])
def test_rewards_are_al_scores(how, end):
    made = guided(prompts(20), "--ids", *how, *end, lm=ending())
    scored = run("al-score", next_token(), *end, stdin=lines(*made))
    for one, other in zip(made, read(scored.stdout), strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-3)
    assert {reason for record in made for reason in record["finish_reasons"]} == {"stop", "length"}


@pytest.mark.parametrize("how", [(), ("--margin", 0.5), ("--weight", 0), ("--method", "stochastic", "-n", 2),
                                 ("--stop", "the"), ("--end", "none")])
def test_rewards_by_a_vocabulary_head_are_al_scores(how):
    made = by_values(prompts(20), "--ids", *how, lm=ending())
    scored = run("al-score", vocabulary(), *(how if how[:1] == ("--end",) else ()), stdin=lines(*made))
    assert scored.returncode == 0, scored.stderr
    for one, other in zip(made, read(scored.stdout), strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-3)


def test_several_rewards_are_weighed():
    records, two = prompts(6), [next_token(), next_token("policy")]
    made = guided(records, "--ids", "-t", 0, rewards=("2", "-0.5"), rms=two)
    scored = [[record["rewards"][0] for record in read(run("al-score", rm, stdin=lines(*made)).stdout)] for rm in two]
    wanted = [2 * one - 0.5 * other for one, other in zip(*scored, strict=True)]
    assert [record["rewards"][0] for record in made] == pytest.approx(wanted, abs=1e-3)
    assert guided(records, "-t", 0, rewards=("2",)) != guided(records, "-t", 0, rewards=("2", "-0.5"), rms=two)


def test_without_weight_it_is_al_sample():
    """Any policy may be a reward model here, and the draws are al-sample's, by number, top-k and top-p."""
    how = ("-n", 2, "-t", 0.8, "--seed", 3, "--top-p", 0.9)
    sampled = read(run("al-sample", folders().policy, *M, *how, "--top-k", 20, stdin=lines(*prompts(6))).stdout)
    made = guided(prompts(6), *how, "-k", 20, rewards=("0",), rms=[folders().other])
    assert [record["completions"] for record in made] == [record["completions"] for record in sampled]
    sampled = read(run("al-sample", folders().policy, *M, "--greedy", stdin=lines(*prompts(6))).stdout)
    assert [r["completions"] for r in by_values(prompts(6), "--weight", 0)] == [r["completions"] for r in sampled]


def test_windows_and_batches_change_no_draw():
    for decode, how in ((guided, ("-n", 2)), (by_values, ("--method", "stochastic", "-n", 2))):
        texts = [record["completions"] for record in decode(prompts(7), *how)]
        for same in (("--window", 2), ("--batch-tokens", 300)):
            assert [record["completions"] for record in decode(prompts(7), *how, *same)] == texts
        assert [record["completions"] for record in decode(prompts(7), *how, "--seed", 1)] != texts


def test_messages_are_rendered_by_each_models_template():
    messages = [{"messages": [{"role": "user", "content": "Hello"}]}]
    (made,) = guided(messages, lm=folders().templated(folders().policy), rms=[folders().templated(next_token())])
    (plain,) = guided([{"prompt": "[user] Hello\n[bot]"}])
    assert made["completions"] == plain["completions"]
    assert made["rewards"] == pytest.approx(plain["rewards"], abs=1e-4)


def test_the_summary_counts_tokens_and_questions():
    done = run("al-args", folders().policy, "--method", "next-token", "--reward", f"1:{next_token()}", "--reward",
               f"1:{folders().policy}", *M, "--ids", stdin=lines(*prompts(3)))
    drawn = sum(len(record["completion_ids"][0]) + (record["finish_reasons"] == ["stop"])
                for record in read(done.stdout))
    assert f"3 records, 3 completions, {drawn} tokens, {2 * drawn} reward calls" in done.stderr


# -- grids, kills, shards -----------------------------------------------------------------------------------------


def test_a_grid_over_weights(tmp_path):
    grid = [{"weights": [0.5]}, {"weights": [2], "temperature": 0, "topk": 0}, {"top_p": 0.8, "topk": 9}]
    (tmp_path / "grid").write_bytes(lines(*grid))
    made = guided(prompts(5), "--grid", tmp_path / "grid", "--ids")
    said = {"method": "next-token", "weights": [1.5], "topk": 0, "top_p": 1.0, "temperature": 1.0}
    assert [record["search"] for record in made[:3]] == [{**said, **line} for line in grid]
    alone = [guided(prompts(5), "--ids", rewards=("0.5",)), guided(prompts(5), "--ids", "-t", 0, rewards=("2",)),
             guided(prompts(5), "--ids", "--top-p", 0.8, "-k", 9)]
    for i, wanted in enumerate(alone):
        assert [{k: v for k, v in record.items() if k != "search"} for record in made[i::3]] == wanted


@pytest.mark.parametrize("line, said", [
    ('{"weights": [1, 2]}', "weights: 2 for 1 of --reward"),
    ('{"weights": 1}', "weights: expected an array of numbers"),
    ('{"weights": ["1"]}', 'weights[0]: expected a number, got "1"'),
    ('{"topk": -1}', "topk: expected a whole number of at least 1, got -1"),
    ('{"top_p": 0}', "top_p: expected a number above 0"),
    ('{"weight": 1}', "weight: does nothing for method next-token"),
    ('{"method": "greedy"}', "method: next-token goes with --reward, the others with RM"),
])
def test_a_bad_line_of_a_grid_is_named(tmp_path, line, said):
    (tmp_path / "grid").write_text(line + "\n")
    message = refused(folders().policy, "--method", "next-token", "--reward", next_token(), "--grid", tmp_path / "grid",
                      code=65)
    assert f"grid:1: {said}" in message


def test_resume_knows_its_input_by_its_bytes(tmp_path):
    (tmp_path / "in").write_bytes(lines(*prompts(3)) + b"bad\n")
    call = ("--method", "next-token", "--reward", f"1:{next_token()}", *M, "--window", 2, "-o", tmp_path / "out")
    assert run("al-args", folders().policy, tmp_path / "in", *call).returncode == 65
    (tmp_path / "in").rename(tmp_path / "moved")
    done = run("al-args", folders().policy, tmp_path / "moved", *call, "--resume")
    assert done.returncode == 65 and "moved:4: broken JSON" in one_line(done.stderr)
    other = [f"2:{next_token()}" if word == f"1:{next_token()}" else word for word in call]
    done = run("al-args", folders().policy, tmp_path / "moved", *other, "--resume")
    assert done.returncode == 2 and "made with other options or another model" in one_line(done.stderr)
    mine = folders().changed(next_token(), lambda weights: weights["model.norm.weight"].mul_(2))
    again = [f"1:{mine}" if word == f"1:{next_token()}" else word for word in call]
    done = run("al-args", folders().policy, tmp_path / "moved", *again, "--resume")
    assert done.returncode == 2 and "made with other options or another model" in one_line(done.stderr)


@pytest.mark.long
@pytest.mark.parametrize("method", ["next-token", "stochastic"])
def test_killed_and_resumed(tmp_path, method):
    records = [record if i % 7 != 3 else {"prompt": i} for i, record in enumerate(prompts(24))]
    how = ("--method", "next-token", "--reward", next_token()) if method == "next-token" else (
        vocabulary(), "--method", method)
    job = filter_job(tmp_path, "al-args", lines(*records), folders().policy, *how, *M, "--window", 5,
                     "--batch-tokens", 150, "-n", 2, "--ids", skip=True)
    survive(job, 2, seed=6)


# -- what cannot be -----------------------------------------------------------------------------------------------


def test_what_cannot_guide_is_refused(tmp_path):
    lm, rm = folders().policy, next_token()
    together = "--method next-token and --reward WEIGHT:RM go together"
    for args, said in (
        ((lm, folders().reward, "--reward", rm), together), ((lm, rm, "--method", "next-token"), together),
        ((lm,), "Missing argument 'RM'"),
        ((lm, rm), f"{rm}: a next-token reward model is asked about next tokens: it goes with --method next-token"),
        ((lm, rm, "--method", "best-of-n"), f"{rm}: a next-token reward model is asked about next tokens"),
        ((lm, vocabulary(), "--method", "best-of-n"),
         f"{vocabulary()}: a vocabulary reward model is asked about next tokens: it goes with greedy and stochastic"),
        ((lm, vocabulary(), "--method", "segment"), "it goes with greedy and stochastic"),
        ((lm, vocabulary(), "--score-end", "text"), "--score-end: "),
        ((lm, vocabulary(), "-k", 100_000), "topk 100000: the models know"),
    ):
        assert said in refused(*args), args
    with_reward = (lm, "--method", "next-token", "--reward")
    for args, said in (
        ((f"1:{folders().reward}",), f"{folders().reward}: a reward model (sequence classifier); a policy is needed"),
        ((f"1:{vocabulary()}",), f"{vocabulary()}: a reward model of values (--head vocabulary): it stands behind LM"),
        (("length",), "--reward length: a program judges whole texts, not next tokens"),
        (("1:",), "1:: a weight, and no reward's name behind it"),
        ((f"1:{tmp_path}",), "config.json"),
        ((rm, "--margin", 1), "--margin does nothing for --method next-token"),
        ((rm, "--weight", 1), "--weight does nothing for --method next-token"),
        ((rm, "--score-end", "text"), "--score-end does nothing for --method next-token"),
        ((rm, "--timeout", 3), "--timeout goes with cmd:PROGRAM"),
    ):
        assert said in refused(*with_reward, *args), args


def test_another_vocabulary_is_refused(tmp_path):
    from helpers import tiny

    other = tiny.save(tiny.causal("llama"), tmp_path / "other")
    said = refused(folders().policy, "--method", "next-token", "--reward", f"1:{other}")
    assert said == f"al-args: {other}: its tokenizer is not that of {folders().policy}"


def test_weights_that_are_not_finite_are_named():
    broken = folders().broken(next_token())
    done = run("al-args", folders().policy, "--method", "next-token", "--reward", f"1:{broken}", stdin=b"bad\n")
    assert done.returncode == 2
    assert f"al-args: {broken}: model.norm.weight has values that are not finite" in done.stderr
