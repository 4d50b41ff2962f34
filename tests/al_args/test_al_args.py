"""al-args: what it writes, what it refuses, and that a resumed run is the run."""

import json
import subprocess

import pytest

from alignlib.records.stream import Stream
from helpers.commands import CONTEXT, folders, lines, one_line, pairs, prompts, read, run
from helpers.guided import M, ending, guided, refused
from helpers.kills import filter_job, survive
from helpers.process import command, environment

pytestmark = pytest.mark.slow

# -- records ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_line_in_one_line_out():
    record = {"mine": {"x": [None, 1.5]}, "prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello.", "id": "7"}
    (made,) = guided([record])
    assert list(made.items())[:4] == list(record.items())
    assert list(made)[4:] == ["completions", "finish_reasons", "rewards"]
    (made,) = guided([record], "--ids", "--time", "-n", 2, "--method", "stochastic")
    assert list(made)[4:] == ["completions", "finish_reasons", "rewards", "completion_ids", "end_ids", "seconds"]
    assert all(len(made[name]) == 2 for name in list(made)[4:])
    assert all(type(share) is float and share > 0 for share in made["seconds"])
    assert made["completions"][0] != made["completions"][1]


@pytest.mark.slow
def test_old_completions_go_with_all_that_went_with_them():
    old = {"prompt": "p", "completions": ["a"], "rewards": [1], "logps": [-1], "condition": "old", "id": "7",
           "search": {"method": "greedy"}, "seconds": [1.0]}
    (made,) = guided([old])
    assert set(made) == {"prompt", "id", "completions", "finish_reasons", "rewards"}


@pytest.mark.parametrize("how", [("--method", "greedy"), ("--method", "best-of-n", "--best-of", 1)])
@pytest.mark.slow
def test_old_completions_say_nothing_of_new_ones(how):
    """Nor how many there are, nor what ended them: to a reward model that reads ends these have theirs."""
    rm, how = folders().saying(folders().reward, reads_eos=True), (*how, "-n", 2, "--ids")
    bare = guided(prompts(25), *how, lm=ending(), rm=rm)
    assert {reason for record in bare for reason in record["finish_reasons"]} == {"stop", "length"}
    for one, other in zip(bare, read(run("al-score", rm, stdin=lines(*bare)).stdout), strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-4)
    for old in (["a"], ["a", "b"]):
        went = {"completions": old, "finish_reasons": ["length"] * len(old), "completion_ids": [[5]] * len(old),
                "end_ids": [None] * len(old)}
        assert guided([{**record, **went} for record in prompts(25)], *how, lm=ending(), rm=rm) == bare


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("method", ["greedy", "stochastic", "best-of-n", "segment"])
@pytest.mark.slow
def test_rewards_are_al_scores_and_ids_decode_to_the_text(method, others):
    """`others`: a reward model that al-train-rm did not make, which reads whole conversations."""
    rm = folders().saying(folders().templated(folders().reward), reads_eos=None) if others else folders().reward
    lm = folders().templated(ending()) if others else ending()
    records = [{"messages": [{"role": "user", "content": record["prompt"]}]} for record in prompts(25)]
    made = guided(records if others else prompts(25), "--method", method, "--ids", "-n", 2, lm=lm, rm=rm)
    assert others or {reason for record in made for reason in record["finish_reasons"]} == {"stop", "length"}
    scored = run("al-score", rm, stdin=lines(*made))
    for one, other in zip(made, read(scored.stdout), strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-4)
        columns = (one[name] for name in ("completions", "completion_ids", "end_ids", "finish_reasons"))
        for text, ids, end, reason in zip(*columns, strict=True):
            assert (end is None) == (reason == "length")
            assert folders().tokenizer.decode(ids, skip_special_tokens=True) == text
            assert (len(ids) == 12) if reason == "length" else (len(ids) < 12)


