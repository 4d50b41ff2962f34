"""al-train-rm: preferences and rewards, classes, where the score is read, which model is kept."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from alignlib.models import load
from alignlib.toy import world
from helpers import adapted
from helpers.commands import folders, lines, log, one_line, pairs, read, rewarded, run, stopped, weights


def train(records, *args, model=None, out=None):
    """The folder, and the log."""
    out = out or folders().new("rm")
    done = run("al-train-rm", model or folders().policy, "-o", out, "--batch-size", 8, *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return out, log(out)


def score(model, records, *args) -> list[float]:
    done = run("al-score", model, *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return [value for record in read(done.stdout) for value in record["rewards"]]


def sided(count: int, start: int = 0) -> list[dict]:
    """Preferences that anyone can learn: thanks are good and nothing else is."""
    return [{**pair, "chosen": pair["chosen"] + " Thank you.", "rejected": pair["rejected"] + " No."}
            for pair in pairs(start + count)[start:]]


@pytest.mark.slow
def test_preferences_and_rewards_say_the_same():
    prefs = pairs(10)
    both = [{"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]], "rewards": [1, 0]}
            for pair in prefs]
    args = ("--lr", "1e-3", "--steps", 4)
    made, entries = train(prefs, *args)
    assert {"loss", "accuracy", "best_score", "worst_score"} < set(entries[0])
    assert weights(train(both, *args)[0]) == weights(made)
    piped = run("al-pref2rw", stdin=lines(*prefs))
    assert weights(train(read(piped.stdout), *args)[0]) == weights(made)
    # Lists that go with completions of another time say nothing about the pair.
    stale = [{**pair, "finish_reasons": ["length"], "rewards": [3]} for pair in prefs]
    assert weights(train(stale, *args)[0]) == weights(made)


@pytest.mark.slow
def test_a_judges_verdict_on_two_completions_is_a_preference():
    """al-label-ai leaves the completions beside chosen and rejected; without rewards they say nothing of their own."""
    preferred = pairs(8)
    judged = [{**pair, "completions": [pair["rejected"], pair["chosen"]], "winner": 1} for pair in preferred]
    (one, plain), (other, same) = (train(records, "--dtype", "fp32") for records in (preferred, judged))
    assert plain == same and weights(one) == weights(other)


@pytest.mark.slow
def test_the_loss_and_the_figures_by_hand():
    import math

    records = rewarded(6, 3)
    scores = score(folders().reward, records)
    loss, best, worst, right = [], [], [], []
    for i, record in enumerate(records):
        row, rewards = scores[3 * i:3 * i + 3], record["rewards"]
        ordered = [(a, b) for a, b in itertools.permutations(range(3), 2) if rewards[a] > rewards[b]]
        loss += [math.log1p(math.exp(row[b] - row[a])) for a, b in ordered]
        right.append(sum(row[a] > row[b] for a, b in ordered) / 3)
        best.append(row[rewards.index(max(rewards))]), worst.append(row[rewards.index(min(rewards))])
    _, (entry,) = train(records, "--steps", 1, model=folders().reward)
    assert entry["loss"] == pytest.approx(sum(loss) / 18, rel=1e-5)
    for name, values in (("accuracy", right), ("best_score", best), ("worst_score", worst)):
        assert entry[name] == pytest.approx(sum(values) / 6, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_accuracy_rises_on_held_out_pairs_and_the_scores_show_it(tmp_path):
    (tmp_path / "eval").write_bytes(lines(*sided(24, 40)))
    args = ("--lr", "1e-3", "--epochs", 12, "--eval", tmp_path / "eval", "--eval-every", 3)
    made, entries = train(sided(40), *args)
    found = [entry["eval_accuracy"] for entry in entries if "eval_accuracy" in entry]
    final = json.loads((made / "run.json").read_text())["final"]
    assert found[0] < 0.9 and final["best_accuracy"] == max(found) >= 0.95
    # The model that was kept is the best one, not the last.
    both = [{"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]]} for pair in sided(24, 40)]
    scores = score(made, both)
    assert sum(one > other for one, other in zip(scores[::2], scores[1::2], strict=True)) / 24 == max(found)


@pytest.mark.slow
def test_the_best_is_kept_when_it_gets_worse_again(tmp_path):
    """Trained on turned pairs after a good start, it only gets worse: the first evaluation is the best."""
    good, _ = train(sided(40), "--lr", "3e-3", "--epochs", 12)
    turned = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in sided(16)]
    (tmp_path / "eval").write_bytes(lines(*sided(24, 40)))
    args = ("--lr", "3e-3", "--steps", 10, "--eval", tmp_path / "eval", "--eval-every", 1)
    made, entries = train(turned, *args, model=good)
    found = [entry["eval_accuracy"] for entry in entries]
    assert max(found) > found[-1]
    first = found.index(max(found)) + 1  # the earliest of equals
    short, _ = train(turned, *args, "--save-every", 1, "--keep", 0, model=good)
    assert weights(made) == weights(short) == weights(short / f"checkpoint-{first}")
    assert weights(made) != weights(short / "checkpoint-10")


@pytest.mark.slow
def test_classes(tmp_path):
    texts = [{"text": word + record["text"], "label": label} for record, (word, label) in zip(
        world.labelled("review", limit=48), itertools.cycle((("Oh. ", "sad"), ("Ah! ", "glad"), ("Um, ", "dull"))),
        strict=False)]
    (tmp_path / "eval").write_bytes(lines(*texts[36:]))
    args = ("--loss", "classify", "--lr", "1e-2", "--epochs", 10, "--eval", tmp_path / "eval")
    made, entries = train(texts[:36], *args)
    assert json.loads((made / "config.json").read_text())["id2label"] == {"0": "dull", "1": "glad", "2": "sad"}
    assert json.loads((made / "run.json").read_text())["final"]["best_accuracy"] > 0.9
    given = [{"prompt": "", "completions": [record["text"]]} for record in texts[36:]]
    chances = [score(made, given, "--label", name, "--as", "prob") for name in ("dull", "glad", "sad")]
    assert [sum(some) for some in zip(*chances, strict=True)] == pytest.approx([1] * 12)
    guesses = [("dull", "glad", "sad")[some.index(max(some))] for some in zip(*chances, strict=True)]
    assert sum(guess == record["label"] for guess, record in zip(guesses, texts[36:], strict=True)) >= 11
    shuffled, _ = train(texts[:36][::-1], *args)
    assert json.loads((shuffled / "config.json").read_text())["id2label"]["0"] == "dull"
    again, _ = train(texts[:36], *args[:4], "--steps", 1, model=made)  # a classifier goes on as one
    assert weights(again).keys() == weights(made).keys()
    for records, code, message in (
        (texts[:1] * 2, 65, "label: one class only, sad: a classifier needs two or more"),
        (pairs(1), 65, "<stdin>:1: text: missing"),
        ([*texts[:2], {"text": "x", "label": 1.5}], 65,
         "<stdin>:3: label: expected a string or an integer or a boolean, got a number"),
    ):
        done = run("al-train-rm", folders().policy, "-o", folders().new(), "--loss", "classify", stdin=lines(*records))
        assert done.returncode == code and message in one_line(done.stderr)


@pytest.mark.slow
def test_classes_that_are_numbers_or_yes_and_no():
    """Their JSON is the name that al-score knows them by."""
    for labels, names in (((10, 9, -1), ["-1", "9", "10"]), ((True, False), ["false", "true"])):
        texts = [{"text": f"It is {label}.", "label": label} for label in labels * 4]
        made, _ = train(texts, "--loss", "classify", "--lr", "1e-2", "--epochs", 12)
        assert [*json.loads((made / "config.json").read_text())["id2label"].values()] == names
        given = [{"prompt": "", "completions": [record["text"] for record in texts[:len(labels)]]}]
        chances = {name: score(made, given, "--label", name, "--as", "prob") for name in names}
        for i, record in enumerate(texts[:len(labels)]):
            assert max(names, key=lambda name: chances[name][i]) == json.dumps(record["label"])


# -- padding -----------------------------------------------------------------------------------------------------


def edited(file: Path, **changes) -> None:
    """Change a JSON file; None leaves a name out."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def padded(pad: str | None, number: int | None) -> Path:
    """The policy with another padding token in its tokenizer, another number in its configuration."""
    folder = folders().without(folders().policy)
    edited(folder / "tokenizer_config.json", pad_token=pad)
    edited(folder / "config.json", pad_token_id=number)
    if pad == "<|beyond|>":
        words = AutoTokenizer.from_pretrained(folders().policy)
        words.add_special_tokens({"pad_token": pad})
        words.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pad, number, args", [
    ("<|pad|>", 2, ()), (None, None, ()), (None, None, ("--rm-eos",)), ("<|eos|>", 1, ("--rm-eos",)),
    ("<|beyond|>", None, ("--lora", 2)),
])
@pytest.mark.slow
def test_transformers_can_batch_what_was_trained(pad, number, args):
    """Padded on either side it gives al-score's rewards: the token is one that has a row, and ends no text."""
    made, _ = train(pairs(4), "--lr", "1e-2", "--steps", 2, *args, model=padded(pad, number))
    model = AutoModelForSequenceClassification.from_pretrained(made).eval()
    words = AutoTokenizer.from_pretrained(made)
    assert words.pad_token_id == model.config.pad_token_id < model.config.vocab_size
    assert words.pad_token == (pad if pad == "<|pad|>" else "<|pad|>")
    records = [{"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]]} for pair in pairs(3)]
    end = "<|eos|>" if "--rm-eos" in args else ""
    texts = [record["prompt"] + text + end for record in records for text in record["completions"]]
    wanted = score(made, records)
    for side in ("right", "left"):
        batch = words(texts, padding=True, padding_side=side, return_tensors="pt")
        assert not batch["attention_mask"].all()
        with torch.no_grad():
            assert model(**batch).logits[:, 0].tolist() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.slow
def test_where_the_score_is_read_is_remembered():
    prefs = pairs(8)
    both = [{"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]]} for pair in prefs]
    plain, one = train(prefs, "--lr", 0, "--steps", 1)
    ended, two = train(prefs, "--lr", 0, "--steps", 1, "--rm-eos")
    assert weights(plain) == weights(ended) and one[0]["loss"] != two[0]["loss"]
    for folder, entry in ((plain, one[0]), (ended, two[0])):
        scores = score(folder, both)
        assert sum(scores[::2]) / 8 == pytest.approx(entry["best_score"], rel=1e-4)
        assert sum(scores[1::2]) / 8 == pytest.approx(entry["worst_score"], rel=1e-4)
    # Reading without is what lets a text be judged half-way: the score of a longer one is of its own last token.
    assert score(plain, both) != pytest.approx(score(ended, both), abs=1e-3)


@pytest.mark.slow
def test_ties_make_no_pair_and_are_counted():
    records = rewarded(4, 3)
    tied = [{**records[0], "rewards": [1, 1, 1]}, *records[1:]]
    done = run("al-train-rm", folders().policy, "-o", folders().new(), stdin=lines(*tied))
    assert done.returncode == 0 and "3 records, 1 skipped" in one_line(done.stderr)
    done = run("al-train-rm", folders().policy, "-o", folders().new(), stdin=lines(*tied[:1]))
    assert done.returncode == 65 and "no records to train on" in one_line(done.stderr)


@pytest.mark.slow
def test_rewards_that_float32_does_not_tell_apart_make_no_pair():
    """The loss is made in float32: a pair that is one only in the file would count, with no loss and no accuracy."""
    records = rewarded(4, 2)
    close = [{**records[0], "rewards": [0.1 + 0.2, 0.3]}, {**records[1], "rewards": [2**24 + 1, 2**24]}]
    (plain, expected), (made, entries) = train(records[2:], "--steps", 1), train([*close, *records[2:]], "--steps", 1)
    assert weights(made) == weights(plain) and entries == expected and entries[0]["accuracy"] is not None


def test_bad_records_are_65():
    for record, message in (
        ({"prompt": "p", "chosen": "a"}, "rejected: missing"),
        ({"prompt": "p", "completions": ["a", "b"]}, "rewards: missing"),
        ({"prompt": "p", "completions": ["a", "b"], "rewards": [1]}, "rewards: 1 entries for 2 completions"),
        ({"prompt": "p", "completions": ["a", "b"], "rewards": [1, 1e39]}, "rewards[1]: 1e+39 is beyond 1.7e+38"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "rejected: expected a string, got null"),
    ):
        done = run("al-train-rm", folders().policy, "-o", folders().new(), stdin=lines(*pairs(2), record))
        assert done.returncode == 65 and f"<stdin>:3: {message}" in one_line(done.stderr)


@pytest.mark.slow
def test_a_saved_adapter_is_the_reward_model_that_would_be_saved(tmp_path):
    """Wherever one is asked for, with what its configuration would say; and training goes on in it."""
    how = ("--lora", 4, "--lr", "1e-2", "--steps", 3, "--rm-eos")
    (whole, entries), (alone, same) = (train(sided(8), *how, *more) for more in ((), ("--save-adapter",)))
    assert entries == same and not (alone / "config.json").exists()
    both = [{"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]]} for pair in sided(4)]
    assert score(alone, both, "--dtype", "fp32") == pytest.approx(score(whole, both, "--dtype", "fp32"), rel=1e-4)
    verdicts = []
    for folder in (whole, alone):
        done = run("al-label-ai", "--judge-rm", folder, "--dtype", "fp32", stdin=lines(*both))
        assert done.returncode == 0, done.stderr
        verdicts.append([record["chosen"] for record in read(done.stdout)])
        assert run("al-args", folders().policy, folder, "-m", 2, stdin=lines(both[0])).returncode == 0
    assert verdicts[0] == verdicts[1]
    again, entries = train(sided(8), "--rm-eos", "--lr", 0, "--steps", 1, "--save-adapter", model=alone)
    assert entries[0]["best_score"] != pytest.approx(entries[0]["worst_score"]) and weights(again) == weights(alone)
    _, entries = train(sided(8), "--rm-eos", "--steps", 1, "--lora", 4, "--lora-lr", "1e-2", model=alone)
    done = run("al-sample", alone, stdin=lines(both[0]))
    assert done.returncode == 2 and "a reward model (an adapter of one); a policy is needed" in one_line(done.stderr)


@pytest.mark.slow
def test_a_policy_s_adapter_begins_a_reward_model(tmp_path):
    """As the policy merged would; with adapters of its own, but no base to save them for."""
    path = adapted.adapter(tmp_path, folders().policy)
    merged = tmp_path / "merged"
    load.save(load.load_policy(path, "cpu", "fp32"), merged)
    one, two = (train(sided(8), "--steps", 2, "--dtype", "fp32", model=model)[1] for model in (path, merged))
    assert [entry["loss"] for entry in one] == pytest.approx([entry["loss"] for entry in two], rel=1e-4)
    train(sided(8), "--steps", 1, "--lora", 2, model=path)
    done = run("al-train-rm", path, "-o", tmp_path / "rm", "--lora", 2, "--save-adapter", stdin=lines(*sided(8)))
    assert done.returncode == 2 and "is an adapter of a policy, and merged into its base" in one_line(done.stderr)


@pytest.mark.long
@pytest.mark.slow
def test_a_stopped_run_keeps_its_best_and_goes_on(tmp_path):
    (tmp_path / "eval").write_bytes(lines(*sided(16, 40)))
    args = ("--batch-size", 8, "--epochs", 60, "--lr", "3e-3", "--eval", tmp_path / "eval", "--eval-every", 5,
            "--lora", 4, "--save-adapter")
    whole, entries = train(sided(8), *args)
    out = folders().new("rm")
    code, _, _ = stopped("al-train-rm", folders().policy, "-o", out, *args, stdin=lines(*sided(8)))
    assert code == 143
    train(sided(8), *args, "--resume", out=out)
    assert weights(out) == weights(whole) and log(out) == entries
