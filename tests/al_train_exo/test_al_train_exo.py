"""al-train-exo: its losses, its reference, its groups, what it refuses."""

import functools
import math

import pytest

from helpers import adapted
from helpers.commands import folders, lines, log, one_line, read, rewarded, run, stopped, weights

pytestmark = pytest.mark.slow

PAIRS = ("exo-pref", "dpo-pref", "ipo", "robust")
SMALL = ("--batch-size", 8, "--pack-tokens", 8192)


def train(records, *args, model=None, out=None):
    """The folder, and the log."""
    out = out or folders().new("exo")
    done = run("al-train-exo", model or folders().policy, "-o", out, *SMALL, *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return out, log(out)


def refused(records, *args, code=2) -> str:
    """The one line of a run that does not start."""
    out = folders().new("exo")
    done = run("al-train-exo", folders().policy, "-o", out, *args, stdin=lines(*records))
    assert (done.returncode, done.stdout) == (code, "") and not out.exists()
    return one_line(done.stderr)


def with_reference(records, path, *args) -> list[dict]:
    done = run("al-score", path, "--logps", "--as-field", "ref_logps", *args, stdin=lines(*records))
    return read(done.stdout)


def softmax(values: list[float]) -> list[float]:
    total = sum(map(math.exp, values))
    return [math.exp(value) / total for value in values]


def test_a_judges_verdict_does_instead_of_rewards():
    """al-label-ai writes chosen and rejected beside the completions; a teacher's chosen is none of them."""
    records = rewarded(8, 2)
    told = []
    for record in records:
        better, worse = sorted((0, 1), key=record["rewards"].__getitem__, reverse=True)
        texts = record["completions"]
        bare = {name: value for name, value in record.items() if name != "rewards"}
        told.append({**bare, "chosen": texts[better], "rejected": texts[worse], "winner": better})
    how = ("--loss", "dpo-pref", "--steps", 3, "--lr", "1e-3")
    (one, plain), (other, same) = (train(given, *how) for given in (records, told))
    assert weights(one) == weights(other) and [e["loss"] for e in plain] == [e["loss"] for e in same]
    people = [{name: record[name] for name in ("prompt", "chosen", "rejected")} for record in told]
    scored = [{"prompt": record["prompt"], "completions": [record["chosen"], record["rejected"]], "rewards": [1, 0]}
              for record in told]
    (_, by_rewards), (_, by_pairs) = (train(given, "--loss", "exo-rw", "--steps", 1) for given in (scored, people))
    assert by_rewards[0]["loss"] == by_pairs[0]["loss"]
    assert "rewards: missing" in refused([{**told[0], "chosen": "a teacher's"}], "--loss", "dpo-pref", code=65)


# -- losses --------------------------------------------------------------------------------------------------


def closed_forms(rewards: list[list[float]], beta_r: float) -> dict[str, float]:
    """The losses of a policy that is its own reference."""
    logs = [[math.log(q) for q in softmax([reward / beta_r for reward in row])] for row in rewards]
    width = len(rewards[0])
    return {
        "exo-rw": sum(-math.log(width) - sum(row) / width for row in logs) / len(rewards),
        "dpo-rw": math.log(width),
        "exo-pref": 5 - math.log(2),
        "dpo-pref": math.log(2),
        "ipo": 1 / (2 * 0.1) ** 2,
        "robust": math.log(2) / 0.1,
    }


@pytest.mark.parametrize("loss", [*PAIRS, "exo-rw", "dpo-rw"])
def test_every_loss_starts_at_its_closed_form_and_falls(loss):
    records = rewarded(8, 2 if loss in PAIRS else 4)
    _, entries = train(records, "--loss", loss, "--beta-pi", "0.1", "--beta-r", "0.7", "--steps", 25, "--lr", "1e-3",
                       "--schedule", "constant", "--warmup", 0)
    first, last = entries[0], entries[-1]
    expected = closed_forms([record["rewards"] for record in records], 0.7)[loss]
    assert first["loss"] == pytest.approx(expected, rel=1e-6)
    assert (first["margin"], first["accuracy"], first["kl"]) == (0, 0.5, 0)
    assert last["loss"] < first["loss"] and last["margin"] > 0 and last["accuracy"] > 0.8


@pytest.mark.parametrize("args", [
    ("--loss", "exo-pref", "--smoothing", "0.1"), ("--loss", "dpo-pref", "--smoothing", "0.1"),
    ("--loss", "robust", "--smoothing", "0.1"), ("--loss", "dpo-pref", "--reference-free"),
    ("--loss", "ipo", "--reference-free"), ("--loss", "dpo-pref", "--sft-reg", "0.01"),
    ("--loss", "dpo-pref", "--importance", "--ref", "other"), ("--loss", "robust", "--importance", "--ref", "other"),
    ("--loss", "exo-rw", "--temperature", "0.5"), ("--loss", "exo-rw", "--num-contrastive", 2),
])
def test_every_variant_lowers_its_loss_and_is_not_the_plain_one(args):
    args = [folders().other if arg == "other" else arg for arg in args]
    records = rewarded(8, 4 if "exo-rw" in args else 2)
    more = ("--steps", 20, "--lr", "1e-3", "--beta-pi", "0.1")
    made, entries = train(records, *args, *more)
    assert entries[-1]["loss"] < entries[0]["loss"]
    plain, _ = train(records, *args[:2], *(("--ref", folders().other) if "--ref" in args else ()), *more)
    assert weights(made) != weights(plain)


def test_the_loss_of_a_moved_policy_by_hand():
    """Policy and reference differ: exo-rw, dpo-pref with its importance and sft-reg, from al-score's numbers."""
    records = rewarded(5, 2)
    policy = read(run("al-score", folders().policy, "--logps", stdin=lines(*records)).stdout)
    reference = with_reference(records, folders().other)
    exo = dpo = 0.0
    for one, other in zip(policy, reference, strict=True):
        ratio = [a - b for a, b in zip(one["logps"], other["ref_logps"], strict=True)]
        best = one["rewards"].index(max(one["rewards"]))
        p, q = softmax([0.2 * r for r in ratio]), softmax([reward / 0.5 for reward in one["rewards"]])
        exo += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)) / 5
        margin = 0.2 * (ratio[best] - ratio[1 - best])
        weight = math.exp(ratio[1 - best])
        dpo += (weight * math.log1p(math.exp(-margin)) - 0.03 * one["logps"][best]) / 5
    shared = ("--ref", folders().other, "--beta-pi", "0.2", "--steps", 1)
    _, entries = train(records, *shared, "--loss", "exo-rw")
    assert entries[0]["loss"] == pytest.approx(exo, rel=1e-4)
    _, entries = train(records, *shared, "--loss", "dpo-pref", "--importance", "--sft-reg", "0.03")
    assert entries[0]["loss"] == pytest.approx(dpo, rel=1e-4)