@pytest.mark.parametrize("method", ["greedy", "stochastic", "best-of-n", "segment"])
def test_a_reward_model_that_reads_ends_reads_none_where_a_stop_string_was_met(method):
    """As al-score, which reads `end_ids`."""
    rm = folders().saying(folders().reward, reads_eos=True)
    made = guided(prompts(25), "--method", method, "--ids", "--stop", "the", "--stop", "e", lm=ending(), rm=rm)
    assert ("stop", None) in {(record["finish_reasons"][0], record["end_ids"][0]) for record in made}
    for one, other in zip(made, read(run("al-score", rm, stdin=lines(*made)).stdout), strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-4)


@pytest.mark.slow
def test_without_weight_it_is_the_greedy_sampler():
    sampled = read(run("al-sample", folders().policy, *M, "--greedy", stdin=lines(*prompts(7))).stdout)
    made = guided(prompts(7), "--weight", 0)
    assert [record["completions"] for record in made] == [record["completions"] for record in sampled]
    assert guided(prompts(7), "--topk", 1) == made
    assert guided(prompts(7), "--weight", 20) != made


def test_best_of_n_is_the_best_of_al_samples():
    sampled = run("al-sample", folders().policy, *M, "-n", 4, "-t", 0.8, "--seed", 3, "--ids",
                  stdin=lines(*prompts(6))).stdout
    scored = read(run("al-score", folders().reward, stdin=sampled).stdout)
    made = guided(prompts(6), "--method", "best-of-n", "--best-of", 4, "-t", 0.8, "--seed", 3)
    for one, four in zip(made, scored, strict=True):
        best = max(range(4), key=four["rewards"].__getitem__)
        assert one["completions"] == [four["completions"][best]]
        assert one["rewards"] == pytest.approx([four["rewards"][best]], abs=1e-4)


@pytest.mark.slow
def test_a_seed_and_a_place_decide_a_draw_and_nothing_else():
    how = ("--method", "stochastic", "-n", 2, "-t", 2)
    two = guided(prompts(7), *how)
    texts = [record["completions"] for record in two]
    assert guided(prompts(7), *how) == two
    for same in (("--window", 2), ("--batch-tokens", 300)):
        assert [record["completions"] for record in guided(prompts(7), *how, *same)] == texts
    assert [r["completions"] for r in guided(prompts(7), *how, "--seed", 1)] != texts
    assert [r["completions"][0] for r in guided(prompts(7), *how[:2], "-n", 1, *how[4:])] == [text[0] for text in texts]


def test_messages_are_rendered_by_the_chat_template():
    messages = [{"role": "user", "content": "Hello"}]
    chats = [folders().templated(path) for path in (folders().policy, folders().reward)]
    (made,) = guided([{"messages": messages}], lm=chats[0], rm=chats[1])
    (plain,) = guided([{"prompt": "[user] Hello\n[bot]"}])
    assert made["completions"] == plain["completions"] and made["rewards"] == plain["rewards"]


def test_the_summary_counts_tokens_and_questions():
    done = run("al-args", folders().policy, folders().reward, *M, "--ids", stdin=lines(*pairs(3)))
    drawn = sum(len(ids) + (reason == "stop") for record in read(done.stdout)
                for ids, reason in zip(record["completion_ids"], record["finish_reasons"], strict=True))
    assert f"3 records, 3 completions, {drawn} tokens, {drawn} reward calls" in done.stderr
    done = run("al-args", folders().policy, folders().reward, *M, "--weight", 0, stdin=lines(*pairs(3)))
    assert "tokens" in done.stderr and "reward calls" not in done.stderr


# -- grids ------------------------------------------------------------------------------------------------------

GRID = [{"weight": 0.5}, {"method": "stochastic", "temperature": 0.7, "weight": 2}, {"topk": 4, "margin": 1.5},
        {"method": "best-of-n", "best_of": 3}, {"method": "segment", "best_of": 2, "segment": 5}]


