"""al-sft: what it learns, its two losses, what it leaves out; what every trainer promises: training/test_session.py."""

import pytest

from helpers.commands import folders, lines, pairs, read, run, weights


def train(records, *args):
    """The folder, and what the command said."""
    out = folders().new("al-sft")
    done = run("al-sft", folders().policy, "-o", out, *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return out, done


def test_it_learns_what_is_chosen():
    records = pairs(4)
    out, done = train(records, "--steps", 80, "--batch-size", 4, "--lr", "1e-2", "--schedule", "constant")
    assert read(done.stdout)[-1]["loss"] < 0.2 < 3 < read(done.stdout)[0]["loss"]
    sampled = run("al-sample", out, "--greedy", "-m", 60, stdin=lines(*records))
    assert sum(r["completions"] == [r["chosen"]] and r["finish_reasons"] == ["stop"] for r in read(sampled.stdout)) >= 3


@pytest.mark.slow
def test_the_loss_of_tokens_and_of_sequences_by_hand():
    records = pairs(6)
    scored = run("al-score", folders().policy, "--logps", stdin=lines(*(
        {"prompt": record["prompt"], "completions": [record["chosen"]]} for record in records)))
    logps = [record["logps"][0] for record in read(scored.stdout)]
    counts = [len(folders().tokenizer(record["chosen"], add_special_tokens=False)["input_ids"]) + 1
              for record in records]
    for how, expected in (("token", -sum(logps) / sum(counts)), ("sequence", -sum(logps) / 6)):
        _, done = train(records, "--loss", how, "--batch-size", 6)
        assert read(done.stdout)[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_held_out_records_are_evaluated_and_do_not_change_the_training(tmp_path):
    (tmp_path / "eval").write_bytes(lines(*pairs(12)[8:]))
    args = ("--batch-size", 4, "--epochs", 2)
    plain, _ = train(pairs(8), *args)
    out, done = train(pairs(8), *args, "--eval", tmp_path / "eval")
    assert ["eval_loss" in entry for entry in read(done.stdout)] == [False, True, False, True]
    assert weights(out) == weights(plain)
    _, done = train(pairs(8), *args, "--eval", tmp_path / "eval", "--eval-every", 3)
    assert ["eval_loss" in entry for entry in read(done.stdout)] == [False, False, True, True]


@pytest.mark.slow
def test_what_goes_with_other_completions_is_not_chosens():
    plain = pairs(3)
    more = [{**record, "completions": ["x", "y"], "finish_reasons": ["length", "stop"], "completion_ids": [[1], [2]],
             "rewards": [0, 1]} for record in plain]
    assert weights(train(plain)[0]) == weights(train(more)[0])


def test_records_left_out_and_cut_are_counted():
    records = [*pairs(3), {"prompt": "wash the old door. " * 100, "chosen": " No."}]
    _, cut = train(records)
    assert "4 records, 1 prompts cut" in cut.stderr
    _, skipped = train(records, "--on-long", "skip")
    assert "3 records, 1 skipped" in skipped.stderr
