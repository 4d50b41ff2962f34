"""al-train-ppo on what cannot be judged, drawn for or learnt from: named before the first step or at its record, and
nothing that was learnt is lost.
"""

import pytest

from helpers import tiny
from helpers.commands import folders, lines, log, one_line, prompts, read, run, weights

pytestmark = pytest.mark.slow

SMALL = ("--method", "grpo", "-n", 2, "--prompts", 4, "--batch-size", 8, "-m", 6, "--dtype", "fp32", "--warmup", 0)
TALK = {"messages": [{"role": "user", "content": "Hi"}]}


def train(*args, out=None, records=None, model=None):
    """What the command said, and its folder."""
    out = out or folders().new("ppo")
    done = run("al-train-ppo", model or folders().policy, "-o", out, *SMALL, *args,
               stdin=lines(*(records or prompts(8))))
    return done, out


def refused(*args, code=2, **how) -> str:
    """The line with which it ends before it has begun; it leaves nothing."""
    done, out = train(*args, **how)
    assert (done.returncode, done.stdout) == (code, "") and not out.exists(), done.stderr
    *notes, said = done.stderr.splitlines()
    assert all(note.startswith(("note: ", "warning: ")) for note in notes)
    return said


# -- before the first step ----------------------------------------------------------------------------------


def test_prompts_without_room_for_a_new_token():
    assert "--max-length 6: no room for a prompt beside -m 6" in refused("--reward", "length", "--max-length", 6)
    fail = refused("--reward", "length", "--max-length", 12, "--on-long", "fail", code=65)
    assert fail.startswith("al-train-ppo: <stdin>:1: ") and "limits 6" in fail
    skip = refused("--reward", "length", "--max-length", 12, "--on-long", "skip", code=65)
    assert skip == "al-train-ppo: no records to train on (8 were left out)"
    done, out = train("--reward", "length", "--max-length", 12, "--steps", 1)
    assert done.returncode == 0 and "8 prompts cut" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("reward", "record", "message"), [
    ("math", {"prompt": "1 + 1?"}, "answer: missing: what math compares with"),
    ("toy:helpful", TALK, "prompt: missing (an oracle reads no messages)"),
    ("REWARD", TALK, "messages: the reward model REWARD has no chat template"),
])
def test_a_prompt_whose_answers_no_reward_could_judge_is_named(reward, record, message, tmp_path):
    """Also one of --eval, which would be judged an epoch later."""
    message = message.replace("REWARD", str(folders().reward))
    reward = folders().reward if reward == "REWARD" else reward
    good = {"prompt": "1 + 2?", "answer": "3"}
    model = folders().templated(folders().policy)
    assert f"<stdin>:2: {message}" in refused("--reward", reward, records=[good, record], model=model, code=65)
    (tmp_path / "eval").write_bytes(lines(good, good, record))
    said = refused("--reward", reward, "--eval", tmp_path / "eval", records=[good], model=model, code=65)
    assert f"{tmp_path}/eval:3: {message}" in said


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_all_processes_leave_out_what_a_program_could_not_judge(processes, tmp_path):
    """Which the first alone finds: it has the programs. Numbers, order and --eval are everybody's."""
    good = [{"prompt": f"{i} + 2?", "answer": str(i + 2)} for i in range(8)]
    (tmp_path / "in").write_bytes(lines(*good[:3], {"prompt": "1 + 1?"}, *good[3:]))
    (tmp_path / "eval").write_bytes(lines({"prompt": "1 + 1?"}, *good[:2]))
    how = ("--reward", "math", "--reward", "length", "--eval", tmp_path / "eval", tmp_path / "in",
           *(("--launch", 2) if processes == 2 else ()))
    done, out = train(*how, "--on-error", "skip")
    assert done.returncode == 0, done.stderr
    assert [f"skipped {tmp_path}/in:4", f"skipped {tmp_path}/eval:1"] == [
        line.partition(": ")[0] for line in done.stderr.splitlines() if line.startswith("skipped ")]
    assert "8 records" in done.stderr.splitlines()[-1] and "2 skipped" in done.stderr.splitlines()[-1]
    assert len(log(out)) == 2
    said = refused(*how, code=65)
    assert said.startswith(f"al-train-ppo: {tmp_path}/in:4: answer: missing")


def test_a_reward_model_of_another_tokenizer_reads_texts(tmp_path):
    """It is said once, before the first step; a critic begins from MODEL then, and cannot be that reward model."""
    foreign = tiny.save(tiny.classifier("llama"), tmp_path / "foreign")
    done, out = train("--reward", foreign, "--reward", f"-0.5:{foreign}", "--steps", 2, "--method", "ppo")
    assert done.returncode == 0, done.stderr
    note = f"note: {foreign}: reads answers as texts, by a tokenizer of its own"
    assert done.stderr.splitlines()[:-1] == [note] and (out / "critic").is_dir()
    assert (out / "critic" / "tokenizer.json").read_bytes() == (out / "tokenizer.json").read_bytes()
    said = refused("--reward", "length", "--critic", foreign, "--method", "ppo")
    assert said == (f"al-train-ppo: --critic {foreign}: its tokenizer is not the policy's, whose tokens it is to read "
                    "(see al-train-ppo --help)")


