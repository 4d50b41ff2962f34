"""The decoder of al-args: what either model sees of a prompt, and which models go together."""

import json
import shutil

import pytest

from helpers import tiny
from helpers.commands import CONTEXT, folders, lines, one_line, prompts, read, run
from helpers.guided import M, ending, guided, refused


@pytest.mark.slow
def test_ends_are_scored_as_the_reward_model_was_trained():
    """Its folder says whether it has seen ends; one that says nothing is taken by the paper's word."""
    how = ("--weight", 3, "--ids")
    never, always = (guided(prompts(12), *how, lm=ending(), rm=folders().saying(folders().reward, reads_eos=says))
                     for says in (False, True))
    silent = guided(prompts(12), *how, "--end", "none", lm=ending(),
                    rm=folders().saying(folders().reward, reads_eos=None))
    plain = guided(prompts(12), *how, "--score-end", "token", lm=ending())
    assert plain == silent
    assert never == guided(prompts(12), *how, "--score-end", "text", lm=ending())
    assert [r["completion_ids"] for r in never] != [r["completion_ids"] for r in plain]
    assert [r["completion_ids"] for r in always] == [r["completion_ids"] for r in plain]
    ended = [record["finish_reasons"] == ["stop"] for record in plain]
    assert any(ended)
    assert [one["rewards"] != other["rewards"] for one, other in zip(plain, always, strict=True)] == ended


@pytest.mark.slow
def test_a_prompt_too_long_for_either_model():
    """The shorter context decides what both see."""
    folder = folders().without(folders().reward)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": CONTEXT // 2}))
    long = {"prompt": "wash the old door. " * 15, "id": "long"}
    length = len(folders().tokenizer(long["prompt"])["input_ids"])
    assert CONTEXT // 2 - 12 < length < CONTEXT - 12
    records = [prompts(2)[0], long, prompts(2)[1]]
    whole = run("al-args", folders().policy, folders().reward, *M, stdin=lines(*records))
    assert "cut" not in whole.stderr
    cut = run("al-args", folders().policy, folder, *M, stdin=lines(*records))
    assert "1 prompts cut" in cut.stderr and len(read(cut.stdout)) == 3
    assert "<stdin>:2: too long: " in run("al-args", folders().policy, folder, *M, "--on-long", "fail",
                                           stdin=lines(*records)).stderr
    done = run("al-args", folders().policy, folder, *M, "--on-long", "skip", stdin=lines(*records))
    assert "2 records, 1 skipped" in done.stderr
    for alone, among in zip(read(done.stdout), read(cut.stdout)[::2], strict=True):
        assert alone.pop("rewards") == pytest.approx(among.pop("rewards"), rel=1e-5)  # rows of other batches
        assert alone == among
    assert f"{folder}'s context is {CONTEXT // 2} tokens" in refused("-m", CONTEXT // 2, rm=folder)


@pytest.mark.slow
def test_a_prompt_that_is_too_long_for_one_of_two_tokenizers():
    """One with a token before the text, and one without: what only the reward model's cuts is counted, too."""
    lm = folders().without(folders().policy)
    words = json.loads((lm / "tokenizer.json").read_text())
    (lm / "tokenizer.json").write_text(json.dumps({**words, "post_processor": None}))
    length = len(folders().tokenizer(prompts(1)[0]["prompt"])["input_ids"])
    how = ("al-args", lm, folders().reward, *M, "--max-prompt")
    assert "cut" not in run(*how, length, stdin=lines(*prompts(1))).stderr
    done = run(*how, length - 1, stdin=lines(*prompts(1)))
    assert done.returncode == 0 and "1 prompts cut" in done.stderr
    done = run(*how, length - 2, stdin=lines(*prompts(1)))
    assert done.returncode == 0 and "1 prompts cut" in done.stderr
    done = run(*how, length - 1, "--on-long", "fail", stdin=lines(*prompts(1)))
    assert done.returncode == 65 and "too long" in one_line(done.stderr)


@pytest.mark.slow
def test_wrong_models_are_2_in_one_line(tmp_path):
    assert "a policy is needed here" in refused(lm=folders().reward)
    assert "a reward model (sequence classifier) is needed here" in refused(rm=folders().policy)
    assert "a classifier with 3 labels; a reward model has one" in refused(rm=folders().classifier)
    pooled = folders().new("pooled")
    shutil.copytree(folders().reward, pooled)
    settings = json.loads((pooled / "config.json").read_text())
    (pooled / "config.json").write_text(json.dumps({**settings, "reward_pool": "mean"}))
    assert "reads the mean over a text" in refused(rm=pooled)
    assert "its tokenizer is not that of" in refused(rm=tiny.save(tiny.classifier("llama"), tmp_path / "other"))
    for what, (path, word) in folders().wrong(folders().reward).items():
        message = refused(rm=path)
        assert path in message and word in message, what


def test_weights_that_are_not_finite_are_named_before_anything_is_read():
    for which in ("lm", "rm"):
        path = folders().broken(folders().policy if which == "lm" else folders().reward)
        models = {"lm": folders().policy, "rm": folders().reward, which: path}
        done = run("al-args", models["lm"], models["rm"], stdin=b"bad\n")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"al-args: {path}: model.norm.weight has values that are not finite\n" in done.stderr


def test_each_model_may_have_its_own_precision():
    both = guided(prompts(6), "--lm-dtype", "fp32", "--rm-dtype", "bf16", "--ids")
    plain = guided(prompts(6), "--lm-dtype", "fp32", "--rm-dtype", "fp32", "--ids")
    assert [r["rewards"] for r in both] != [r["rewards"] for r in plain]
    for one, other in zip(both, plain, strict=True):
        if one["completion_ids"] == other["completion_ids"]:
            assert one["rewards"] == pytest.approx(other["rewards"], abs=0.1)
