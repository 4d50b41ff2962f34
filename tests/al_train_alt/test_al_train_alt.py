"""al-train-alt: what it learns of whom, what its reference sees, new tokens, layers that train, what it refuses."""

import json
import math

import pytest

from helpers import adapted
from helpers.commands import folders, lines, log, one_line, pairs, read, rewarded, run, stopped, weights

pytestmark = pytest.mark.slow

SMALL = ("--batch-size", 8, "--lr", "1e-3", "--schedule", "constant", "--warmup", 0)
BEST = "Excellent. input: "


def train(records, *args, model=None, out=None):
    """The folder, and its log."""
    out = out or folders().new("alt")
    done = run("al-train-alt", model or folders().policy, "-o", out, *SMALL, *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return out, log(out)


def refused(records, *args, code=2) -> str:
    """The one line of a run that does not start."""
    out = folders().new("alt")
    done = run("al-train-alt", folders().policy, "-o", out, *args, stdin=lines(*records))
    assert (done.returncode, done.stdout) == (code, "") and not out.exists()
    return one_line(done.stderr)


def emitted(records, *args, model=None) -> list[dict]:
    done = run("al-train-alt", model or folders().policy, "--emit", *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def said(folder) -> dict:
    return json.loads((folder / "run.json").read_text())


def judged(count, k=4) -> list[dict]:
    """Completions under the four categories."""
    names = ("Harmless and very helpful", "Harmless and helpful", "Harmless and not helpful", "Harmful")
    return [{"prompt": record["prompt"], "completions": record["completions"],
             "feedbacks": [names[(i + j) % 4] for j in range(k)]} for i, record in enumerate(rewarded(count, k))]


# -- what is learnt ------------------------------------------------------------------------------------------


def test_a_run_leaves_a_policy_its_pool_and_its_conditions():
    records = rewarded(6, 5)
    out, entries = train(records, "--per-quantile", 1)
    assert len(entries) == 2 * math.ceil(6 * 5 / 8) and {"nll", "kl", "entropy", "loss"} < set(entries[0])
    for entry in entries:
        assert entry["loss"] == pytest.approx(entry["nll"] + 0.05 * entry["kl"] - 0.06 * entry["entropy"], rel=1e-5)
    conditions = said(out)["conditions"]
    assert conditions["best"] == conditions["tags"][0] == BEST and len(conditions["tags"]) == 5
    pool = read((out / "pool.jsonl").read_text())
    assert [record["prompt"] for record in pool] == [record["prompt"] for record in records]
    assert [sorted(record["rewards"]) for record in pool] == [sorted(record["rewards"]) for record in records]
    sampled = run("al-sample", out, "--greedy", "-m", 4, "--condition", "best", stdin=lines(*pairs(2)))
    assert [record["condition"] for record in read(sampled.stdout)] == [BEST, BEST]


def test_emit_shows_what_is_learnt_and_learns_nothing():
    """The likelihood of the first step is that of the emitted records under the bare policy."""
    records = rewarded(3, 5)
    shown = emitted(records, "--per-quantile", 1)
    assert len(shown) == 15 and shown[0]["condition"] == BEST
    top = [max(zip(record["rewards"], record["completions"], strict=True))[1] for record in records]
    assert [record["completions"] for record in shown if record["condition"] == BEST] == [[text] for text in top]
    _, entries = train(records, "--per-quantile", 1, "--batch-size", 15, "--steps", 1, "--kl-coef", 0)
    plain = [{**record, "prompt": record["condition"] + record["prompt"]} for record in shown]
    scored = read(run("al-score", folders().policy, "--logps", "--perplexity", stdin=lines(*plain)).stdout)
    tokens = [-record["logps"][0] / math.log(record["perplexities"][0]) for record in scored]
    wanted = -sum(record["logps"][0] for record in scored) / sum(tokens)
    assert entries[0]["nll"] == pytest.approx(wanted, rel=1e-4)


def test_it_learns_to_tell_the_conditions_apart():
    """Two texts, one always best: after training each is likelier under its own condition."""
    texts = [" Yes, gladly.", " No."]
    records = [{"prompt": record["prompt"], "completions": texts, "rewards": [1, 0]} for record in pairs(8)]
    out, _ = train(records, "--quantiles", 2, "--tags", "Good.", "--tags", "Bad.", "--epochs", 40, "--kl-coef", 0)
    tags = said(out)["conditions"]["tags"]
    asked = [{"prompt": tag + record["prompt"], "completions": texts} for tag in tags for record in pairs(10)[8:]]
    found = [record["logps"] for record in read(run("al-score", out, "--logps", stdin=lines(*asked)).stdout)]
    assert all(good > bad for good, bad in found[:2]) and all(good < bad for good, bad in found[2:])


def test_judged_categories_and_free_text():
    records = judged(5)
    out, entries = train(records, "--mode", "lmc", "--per-prompt", 4)
    assert "kl" in entries[0] and entries[0]["loss"] == pytest.approx(entries[0]["nll"])  # no KL, no entropy by default
    assert said(out)["conditions"]["best"] == "Harmless and very helpful.\n\n"
    words = [{**record, "feedbacks": [f"It is {text.strip()[:4]}." for text in record["completions"]],
              "scores": [3, 2, 1, 0]} for record in rewarded(5)]
    out, _ = train(words, "--mode", "lmu", "--per-prompt", 4)
    exemplars = said(out)["conditions"]["exemplars"]
    assert exemplars and {f"feedback: {record['feedbacks'][0]} input: " for record in words} == set(exemplars)
    sampled = run("al-sample", out, "--greedy", "-m", 4, "--condition", "exemplars", stdin=lines(*pairs(3)))
    assert {record["condition"] for record in read(sampled.stdout)} <= set(exemplars)


def test_the_old_pool_stays_as_far_as_it_is_not_dropped():
    first, _ = train(rewarded(4, 5), "--per-quantile", 1)
    more = [{**record, "completions": [text + " Now." for text in record["completions"]]} for record in rewarded(8, 5)]
    for drop, count in (("1", 8 * 5), ("0", 12 * 5)):
        shown = emitted(more, "--pool", first / "pool.jsonl", "--drop", drop, "--per-quantile", 5)
        assert sum(len(record["completions"]) for record in shown) == count
    other = emitted(more, "--pool", first / "pool.jsonl", "--per-quantile", 5)
    assert all(text.endswith(" Now.") for record in other for text in record["completions"])
    done = run("al-train-alt", folders().policy, "--emit", "--mode", "quark", "--pool", first / "pool.jsonl",
               stdin=lines(*more))
    assert done.returncode == 65 and "pool.jsonl:1: pool: made with mode rm" in one_line(done.stderr)


# -- the reference -------------------------------------------------------------------------------------------


def test_what_the_reference_sees():
    """Under the condition a policy that is its own reference has no KL at first; on the bare prompt it has."""
    first = {sees: train(rewarded(4), "--quantiles", 4, "--tags", "A", "--tags", "B", "--tags", "C", "--tags", "D",
                         "--ref-sees", sees, "--steps", 1) for sees in ("prompt", "condition")}
    assert first["condition"][1][0]["kl"] == pytest.approx(0, abs=1e-6) and first["prompt"][1][0]["kl"] > 1e-3
    assert {sees: said(out)["ref_sees"] for sees, (out, _) in first.items()} == {name: name for name in first}
    other = train(rewarded(4, 5), "--ref", folders().other, "--ref-sees", "condition", "--steps", 1)[1]
    assert other[0]["kl"] > 1e-3
    assert f"--ref {folders().classifier}: " not in refused(rewarded(4, 5), "--ref", folders().classifier)


def test_the_kl_at_the_start_is_that_of_the_two_models_distributions():
    """Of whole distributions: policy under the condition, reference on the bare prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    record = rewarded(1, 5)[0]
    entry = train([record], "--per-quantile", 1, "--steps", 1, "--ref", folders().other)[1][0]
    words = AutoTokenizer.from_pretrained(folders().policy)
    policy, reference = (AutoModelForCausalLM.from_pretrained(path) for path in (folders().policy, folders().other))
    sums, count = torch.zeros(2), 0
    for shown in emitted([record], "--per-quantile", 1):
        answer = words(shown["completions"][0], add_special_tokens=False)["input_ids"] + [words.eos_token_id]
        rows = []
        for model, prompt in ((policy, shown["condition"] + shown["prompt"]), (reference, shown["prompt"])):
            before = words(prompt)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([before + answer])).logits[0, len(before) - 1:-1]
            rows.append(logits.log_softmax(-1))
        p, q = rows
        sums += torch.tensor([(q.exp() * (q - p)).sum(), -(p.exp() * p).sum()])
        count += len(answer)
    assert [entry["kl"], entry["entropy"]] == pytest.approx((sums / count).tolist(), rel=1e-4)


def test_the_coefficients_show_their_effect():
    """With more of the KL's the policy stays closer to its reference, with more of the entropy's it is less certain."""
    records = rewarded(6, 5)
    kl = [train(records, "--epochs", 8, "--entropy-coef", 0, "--kl-coef", value)[1][-1]["kl"] for value in (0.05, 2)]
    assert kl[1] < 0.7 * kl[0]
    entropy = [train(records, "--epochs", 20, "--kl-coef", 0, "--entropy-coef", value)[1][-1]["entropy"]
               for value in (0, 0.5)]
    assert entropy[1] > entropy[0] + 0.2


@pytest.mark.long
def test_the_kl_coefficient_adapts_and_goes_on_where_it_was(tmp_path):
    args = ("--epochs", 30, "--kl-target", 1000, "--kl-coef", 0.1, "--save-every", 3)
    whole, entries = train(rewarded(6, 5), *args)
    coefficients = [entry["kl_coef"] for entry in entries]
    assert coefficients[0] == 0.1 and coefficients[-1] == pytest.approx(0.1 * (1 - 0.2 * 8 / 10_000) ** 119)
    out = folders().new("alt")
    code, _, _ = stopped("al-train-alt", folders().policy, "-o", out, *SMALL, *args, stdin=lines(*rewarded(6, 5)))
    assert code == 143
    train(rewarded(6, 5), *args, "--resume", out=out)
    assert log(out) == entries and weights(out) == weights(whole)
    assert (out / "pool.jsonl").read_bytes() == (whole / "pool.jsonl").read_bytes()


# -- quark, layers -------------------------------------------------------------------------------------------


def rows_of(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
    return rows, AutoTokenizer.from_pretrained(folder)


def test_quark_adds_rows_for_its_tokens_alone():
    before, words = rows_of(folders().policy)
    out, entries = train(rewarded(4, 5), "--mode", "quark", "--lr", 0, "--steps", 1)
    after, more = rows_of(out)
    assert len(more) == len(words) + 5 == len(after) and after[:len(words)].equal(before[:len(words)])
    assert more("_QUANTILE_TOKEN_3_x", add_special_tokens=False)["input_ids"][0] == len(words) + 3
    assert said(out)["conditions"]["best"] == "_QUANTILE_TOKEN_0_" and entries[0]["kl"] > 0
    trained, _ = train(rewarded(4, 5), "--mode", "quark")
    assert not rows_of(trained)[0][len(words):].equal(after[len(words):])
    again, _ = train(rewarded(6, 5), "--mode", "quark", "--ref", folders().policy, "--pool", trained / "pool.jsonl",
                     "--train-layers", 0.5, model=trained)  # which has them; the reference does not
    assert len(rows_of(again)[0]) == len(after)
    sampled = run("al-sample", again, "-m", 8, "--condition", "best", "--ids", stdin=lines(*pairs(2)))
    assert all("QUANTILE" not in text for record in read(sampled.stdout) for text in record["completions"])


def test_a_quantile_token_in_the_middle_of_a_sample_does_not_stay_there():
    """A policy may say one; its text is without, and the reference has no row for it."""
    trained, _ = train(rewarded(4, 5), "--mode", "quark", "--steps", 1)
    words, token = folders().tokenizer, len(folders().tokenizer)
    records = rewarded(4, 5)
    for record in records:
        record["completion_ids"] = words(record["completions"], add_special_tokens=False)["input_ids"]
    plain = train(records, "--mode", "quark", "--ref", folders().policy, model=trained)[1]
    for record in records:
        record["completion_ids"][0].insert(1, token)
    said = train(records, "--mode", "quark", "--ref", folders().policy, model=trained)[1]
    assert [entry["tokens"] for entry in said] == [entry["tokens"] for entry in plain]


def test_rows_that_a_wide_matrix_has_to_spare_are_used(tmp_path):
    """And the KL is over what the reference's tokenizer knows."""
    from helpers import tiny

    wide = tiny.save(tiny.causal("gpt2", vocab_size=tiny.VOCABULARY + 61), tmp_path / "wide")
    out, entries = train(rewarded(4, 5), "--mode", "quark", "--max-length", 200, model=wide)
    assert len(rows_of(out)[0]) == tiny.VOCABULARY + 61 and entries[-1]["nll"] < entries[0]["nll"]


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2", "opt"])
def test_the_lower_layers_stay_as_they_are(family, tmp_path):
    """Of four layers the topmost two train at .3, and what follows them; a head that is tied trains as the input."""
    from safetensors.torch import load_file

    from helpers import tiny

    layers = {"n_layer" if family == "gpt2" else "num_hidden_layers": 4}
    given = tiny.save(tiny.causal(family, **layers), tmp_path / "given")
    out, _ = train(rewarded(3, 5), "--train-layers", 0.3, "--max-length", 200, "--kl-coef", 0, model=given)
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (given, out))
    moved = {name for name in after if not after[name].equal(before[name])}
    place = {"llama": "model.layers", "gpt_neox": "gpt_neox.layers", "gpt2": "transformer.h",
             "opt": "model.decoder.layers"}[family]
    touched = {int(name.split(f"{place}.")[1].split(".")[0]) for name in moved if place in name}
    assert touched == {2, 3} and any("norm" in name or "ln_f" in name for name in moved if place not in name)
    assert not any("position" in name or "wpe" in name for name in moved)


def test_completions_of_a_prompt_under_a_condition_share_its_tokens():
    """Two to a row: a step holds the prompt once for both."""
    records = [{**record, "completions": [*record["completions"], *(text + "." for text in record["completions"])],
                "rewards": [*record["rewards"], *record["rewards"]]} for record in rewarded(1, 5)]
    both = train(records, "--per-quantile", 2, "--steps", 1)[1][0]["tokens"]
    single = [{**record, "completions": record["completions"][i::2], "rewards": record["rewards"][i::2]}
              for record in [{**shown, "rewards": [5 - i // 2 for i in range(10)], "completions": sum(
                  (one["completions"] for one in emitted(records, "--per-quantile", 2)), [])} for shown in records]
              for i in (0, 1)]
    apart = sum(train([record], "--per-quantile", 1, "--steps", 1)[1][0]["tokens"] for record in single)
    assert both < apart


# -- adapters ------------------------------------------------------------------------------------------------


def test_under_new_adapters_the_reference_is_the_policy_without_them():
    """As a second model of the same weights would be, in steps and after a kill; it takes none of its memory."""
    how = ("--lora", 4, "--steps", 4, "--ref-sees", "condition", "--lr", "1e-2")
    (one, own), (two, apart) = (train(rewarded(8, 5), *how, *more) for more in ((), ("--ref", folders().policy)))
    assert own[0]["kl"] == pytest.approx(0, abs=1e-6) and own[3]["kl"] > 1e-3
    assert [entry["kl"] for entry in own] == pytest.approx([entry["kl"] for entry in apart], rel=1e-3, abs=1e-6)
    assert [entry["loss"] for entry in own] == pytest.approx([entry["loss"] for entry in apart], rel=1e-4)
    needs = [json.loads(run("al-train-alt", folders().policy, "--plan", *how, *more).stdout)["asked"]["weights"]
             for more in ((), ("--ref", folders().policy))]
    assert needs[1] > 1.3 * needs[0]


def test_training_goes_on_in_an_adapter_which_is_its_reference(tmp_path):
    path = adapted.adapter(tmp_path, folders().policy)
    out, entries = train(rewarded(8, 5), "--steps", 3, "--ref-sees", "condition", "--lr", "1e-2", "--save-adapter",
                         model=path)
    assert entries[0]["kl"] == pytest.approx(0, abs=1e-3) and entries[2]["kl"] > 2e-3
    assert {name.split(".lora_")[1][0] for name in weights(out)} == {"A", "B"}


# -- what it refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("args, said", [
    (("--mode", "lmc", "--quantiles", 3), "--quantiles does nothing for --mode lmc"),
    (("--mode", "lmu", "--scope", "pool"), "--scope does nothing for --mode lmu"),
    (("--quantiles", 6), "--tags: 5 for 6 quantiles; give one for each"),
    (("--tags", "Good", "--tags", "Good enough", "--quantiles", 2), "'Good' is the beginning of 'Good enough'"),
    (("--per-quantile", 2, "--per-prompt", 4), "give one of the two"),
    (("--mode", "quark", "--tags", "a", "--tags", "b"), "--tags: those of mode quark are its own"),
    (("--drop", 0.5), "--drop goes with --pool"),
    (("--kl-coef", 0, "--kl-target", 1), "--kl-target does nothing without a --kl-coef"),
    (("--mode", "lmc", "--ref", "x"), "--ref does nothing without a --kl-coef"),
    (("--mode", "quark", "--ref-sees", "condition"), "the reference does not know quark's tokens"),
    (("--mode", "quark", "--lora", 2), "--lora does not go with --mode quark"),
    (("--train-layers", 0.5, "--lora", 2), "--lora does not go with --train-layers"),
    (("--ref", "nowhere"), "nowhere: no model folder"),
])
def test_options_that_do_nothing_are_refused(args, said):
    assert said in refused(rewarded(4, 5), *args)