def test_a_reward_model_that_reads_prompts_cut_is_said():
    short = folders().saying(folders().reward, max_position_embeddings=20)
    done, _ = train("--reward", short, "--steps", 1)
    assert done.returncode == 0 and f"warning: {short}: reads 8 of the prompts cut, to its context" in done.stderr


def test_a_critic_of_another_hidden_size_is_one_and_of_a_shorter_context_is_none(tmp_path):
    import transformers

    config = transformers.AutoConfig.from_pretrained(folders().reward)
    config.hidden_size, config.num_hidden_layers, config.head_dim = 48, 1, 24
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path / "critic")
    folders().tokenizer.save_pretrained(tmp_path / "critic")
    done, out = train("--reward", "length", "--critic", tmp_path / "critic", "--method", "ppo", "--steps", 2)
    assert done.returncode == 0, done.stderr
    assert transformers.AutoConfig.from_pretrained(out / "critic").hidden_size == 48
    assert weights(out / "critic") != weights(tmp_path / "critic")
    short = folders().saying(folders().reward, max_position_embeddings=20)
    said = refused("--reward", "length", "--critic", short, "--method", "ppo")
    assert f"--critic {short}: its context is 20 tokens, prompts with answers may have " in said
    done, _ = train("--reward", "length", "--critic", short, "--method", "ppo", "--steps", 1, "--max-length", 20)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("args", "message"), [
    (("--ref", "x", "--kl-coef", 0), "--ref does nothing with --kl-coef 0"),
    (("--max-completion", 8), "--max-completion is of --ptx; -m says how long answers may get"),
    (("--timeout", 8), "--timeout goes with cmd:PROGRAM"),
    (("--reward", "2:"), "2:: a weight, and no reward's name behind it"),
    (("--reward", "py:nowhere.py:f"), "py:nowhere.py:f: nowhere.py: no such file"),
    (("--reward", "cmd:no-such-program"), "no such program"),
    (("--reward", "re:["), "re:[: "),
    (("--critic", "x"), "--critic does nothing for --method grpo"),
    (("--stop", ""), "--stop: an empty text would stop everything"),
])
def test_what_does_nothing_or_is_not_there_is_refused(args, message):
    assert message in refused("--reward", "length", *args)


# -- at the record ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("program", "message"), [
    ("cmd:sh -c 'while read x; do echo nan; done'", "completions[0]: expected a finite number, got nan"),
    ("cmd:sh -c 'while read x; do echo a lot; done'", "completions[0]: expected a finite number, got 'a lot'"),
    ("cmd:sh -c 'read x; echo 1; exit 3'", "ended with exit code 3 (1 of 2 numbers)"),
    ("cmd:sh -c 'kill -9 $$'", "killed by SIGKILL (0 of 2 numbers)"),
    ("cmd:sleep 60", "silent for 0.2 s"),
    ("py:FILE:few", "expected 2 numbers, one a completion, got 1"),
    ("py:FILE:none", "expected 2 numbers, one a completion, got NoneType"),
    ("py:FILE:infinite", "completions[1]: expected a finite number, got inf"),
    ("py:FILE:fails", "KeyError: 'no such field' (judge.py:8)"),
])
def test_a_program_that_gives_no_numbers_names_the_record(program, message, tmp_path):
    """At the first rollout nothing is left: there was nothing to keep."""
    (tmp_path / "judge.py").write_text("def few(record, texts):\n    return [1.0]\n"
                                       "def none(record, texts):\n    return None\n"
                                       "def infinite(record, texts):\n    return [1, float('inf')]\n"
                                       "def fails(record, texts):\n    return record['no such field']\n")
    name = program.replace("FILE", str(tmp_path / "judge.py"))
    more = ("--timeout", 0.2) if "sleep" in program else ()
    said = refused("--reward", "0.5:length", "--reward", name, *more, code=1)
    assert said.startswith("al-train-ppo: <stdin>:") and f": {name}: " in said and message in said


JUDGE = """
import pathlib

calls = 0


def letters(record, texts):
    global calls
    calls += 1
    if calls > 8 and pathlib.Path(__file__).with_name("ill").exists():
        return WRONG
    return [float(text.count("e")) for text in texts]
"""


def must_end_as(whole, out, folder, how, steps):
    """The program mended, the run goes on to what one that was not halted is: log, weights, samples."""
    (folder / "ill").unlink()
    done, _ = train(*how, "--log-samples", folder / "samples", "--resume", out=out)
    assert done.returncode == 0, done.stderr
    assert log(out) == log(whole) and weights(out) == weights(whole)
    assert weights(out / "critic") == weights(whole / "critic")
    assert [record["step"] for record in read((folder / "samples").read_text())] == [
        step for step in range(1, steps + 1) for _ in range(4)]