def test_simpo_by_hand():
    """Of mean log-probabilities a token, without a reference, from al-score's perplexities; it falls as it learns."""
    records = rewarded(8, 2)
    found = read(run("al-score", folders().policy, "--perplexity", stdin=lines(*records)).stdout)
    expected = 0.0
    for record in found:
        means = [-math.log(perplexity) for perplexity in record["perplexities"]]
        best = record["rewards"].index(max(record["rewards"]))
        expected += math.log1p(math.exp(0.7 - 2 * (means[best] - means[1 - best]))) / len(found)
    _, entries = train(records, "--loss", "simpo", "--beta-pi", 2, "--gamma", 0.7, "--steps", 20, "--lr", "1e-3")
    assert entries[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert entries[-1]["loss"] < entries[0]["loss"] and entries[-1]["accuracy"] > 0.8
    assert "kl" not in entries[0]
    made, entries = train(records, "--loss", "simpo", "--beta-pi", 2, "--gamma", 0.7, "--sft-reg", 0.1, "--steps", 1)
    assert entries[0]["loss"] > expected and not (made / "ref_logps.pt").exists()


def test_orpo_by_hand():
    """As simpo's test: from al-score's perplexities, no reference computed."""
    records = rewarded(8, 2)
    found = read(run("al-score", folders().policy, "--perplexity", stdin=lines(*records)).stdout)
    expected = 0.0
    for record in found:
        better, worse = (1 / perplexity for _, perplexity in sorted(
            zip(record["rewards"], record["perplexities"], strict=True), reverse=True))
        odds = (better / (1 - better)) / (worse / (1 - worse))
        expected += (-math.log(better) + 0.7 * math.log1p(1 / odds)) / len(found)
    made, entries = train(records, "--loss", "orpo", "--orpo-lambda", 0.7, "--steps", 20, "--lr", "1e-3")
    assert entries[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert entries[-1]["loss"] < entries[0]["loss"] and entries[-1]["accuracy"] > 0.8
    assert "kl" not in entries[0] and not (made / "ref_logps.pt").exists()


def good_and_bad(records) -> list[dict]:
    """Of each record its best completion as a good one, or its worst as a bad one, by turns."""
    made = []
    for number, record in enumerate(records):
        texts = [text for _, text in sorted(zip(record["rewards"], record["completions"], strict=True))]
        made.append({"prompt": record["prompt"], "chosen": texts[-(number % 2)], "label": number % 2 == 1})
    return made


def test_kto_tells_good_from_bad():
    """At its own reference: half, and z exactly 0; then it falls. Rewards around a threshold are labels."""
    records = good_and_bad(rewarded(12))
    how = ("--loss", "kto", "--beta-pi", "0.1", "--steps", 25, "--lr", "1e-3", "--warmup", 0, "--batch-size", 6)
    made, entries = train(records, *how)
    assert (entries[0]["loss"], entries[0]["margin"], entries[0]["accuracy"], entries[0]["kl"]) == (0.5, 0, 0.5, 0)
    assert entries[-1]["loss"] < 0.4 and entries[-1]["accuracy"] > 0.8
    scored = [{"prompt": one["prompt"], "completions": [one["chosen"]], "rewards": [5 + one["label"]]}
              for one in records]
    other, same = train(scored, *how, "--kto-threshold", 5.5)
    assert same == entries and weights(other) == weights(made)
    _, weighed = train(records, *how[:4], "--steps", 1, "--kto-good", 3, "--kto-bad", 0.5, "--batch-size", 12)
    assert weighed[0]["loss"] == pytest.approx((3 + 0.5) / 4)


def test_kto_by_hand_where_policy_and_reference_differ(tmp_path):
    """One step and an evaluation, of al-score's log-probabilities of each prompt's own and of the next's answers."""
    records = good_and_bad(rewarded(5))
    (tmp_path / "eval").write_bytes(lines(*records))
    _, [entry] = train(records, "--loss", "kto", "--ref", folders().other, "--beta-pi", 0.2, "--steps", 1, "--lr", 0,
                       "--eval", tmp_path / "eval")
    own = [{"prompt": one["prompt"], "completions": [one["chosen"]]} for one in records]
    turned = [{"prompt": one["prompt"], "completions": [other["chosen"]]}
              for one, other in zip(records, [*records[1:], records[0]], strict=True)]
    ratio, mismatched = ([a["logps"][0] - b["logps"][0] for a, b in zip(
        *(read(run("al-score", path, "--logps", stdin=lines(*some)).stdout) for path in (
            folders().policy, folders().other)), strict=True)] for some in (own, turned))
    z = max(0, sum(mismatched) / 5)
    signs = [1 if one["label"] else -1 for one in records]
    expected = sum(1 / (1 + math.exp(0.2 * sign * (r - z))) for sign, r in zip(signs, ratio, strict=True)) / 5
    assert entry["eval_kl"] == pytest.approx(z, rel=1e-3, abs=1e-3)
    assert entry["eval_loss"] == pytest.approx(expected, rel=1e-3)


def test_the_order_of_a_pair_does_not_matter():
    records = rewarded(8, 2)
    turned = [{**record, "completions": record["completions"][::-1], "rewards": record["rewards"][::-1]}
              for record in records]
    args = ("--loss", "dpo-pref", "--steps", 5, "--lr", "1e-3")
    one, two = train(records, *args)[1], train(turned, *args)[1]
    assert [entry["loss"] for entry in one] == pytest.approx([entry["loss"] for entry in two], rel=1e-4)
    bare = [{**record, "rewards": [reward > min(record["rewards"]) and 1 or 0 for reward in record["rewards"]]}
            for record in records]
    assert train(bare, *args)[1] == one  # of a preference only the sign counts


# -- groups --------------------------------------------------------------------------------------------------


def test_groups_of_some_are_records_of_their_own():
    whole = rewarded(4, 4)
    split = [{**record, "completions": record["completions"][i:i + 2], "rewards": record["rewards"][i:i + 2]}
             for record in whole for i in (0, 2)]
    for loss in ("exo-rw", "dpo-rw", "exo-pref"):
        args = ("--loss", loss, "--num-contrastive", 2, "--ref", folders().other, "--steps", 1)
        of_whole, of_split = train(whole, *args)[1], train(split, *args)[1]
        assert of_whole[0]["loss"] == pytest.approx(of_split[0]["loss"], rel=1e-4)


def test_records_of_different_widths():
    _, entries = train([*rewarded(3, 2), *rewarded(3, 5)], "--loss", "dpo-rw", "--steps", 1)
    assert entries[0]["loss"] == pytest.approx((3 * math.log(2) + 3 * math.log(5)) / 6, rel=1e-6)
    assert "<stdin>:4: completions: 5 make no groups of 2" in refused([*rewarded(3, 2), *rewarded(1, 5)],
                                                                      "--loss", "dpo-pref", code=65)
    assert "completions: 4 make no groups of 3" in refused(rewarded(1, 4), "--num-contrastive", 3, code=65)
    assert "one alone has nothing to be compared with" in refused(rewarded(1, 1), code=65)


@pytest.mark.parametrize("loss", PAIRS)
def test_a_tie_is_65(loss):
    records = rewarded(3, 4)
    records[1]["rewards"][2:] = [0.5, 0.5]
    assert "<stdin>:2: rewards: a tie, no preference" in refused(records, "--loss", loss, code=65)
    records[1]["rewards"] = [1, 0.5, 0.5, 1]  # across two pairs: no tie
    train(records, "--loss", loss, "--steps", 1)


def test_rewards_that_tie_are_rewards():
    records = [{**record, "rewards": [1, 1, 1, 1]} for record in rewarded(3)]
    _, entries = train(records, "--loss", "exo-rw", "--steps", 1)
    assert entries[0]["loss"] == pytest.approx(0, abs=1e-6)


# -- the reference -------------------------------------------------------------------------------------------


def test_three_ways_to_the_same_reference():
    records = rewarded(8)
    args = ("--steps", 6, "--lr", "1e-3")
    own, entries = train(records, *args)
    for more, given in ((("--ref", folders().policy), records),
                        (("--ref", "ref_logps"), with_reference(records, folders().policy))):
        made, other = train(given, *args, *more)
        for one, two in zip(entries, other, strict=True):
            for name in ("loss", "margin", "kl"):
                assert one[name] == pytest.approx(two[name], rel=1e-3, abs=1e-4)
    _, other = train(records, *args, "--ref", folders().other)
    assert other[0]["kl"] != pytest.approx(0, abs=0.1)
    stored, _ = train(with_reference(records, folders().other), *args, "--ref", "ref_logps")
    assert weights(stored) != weights(own)


def test_stored_log_probabilities_of_another_temperature_are_refused():
    records = with_reference(rewarded(3), folders().policy, "--temperature", "0.7")
    message = refused(records, "--ref", "ref_logps", code=65)
    assert "<stdin>:1: ref_logps: made at temperature 0.7, not 1.0" in message
    _, entries = train(records, "--ref", "ref_logps", "--temperature", "0.7", "--steps", 1)
    assert entries[0]["kl"] == pytest.approx(0, abs=1e-3)
    message = refused(with_reference(rewarded(1), folders().policy), "--ref", "ref_logps", "--temperature", 2, code=65)
    assert "made at temperature 1.0, not 2.0" in message
    assert "<stdin>:1: ref_logps: missing" in refused(rewarded(1), "--ref", "ref_logps", code=65)


def test_a_reference_that_is_none():
    for path, word in folders().wrong(folders().policy).values():
        assert word in refused(rewarded(1), "--ref", path)
    assert "a policy is needed here" in refused(rewarded(1), "--ref", folders().reward)
    foreign = folders().without(folders().policy)
    text = (foreign / "tokenizer.json").read_text()
    (foreign / "tokenizer.json").write_text(text.replace("<|pad|>", "<|gap|>"))
    assert "its tokenizer is not that of" in refused(rewarded(1), "--ref", foreign)


@pytest.mark.parametrize("ref", ["self", "other", "ref_logps"])
def test_held_out_records_have_their_reference_too(ref, tmp_path):
    records = with_reference(rewarded(12), folders().policy)
    (tmp_path / "eval").write_bytes(lines(*records[8:]))
    ref = folders().other if ref == "other" else ref
    args = ("--ref", ref, "--steps", 4, "--lr", "1e-3", "--eval", tmp_path / "eval", "--eval-every", 2)
    made, entries = train(records[:8], *args)
    assert ["eval_loss" in entry for entry in entries] == [False, True, False, True]
    assert all(math.isfinite(entries[3][f"eval_{name}"]) for name in ("loss", "margin", "accuracy", "kl"))
    plain, _ = train(records[:8], *args[:6])
    assert weights(made) == weights(plain)
    if ref == "self":  # no step: the loss of the reference itself
        _, still = train(records[:8], "--lr", 0, "--steps", 1, "--eval", tmp_path / "eval")
        expected = closed_forms([record["rewards"] for record in records[8:]], 0.5)["exo-rw"]
        assert still[0]["eval_loss"] == pytest.approx(expected, rel=1e-6) and still[0]["eval_kl"] == 0


# -- what would do nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("args,message", [
    (("--loss", "exo-rw", "--smoothing", "0.1"), "--smoothing does nothing for --loss exo-rw"),
    (("--loss", "ipo", "--smoothing", "0.1"), "--smoothing does nothing for --loss ipo"),
    (("--loss", "exo-pref", "--reference-free"), "--reference-free does nothing for --loss exo-pref"),
    (("--loss", "dpo-rw", "--reference-free"), "--reference-free does nothing for --loss dpo-rw"),
    (("--loss", "ipo", "--importance"), "--importance does nothing for --loss ipo"),
    (("--loss", "exo-rw", "--importance"), "--importance does nothing for --loss exo-rw"),
    (("--loss", "exo-rw", "--sft-reg", "1"), "--sft-reg does nothing for --loss exo-rw"),
    (("--loss", "simpo", "--smoothing", "0.1"), "--smoothing does nothing for --loss simpo"),
    (("--loss", "simpo", "--ref", "ref_logps"), "--ref does nothing for --loss simpo, only for exo-pref"),
    (("--loss", "simpo", "--reference-free"), "--reference-free does nothing for --loss simpo"),
    (("--loss", "dpo-pref", "--gamma", "0.7"), "--gamma does nothing for --loss dpo-pref, only for simpo"),
    (("--loss", "simpo", "--gamma", "-1"), "--gamma"),
    (("--loss", "orpo", "--beta-pi", "0.1"), "--beta-pi does nothing for --loss orpo"),
    (("--loss", "orpo", "--ref", "ref_logps"), "--ref does nothing for --loss orpo"),
    (("--loss", "simpo", "--orpo-lambda", "0.3"), "--orpo-lambda does nothing for --loss simpo, only for orpo"),
    (("--loss", "kto", "--ref", "ref_logps"), "--ref ref_logps: --loss kto asks the reference about other records'"),
    (("--loss", "kto", "--batch-size", "1"), "--batch-size 1: --loss kto compares a step's prompts with each other's"),
    (("--loss", "kto", "--num-contrastive", "2"), "--num-contrastive does nothing for --loss kto"),
    (("--loss", "kto", "--sft-reg", "1"), "--sft-reg does nothing for --loss kto"),
    (("--loss", "exo-rw", "--kto-threshold", "1"), "--kto-threshold does nothing for --loss exo-rw, only for kto"),
    (("--loss", "exo-rw", "--kto-good", "2"), "--kto-good does nothing for --loss exo-rw, only for kto"),
    (("--loss", "dpo-pref", "--num-contrastive", "4"), "is about pairs: --num-contrastive is 2"),
    (("--loss", "dpo-pref", "--smoothing", "0.5"), "--smoothing"),
    (("--loss", "dpo"), "--loss"),
    (("--beta-pi", "0"), "--beta-pi"),
    (("--temperature", "0"), "--temperature"),
    (("--num-contrastive", "1"), "--num-contrastive"),
])
def test_what_would_do_nothing_is_refused(args, message):
    assert message in refused(rewarded(2, 2), *args)