@pytest.mark.slow
def test_a_grid_writes_one_record_a_setting_the_one_it_writes_alone(tmp_path):
    (tmp_path / "grid").write_bytes(lines(*GRID))
    made = guided(prompts(5), "--grid", tmp_path / "grid", "-k", 7, "--ids")
    assert [record["id"] for record in made] == [r["id"] for r in prompts(5) for _ in GRID]
    assert [record["search"] for record in made[:5]] == [
        {"method": "greedy", "weight": 0.5, "topk": 7, "margin": None},
        {"method": "stochastic", "weight": 2, "topk": 7, "margin": None, "temperature": 0.7},
        {"method": "greedy", "weight": 1.0, "topk": 4, "margin": 1.5},
        {"method": "best-of-n", "best_of": 3, "temperature": 1.0},
        {"method": "segment", "best_of": 2, "temperature": 1.0, "segment": 5}]
    for i, setting in enumerate(GRID):
        more = [word for name, value in {"topk": 7, **setting}.items()
                if name != "topk" or setting.get("method", "greedy") in ("greedy", "stochastic")
                for word in (f"--{name.replace('_', '-')}", value)]
        alone = guided(prompts(5), *more, "--ids")
        assert [{k: v for k, v in record.items() if k != "search"} for record in made[i::5]] == alone


def test_an_option_that_no_line_of_a_grid_reads_is_refused(tmp_path):
    (tmp_path / "grid").write_bytes(lines(*GRID[:4]))
    said = refused("--grid", tmp_path / "grid", "--segment", 3)
    assert "--segment does nothing for --method best-of-n, greedy, stochastic" in said