@pytest.mark.parametrize("wrong", ["[1.0]", "[float('nan')] * len(texts)", "{}['gone']", "[1e30] * len(texts)"])
def test_what_was_learnt_before_a_program_failed_is_kept(wrong, tmp_path):
    """It fails in the third rollout, without any --save-every; mended, the run goes on as if nothing had been."""
    (tmp_path / "judge.py").write_text(JUDGE.replace("WRONG", wrong))
    how = ("--reward", f"py:{tmp_path / 'judge.py'}:letters", "--steps", 5, "--lr", "1e-2", "--method", "ppo",
           "--kl-target", 1)
    whole, out = train(*how)[1], folders().new("ppo")
    (tmp_path / "ill").touch()
    done, _ = train(*how, "--log-samples", tmp_path / "samples", out=out)
    said = one_line(done.stderr)
    assert done.returncode == 1 and said.startswith("al-train-ppo: <stdin>:")
    assert said.endswith("; stopped after step 2, --resume goes on")
    assert [entry["step"] for entry in log(out)] == [1, 2] and (out / "checkpoint-2" / "critic").is_dir()
    again, _ = train(*how, "--log-samples", tmp_path / "samples", "--resume", out=out)  # not yet mended: it has 8 calls
    assert again.returncode == 1 and again.stderr.strip().endswith("; stopped after step 4, --resume goes on")
    must_end_as(whole, out, tmp_path, how, steps=5)


def test_what_was_learnt_before_a_program_failed_in_an_evaluation_is_kept(tmp_path):
    """It fails at the held-out prompts after the second rollout; mended, the run evaluates and goes on."""
    (tmp_path / "judge.py").write_text(JUDGE.replace("WRONG", "None"))
    (tmp_path / "eval").write_bytes(lines(*prompts(3)))
    how = ("--reward", f"py:{tmp_path / 'judge.py'}:letters", "--steps", 3, "--lr", "1e-2", "--method", "ppo",
           "--kl-target", 1, "--eval", tmp_path / "eval", "--eval-every", 2)
    whole, out = train(*how)[1], folders().new("ppo")
    (tmp_path / "ill").touch()
    done, _ = train(*how, "--log-samples", tmp_path / "samples", out=out)
    assert done.returncode == 1 and one_line(done.stderr).startswith(f"al-train-ppo: {tmp_path}/eval:1: ")
    assert done.stderr.strip().endswith("; stopped after step 2, --resume goes on")
    assert [entry["step"] for entry in log(out)] == [1] and (out / "checkpoint-2" / "critic").is_dir()
    must_end_as(whole, out, tmp_path, how, steps=3)


def test_a_reward_model_whose_numbers_are_none_names_the_record():
    said = refused("--reward", folders().broken(folders().reward), code=1)
    assert said.startswith("al-train-ppo: FloatingPointError: <stdin>:") and "rewards that are not finite" in said


def test_a_program_that_fails_at_held_out_prompts_names_their_file(tmp_path):
    (tmp_path / "judge.py").write_text("def alone(record, texts):\n    return [1.0, 2.0]\n")
    (tmp_path / "eval").write_bytes(lines(*prompts(3)))
    done, _ = train("--reward", f"py:{tmp_path / 'judge.py'}:alone", "--steps", 1, "--eval", tmp_path / "eval")
    assert done.returncode == 1
    assert done.stderr.startswith(f"al-train-ppo: {tmp_path}/eval:1: py:{tmp_path}/judge.py:alone: expected 1 numbers")


# -- nothing to learn from ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "more"), [("grpo", ()), ("rloo", ()), ("ppo", ("--critic-lr", 0))])
def test_rewards_that_never_differ_are_counted_and_said_at_the_end(method, more):
    """And nothing is learnt: the policy's weights are MODEL's. (PPO's advantages are none where its critic knew it.)"""
    done, out = train("--reward", "re:$^", "--steps", 3, "--kl-coef", 0, "--method", method, *more)
    assert done.returncode == 0, done.stderr
    warning, summary = done.stderr.splitlines()
    assert warning == "warning: every answer's reward was 0: there was nothing to learn from it"
    assert "12 groups of equal rewards" in summary
    assert [entry["equal_groups"] for entry in log(out)] == [4, 4, 4] and weights(out) == weights(folders().policy)


def test_rewards_that_differ_between_prompts_alone_are_said_too(tmp_path):
    (tmp_path / "judge.py").write_text("def asked(record, texts):\n    return [len(record['prompt'])] * len(texts)\n")
    done, _ = train("--reward", f"py:{tmp_path / 'judge.py'}:asked", "--steps", 2)
    warning, summary = done.stderr.splitlines()
    assert warning == ("warning: the rewards of a prompt's answers never differed, in 8 groups: there was nothing to "
                       "learn from them")
    assert "8 groups of equal rewards" in summary


def test_where_some_rewards_differ_nothing_is_warned_of():
    done, out = train("--reward", "toy:helpful", "--steps", 2)
    equal = sum(entry["equal_groups"] for entry in log(out))
    assert 0 < equal < 8 and f", {equal} groups of equal rewards, " in one_line(done.stderr)