def test_bad_records_are_65():
    good = rewarded(2)
    for change, message in (
        ({"rewards": None}, "rewards: expected an array, got null"),
        ({"rewards": [1, 2, 3]}, "rewards: 3 entries for 4 completions"),
        ({"rewards": [1, 2, 3, "4"]}, "rewards[3]: expected a number, got a string"),
        ({"completions": []}, "completions: empty"),
    ):
        assert f"<stdin>:2: {message}" in refused([good[0], {**good[1], **change}], code=65)
    assert "<stdin>:1: completions: missing" in refused([{"prompt": "a", "chosen": "b"}], code=65)
    labelled = [{"prompt": "a", "chosen": "b", "label": True}] * 3
    assert "all rewards are above --kto-threshold 0" in refused(labelled, "--loss", "kto", code=65)
    alone = [*labelled, {**labelled[0], "label": False}]
    for ref in ("self", folders().other):  # before anything is asked of another
        assert "--batch-size 3 leaves one of 4 records alone: --batch-size 4 leaves none" in refused(
            alone, "--loss", "kto", "--batch-size", 3, "--ref", ref)
    assert "<stdin>:1: label: expected true or false" in refused([{**alone[0], "label": "b"}], "--loss", "kto", code=65)


# -- adapters, resuming --------------------------------------------------------------------------------------