def test_records_of_a_line_leave_and_are_found_again_together(tmp_path):
    """A kill in the middle of a write of three: the line's turn comes again; after it: it is done."""
    (tmp_path / "in").write_bytes(lines({"n": 0}, {"n": 1}))
    whole = b"".join(b'{"n":%d,"i":%d}\n' % (n, i) for n in (0, 1) for i in range(3))

    def copy(stop, **how):
        stream = Stream([str(tmp_path / "in")], str(tmp_path / "out"), key="k", each=3, **how)
        for (line,) in stream.windows(1):
            if line.index == stop:
                return stream  # killed
            stream.write(line, *({**line.record, "i": i} for i in range(3)))
        stream.__exit__(None, None, None)
        return stream

    for cut in range(len(whole) // 2, len(whole) + 1):
        copy(1)._state.close(done=False)
        (tmp_path / "out").write_bytes(whole[:cut])  # of what would have been the second line's records
        assert copy(None, resume=True).written == 6 and (tmp_path / "out").read_bytes() == whole


# -- kills, pipes, shards ---------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    (tmp_path / "grid").write_bytes(lines(*GRID[1:4]))
    records = [record if i % 7 != 3 else {"prompt": i} for i, record in enumerate(prompts(24))]
    job = filter_job(tmp_path, "al-args", lines(*records), folders().policy, folders().reward, *M, "--window", 5,
                     "--batch-tokens", 150, "--grid", tmp_path / "grid", "--ids", skip=True)
    survive(job, 3, seed=6)


@pytest.mark.slow
def test_resume_refuses_another_model_and_another_grid(tmp_path):
    (tmp_path / "grid").write_bytes(lines(*GRID[:2]))
    (tmp_path / "in").write_bytes(lines(*prompts(3)) + b"bad\n")
    call = (tmp_path / "in", *M, "--window", 2, "-o", tmp_path / "out", "--grid", tmp_path / "grid")
    assert run("al-args", folders().policy, folders().reward, *call).returncode == 65
    other = folders().changed(folders().reward, lambda weights: weights["score.weight"].mul_(2))
    done = run("al-args", folders().policy, other, *call, "--resume")
    assert done.returncode == 2 and "made with other options or another model" in one_line(done.stderr)
    call = (*call[:-1], "/dev/stdin", "--resume")  # what a pipe holds counts, not its name
    done = run("al-args", folders().policy, folders().reward, *call, stdin=lines(*GRID[:1], {"weight": 7}))
    assert done.returncode == 2 and "made with other options or another model" in one_line(done.stderr)
    done = run("al-args", folders().policy, folders().reward, *call, stdin=lines(*GRID[:2]))
    assert done.returncode == 65 and "in:4: broken JSON" in one_line(done.stderr)


@pytest.mark.slow
def test_shards_in_order_are_the_whole(tmp_path):
    (tmp_path / "in").write_bytes(lines(*prompts(11)))
    call = (folders().policy, folders().reward, tmp_path / "in", *M, "--window", 2, "--method", "stochastic", "--ids")
    whole = run("al-args", *call).stdout
    assert "".join(run("al-args", *call, "--shard", f"{i}/3").stdout for i in (1, 2, 3)) == whole


@pytest.mark.slow
def test_head_ends_it_quietly(tmp_path):
    (tmp_path / "in").write_bytes(lines(*prompts(40)))
    argv = command("al-args", folders().policy, folders().reward, tmp_path / "in", *M, "--window", 1)
    first = subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    head = subprocess.run(["head", "-1"], stdin=first.stdout, capture_output=True)
    first.stdout.close()
    assert first.stderr.read() == b"" and first.wait() == 0
    assert json.loads(head.stdout)["rewards"]


def test_no_records():
    done = run("al-args", folders().policy, folders().reward)
    assert (done.returncode, done.stdout) == (0, "") and "0 records, 0 tokens" in one_line(done.stderr)


# -- bad lines --------------------------------------------------------------------------------------------------


def test_a_bad_line_in_the_middle(tmp_path):
    good, bad = prompts(5), b'{"prompt": 3}\n'
    data = lines(*good[:3]) + bad + lines(*good[3:])
    done = run("al-args", folders().policy, folders().reward, *M, stdin=data)
    assert done.returncode == 65
    assert one_line(done.stderr) == "al-args: <stdin>:4: prompt: expected a string, got a number"
    assert [record["id"] for record in read(done.stdout)] == [record["id"] for record in good[:3]]
    rejects = tmp_path / "rejects"
    done = run("al-args", folders().policy, folders().reward, *M, "--on-error", "skip", "--rejects", rejects,
               stdin=data)
    assert done.returncode == 0 and rejects.read_bytes() == bad and "5 records, 1 skipped" in done.stderr


# -- options ----------------------------------------------------------------------------------------------------


def test_numbers_that_overflow_name_the_record():
    def loud(weights):
        weights["score.weight"].fill_(3e38)

    message = refused(rm=folders().changed(folders().reward, loud), code=1)
    assert "<stdin>:1: the reward model's scores are not finite" in message


@pytest.mark.parametrize("given, said", [
    (("--weight", "nan"), "--weight"), (("--weight", "inf"), "--weight"), (("--topk", 0), "--topk"),
    (("--topk", 100_000), "topk 100000: the models know"), (("--temperature", -1, "--method", "stochastic"), "-t"),
    (("--margin", -1), "--margin"), (("--stop", ""), "--stop"), (("--grid", "nowhere"), "nowhere"),
    (("--temperature", 1), "--temperature does nothing for --method greedy"),
    (("--method", "best-of-n", "--topk", 5), "--topk does nothing for --method best-of-n"),
    (("--method", "best-of-n", "--segment", 5), "--segment does nothing for --method best-of-n"),
    (("--method", "segment", "--score-end", "text"), "--score-end does nothing for --method segment"),
    (("--lm-device", "moon"), "--lm-device moon: no such device"), (("--rm-device", "cuda:99"), "--rm-device cuda:99"),
    (("-m", CONTEXT), f"'s context is {CONTEXT} tokens"),
])
def test_what_cannot_do_is_refused(given, said):
    assert said in refused(*given)