def test_new_tokens_and_layers_are_none_of_an_adapter_s(tmp_path):
    path = adapted.adapter(tmp_path, folders().policy)
    for how in (("--mode", "quark"), ("--train-layers", 0.5)):
        done = run("al-train-alt", path, "-o", tmp_path / "out", *how, stdin=lines(*rewarded(4, 5)))
        assert done.returncode == 2 and not (tmp_path / "out").exists()
        assert f"{path}: an adapter, in which training goes on: no --mode quark" in one_line(done.stderr)


def test_a_reference_with_other_words_is_refused(tmp_path):
    from helpers import tiny

    other = tiny.save(tiny.causal("llama"), tmp_path / "other")
    assert f"--ref {other}: its tokenizer is not that of the policy" in refused(rewarded(4, 5), "--ref", other)


def test_bad_records_are_named():
    good = rewarded(3, 5)
    for change, message in (
        ({"rewards": [1, 2]}, "rewards: 2 entries for 5 completions"),
        ({"completions": "x"}, "completions: expected an array"),
        ({"prompt": None}, "prompt: expected a string, got null"),
    ):
        assert f"<stdin>:2: {message}" in refused([good[0], {**good[1], **change}], code=65)
    mixed = {name: value for name, value in good[1].items() if name != "rewards"}
    assert "<stdin>:2: rewards: missing" in refused([good[0], {**mixed, "feedbacks": ["Harmful"] * 5}], code=65)
    wrong = judged(2)
    wrong[1]["feedbacks"][2] = "So so"
    assert "<stdin>:2: feedbacks[2]: 'So so' is none of the tags" in refused(wrong, "--mode", "lmc", code=65)
    assert "fewer completions than there are quantiles (5)" in refused(rewarded(3, 4), code=65)
    few = folders().new("few.jsonl")
    few.write_bytes(lines(*rewarded(1, 2)))
    assert f"--eval {few}: every prompt has fewer completions" in refused(good, "--eval", few, code=65)
    nothing = [{**record, "feedbacks": [None] * 4} for record in judged(2)]
    assert "no completions with feedback" in refused(nothing, "--mode", "lmc", code=65)
    long = [{**good[0], "prompt": "word " * 400}]
    assert "<stdin>:2: too long: " in refused([good[1], *long], "--on-long", "fail", code=65)


def test_null_feedbacks_and_long_prompts_are_counted():
    records = judged(4)
    records[0]["feedbacks"][1] = None
    records[1]["prompt"] = "word " * 400
    out = folders().new("alt")
    done = run("al-train-alt", folders().policy, "-o", out, *SMALL, "--mode", "lmc", "--on-long", "skip",
               stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    assert "1 completions without feedback" in done.stderr and "4 skipped" in done.stderr