@functools.cache
def adapter() -> str:
    """Of the policy, of rank 4, as peft's users have it."""
    return adapted.adapter(folders().new("adapter"), folders().policy)


@pytest.mark.parametrize("more", [("--lora", 4), ("--lora", 4, "--save-adapter", "--lora-dropout", 0.5),
                                  ("ADAPTER",), ("ADAPTER", "--lora", 4, "--save-adapter")])
def test_a_policy_under_adapters_is_its_own_reference(more):
    """A whole model under new ones, and an adapter that goes on: KL 0 and log 2 at the start, then neither."""
    model = adapter() if "ADAPTER" in more else folders().policy
    how = ("--loss", "dpo-pref", "--steps", 3, "--lr", "1e-2", "--warmup", 0)
    out, entries = train(rewarded(8, 2), *how, *(word for word in more if word != "ADAPTER"), model=model)
    assert entries[0]["kl"] == entries[0]["margin"] == 0 and entries[0]["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert entries[1]["kl"] != 0 and entries[2]["loss"] < 0.68
    assert (out / "adapter_config.json").exists() == ("--save-adapter" in more)
    # What was saved is what was trained: its own reference next time, and another policy than it began as.
    said = [with_reference(rewarded(2), path, "--dtype", "fp32")[0]["ref_logps"] for path in (out, model)]
    assert said[0] != pytest.approx(said[1], abs=1e-2)


def test_an_adapter_may_be_the_reference():
    """--ref is base and adapter: MODEL is that adapter, merged, so that they are one."""
    how = ("--loss", "dpo-pref", "--steps", 1)
    _, [entry] = train(rewarded(8, 2), *how, "--ref", adapter(), model=adapter())
    assert entry["kl"] == pytest.approx(0, abs=1e-3) and entry["loss"] == pytest.approx(math.log(2), abs=1e-4)
    _, [entry] = train(rewarded(8, 2), *how, "--ref", adapter())
    assert abs(entry["kl"]) > 0.1


@pytest.mark.long
@pytest.mark.parametrize("more", [("--lora", 4), ("--ref", "other"), ("--loss", "kto"),
                                  ("--lora", 4, "--lora-dropout", 0.2, "--save-adapter", "--ref", "ADAPTER"),
                                  ("--save-adapter",)])
def test_a_stopped_run_goes_on_with_the_reference_it_began_with(more, tmp_path):
    (tmp_path / "eval").write_bytes(lines(*rewarded(12)[8:]))
    model = adapter() if more == ("--save-adapter",) else folders().policy
    more = [{"other": folders().other, "ADAPTER": adapter}.get(arg, arg) for arg in more]
    more = [arg() if callable(arg) else arg for arg in more]
    args = ("--epochs", 60, "--lr", "1e-3", "--eval", tmp_path / "eval", "--eval-every", 7, *more)
    whole, entries = train(rewarded(8), *args, model=model)
    out = folders().new("exo")
    code, _, _ = stopped("al-train-exo", model, "-o", out, *SMALL, *args, stdin=lines(*rewarded(8)))
    assert code == 143 and (out / "ref_logps.pt").exists()
    (tmp_path / "eval").write_bytes(lines(*rewarded(12)[9:]))
    done = run("al-train-exo", model, "-o", out, *SMALL, *args, "--resume", stdin=lines(*rewarded(8)))
    assert done.returncode == 2 and "cannot resume: eval crc changed" in one_line(done.stderr)
    (tmp_path / "eval").write_bytes(lines(*rewarded(12)[8:]))
    train(rewarded(8), *args, "--resume", out=out, model=model)
    assert weights(out) == weights(whole) and log(out) == entries


def test_a_reference_that_has_changed_is_not_the_one_the_run_began_with():
    ref = folders().without(folders().other)
    out, _ = train(rewarded(4), "--ref", ref, "--steps", 1)
    config = ref / "config.json"
    config.write_text(config.read_text() + " ")
    done = run("al-train-exo", folders().policy, "-o", out, *SMALL, "--ref", ref, "--steps", 1, "--resume",
               stdin=lines(*rewarded(4)))
    assert done.returncode == 2 and "cannot resume: ref files changed" in one_line(done.stderr)
