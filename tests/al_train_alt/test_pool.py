"""ALT's data pool: what its authors' code computes, rules of the draws, bad input."""

import json
import random
from collections import Counter

import pytest

from al_label_ai import questions
from al_train_alt import pool
from alignlib.records.jsonl import DataError

LIMIT = 64  # tokens at which the authors' pools prefer others


def cases(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def entry(case, prompt, texts, **lists):
    """A record of the authors' pool; what is as long as their limit counts as cut, as it does there."""
    lengths = case["generation_token_lengths"]
    cut = ["length" if lengths.get(text, 0) >= LIMIT else "stop" for text in texts]
    return {"prompt": prompt, "completions": texts, "finish_reasons": cut, **lists}


def gathered(records, old=(), **how):
    draw = pool.Selection(**how)
    for record in (*records, *old):
        draw.check(record)
    return pool.gather(*([("x.jsonl:1", record) for record in given] for given in (records, old)), draw)


def sorted_as(found):
    """Prompt -> [(text, class)], in the pool's order."""
    made = {}
    for one in found.entries:
        made.setdefault(one.prompt, []).append((one.text, one.kind))
    return made


def drawn(found):
    """Prompt -> {condition: texts}."""
    made = {}
    for _, record in found.training():
        made.setdefault(record["prompt"], {})[record["condition"]] = record["completions"]
    return made


def ranked(count, prompt="P", **more):
    return {"prompt": prompt, "completions": [f"{prompt}{i}" for i in range(count)],
            "rewards": [float(-i) for i in range(count)], **more}


# -- what the authors' code computes --------------------------------------------------------------------------------


def test_quantiles_within_a_prompt(fixtures):
    for case in cases(fixtures / "ALT" / "rm_datapool.jsonl"):
        records = []
        for one in case["entries"]:  # a reward is never null here
            known = [both for both in zip(one["generations"], one["rewards"], strict=True) if both[1] is not None]
            if known:
                records.append(entry(case, one["prompt"], [text for text, _ in known], rewards=[r for _, r in known]))
        count = case["num_quantiles"]
        if all(len(record["completions"]) < count for record in records):
            with pytest.raises(DataError, match="fewer completions than there are quantiles"):
                gathered(records, mode="quark", quantiles=count)
            continue
        found = sorted_as(gathered(records, mode="quark", quantiles=count))
        for prompt, wanted in case["mapped"].items():
            quantiles = [case["quantile_tokens"].index(token) for token in wanted["quantiles"]]
            if len(quantiles) < count:  # there they all get the worst tag; here they wait for others
                assert {kind for _, kind in found[prompt]} == {None}
            else:
                assert Counter(found[prompt]) == Counter(zip(wanted["generations"], quantiles, strict=True))


def test_draws_and_drops_of_quantiles_keep_the_authors_rules(fixtures):
    checked = 0
    for case in cases(fixtures / "ALT" / "rm_datapool.jsonl"):
        count = case["num_quantiles"]
        mapped = {prompt: one for prompt, one in case["mapped"].items() if len(one["generations"]) >= count}
        records = [entry(case, prompt, one["generations"], rewards=one["rewards"]) for prompt, one in mapped.items()]
        if not records:
            continue
        for asked in case["get_samples"]:
            each = asked["num_samples_per_quantile"]
            found = drawn(gathered(records, mode="quark", quantiles=count, per_quantile=each))
            for sample in asked["samples"] or []:
                if sample["prompt"] in mapped:
                    wanted = Counter(sample["quantiles"])
                    assert {tag: len(texts) for tag, texts in found[sample["prompt"]].items()} == wanted
                    checked += 1
        half = case["flush_half"]["datapool"]
        kept = gathered([], records, mode="quark", quantiles=count, drop=case["flush_half"]["drop_factor"])
        assert Counter(one.prompt for one in kept.entries) == {
            prompt: len(one["generations"]) for prompt, one in half.items() if prompt in mapped and one["generations"]}
    assert checked > 5


@pytest.mark.parametrize("name", ["lmc", "lmu"])
def test_draws_shared_among_categories_and_scores_keep_the_authors_rules(fixtures, name):
    for case in cases(fixtures / "ALT" / f"{name}_datapool.jsonl"):
        records = []
        for one in case["entries"]:
            known = [feedback != "Unclear" for feedback in one["feedbacks"]]  # here an error
            lists = {field: [value for value, kept in zip(one[field], known, strict=True) if kept]
                     for field in ("generations", "feedbacks", "scores") if field in one}
            records.append(entry(case, one["prompt"], lists.pop("generations"), **lists))
        for asked in case["get_samples"]:
            most = asked["num_samples_per_prompt"]
            if asked["max_tokens"] != LIMIT:
                continue
            found = gathered(records, mode=name, per_prompt=most)
            for prompt, entries in by_prompt(found).items():
                made = pool._draw(entries, found.selection)
                assert len(made) == min(most or len(entries), len(entries)) == len({id(one) for one in made})
                for kind in range(4):
                    of_kind = [one for one in entries if one.kind == kind]
                    got = [one for one in made if one.kind == kind]
                    assert len(got) >= min((most or 0) // 4, len(of_kind)), prompt
                    # One that was cut is taken only when no other of its class is left.
                    whole = sum(one.reason == "stop" for one in of_kind)
                    assert sum(one.reason == "stop" for one in got) == min(len(got), whole)


def by_prompt(found):
    made = {}
    for one in found.entries:
        made.setdefault(one.prompt, []).append(one)
    return made


def test_quantiles_over_the_whole_pool(fixtures):
    for case in cases(fixtures / "ALT" / "toxicity_datapool.jsonl"):
        old = []
        for done in case["rounds"]:
            rows = zip(done["prompts"], done["responses"], done["scores"], strict=True)
            new = [{"prompt": prompt, "completions": [text], "rewards": [score]}
                   for prompt, text, score in rows if score is not None]
            found = gathered(new, old, mode="rm", tags=("toxicity",), scope="pool", drop=0.0)
            wanted = [case["tree_tokens"].index(tokens) for tokens in done["pool_cat_tokens"]]
            best_first = sorted(found.entries, key=lambda one: -one.reward)
            assert [one.text for one in best_first] == done["pool_responses"]
            assert [one.reward for one in best_first] == done["pool_scores"]
            assert [one.kind for one in best_first] == wanted
            old = found.records()


def test_conditions_and_ends(fixtures):
    modes = {"Quark_TrainingDataset": "quark", "ALT_RM_TrainingDataset": "rm", "ALT_LMU_TrainingDataset": "lmu"}
    for case in cases(fixtures / "ALT" / "training_sequences.jsonl"):
        mode = modes.get(case["kind"])
        if mode is None:  # lmc stands there in the clothes of lmu: feedback: .. input: ..
            continue
        how = pool.Selection(mode)
        field = "feedbacks" if mode == "lmu" else "quantiles"
        sources = [one for pooled in case["datapool"].values() for one in pooled[field]]
        for row, source in zip(case["rows"], sources, strict=True):
            tag = source if mode == "lmu" else how.names[int(source.strip("_")[-1])]
            assert how.condition(tag) + row["prompt"] == row["input_seq"]


def test_the_guess_whether_a_completion_was_cut(fixtures):
    case = json.loads((fixtures / "ALT" / "truncation_and_collate.json").read_text())
    for one in case["is_truncated"]:
        how = pool.Selection("rm", tokens=lambda text, length=one["token_length"]: length, limit=12)
        assert pool.was_cut(one["generation"], how) == (one["is_truncated"] and one["is_X_tokens"])


def test_attributes_are_those_of_the_categories(fixtures):
    how = pool.Selection("steerlm")
    for case in json.loads((fixtures / "ALT" / "parsers.json").read_text())["map_to_SteerLM"]:
        if case["output"]:
            assert how.names[pool.Selection("lmc").names.index(case["feedback"])] == case["output"]
    assert [(kind.name, kind.attributes) for kind in questions.load_categories()] == list(
        zip(pool.Selection("lmc").names, how.names, strict=True))


# -- worked by hand --------------------------------------------------------------------------------------------


def test_a_pool_becomes_conditioned_records():
    record = {"prompt": "P", "completions": [" a", " b", " c"], "rewards": [0.5, 2, -1], "id": "7",
              "logps": [-1, -2, -3], "finish_reasons": ["stop", "length", "stop"], "completion_ids": [[1], [2], [3]]}
    found = gathered([record], mode="rm", quantiles=2, tags=("Yes.", "No."))
    assert [record for _, record in found.training()] == [
        {"prompt": "P", "condition": "Yes. input: ", "completions": [" b"], "finish_reasons": ["length"],
         "completion_ids": [[2]], "rewards": [2]},
        {"prompt": "P", "condition": "No. input: ", "completions": [" a", " c"],  # the last takes the rest
         "finish_reasons": ["stop", "stop"], "completion_ids": [[1], [3]], "rewards": [0.5, -1]}]
    assert found.records() == [
        {"prompt": "P", "completions": [" a", " b", " c"], "finish_reasons": ["stop", "length", "stop"],
         "completion_ids": [[1], [2], [3]], "rewards": [0.5, 2, -1], "pool": {"mode": "rm", "tags": ["Yes.", "No."]}}]
    assert found.conditions == {"best": "Yes. input: ", "tags": ["Yes. input: ", "No. input: "], "exemplars": [],
                                "role": "user"}


def test_judged_pools():
    record = {"prompt": "P", "completions": ["a", "b", "c", "d", "e"],
              "feedbacks": ["harmful", "Harmless and helpful", None, "Harmful", " "], "scores": [0, 3, 3, 0.5, 1]}
    found = gathered([record], mode="lmc")
    assert drawn(found) == {"P": {"Harmless and helpful.\n\n": ["b"], "Harmful.\n\n": ["a", "d"]}}
    assert found.counts["completions without feedback"] == 2
    assert found.conditions["best"] == "Harmless and very helpful.\n\n"
    texts = {**record, "feedbacks": ["Poor.", "Fine.", "Fine.", "Poor.", "Great. "], "scores": [0, 3, 3, 0.5, 3]}
    found = gathered([texts], mode="lmu")
    assert found.conditions == {"best": "feedback: Fine. input: ", "tags": [],
                                "exemplars": ["feedback: Fine. input: ", "feedback: Great. input: "], "role": "user"}
    assert drawn(found)["P"]["feedback: Poor. input: "] == ["a", "d"]
    steer = {**record, "feedbacks": ["harmful:0,helpful:2", None, None, None, None]}
    assert drawn(gathered([steer], mode="steerlm")) == {"P": {"harmful:0,helpful:2.\n\n": ["a"]}}


def test_a_draw_takes_nothing_twice_and_the_same_in_any_company():
    world = [ranked(12, prompt) for prompt in "ABCD"]
    for how in ({"per_quantile": 1}, {"per_prompt": 7}, {"per_prompt": 3}, {}):
        made = drawn(gathered(world, mode="rm", **how))
        shuffled = random.Random(0).sample(world, 4)
        assert drawn(gathered(shuffled, mode="rm", **how)) == made
        assert drawn(gathered(world[2:3], mode="rm", **how)) == {"C": made["C"]}
        for texts in made.values():
            every = [text for some in texts.values() for text in some]
            assert len(every) == len(set(every)) == how.get("per_prompt", 5 if how else 12)
    other = drawn(gathered(world, mode="rm", per_quantile=1, seed=1))
    assert other != drawn(gathered(world, mode="rm", per_quantile=1))


def test_what_a_class_lacks_the_others_fill():
    record = {"prompt": "P", "completions": [*"abcdefgh"], "feedbacks": ["Harmful"] * 6 + ["Harmless and helpful"] * 2}
    made = drawn(gathered([record], mode="lmc", per_prompt=6))["P"]
    assert sum(map(len, made.values())) == 6 and made.keys() == {"Harmful.\n\n", "Harmless and helpful.\n\n"}
    made = drawn(gathered([record], mode="lmc", per_prompt=8))["P"]
    assert {tag: len(texts) for tag, texts in made.items()} == {"Harmful.\n\n": 6, "Harmless and helpful.\n\n": 2}
    alone = drawn(gathered([record], mode="lmc", per_quantile=3))["P"]  # nothing fills
    assert {tag: len(texts) for tag, texts in alone.items()} == {"Harmful.\n\n": 3, "Harmless and helpful.\n\n": 2}


def test_whole_completions_before_cut_ones():
    cut = ranked(10, finish_reasons=["length", "stop"] * 5)
    for seed in range(5):
        made = drawn(gathered([cut], mode="rm", per_quantile=1, seed=seed))["P"]
        assert [text for (text,) in made.values()] == ["P1", "P3", "P5", "P7", "P9"]


def test_old_ones_are_dropped_by_class_and_new_ones_are_sorted_among_them():
    old, new = ranked(20), {"prompt": "P", "completions": ["late"], "rewards": [9.0]}
    assert sorted_as(gathered([new, ranked(5, "Q")], [old], mode="rm"))["P"] == [("late", None)]  # all are dropped
    found = gathered([new], [old], mode="rm", drop=0.5)
    stayed = [int(one.text[1:]) // 4 for one in found.entries if one.text != "late"]
    assert Counter(stayed) == dict.fromkeys(range(5), 2) and found.counts["old completions dropped"] == 10
    assert [one.kind for one in found.entries if one.text == "late"] == [0]
    whole = gathered([new], [old], mode="rm", drop=0.0)
    assert len(whole.entries) == 21
    # A pool goes through a file and comes back the same; two of them are merged by one after the other.
    again = gathered([], [json.loads(json.dumps(record)) for record in whole.records()], mode="rm", drop=0.0)
    assert again.entries == whole.entries and again.records() == whole.records()
    merged = gathered([], [*whole.records(), *gathered([ranked(5, "Q")], mode="rm").records()], mode="rm", drop=0.0)
    assert {record["prompt"] for record in merged.records()} == {"P", "Q"}


def test_prompts_with_too_few_wait_and_are_counted():
    found = gathered([ranked(5), ranked(4, "Q")], mode="rm")
    assert list(drawn(found)) == ["P"] and found.counts["prompts with too few completions"] == 1
    later = gathered([ranked(1, "Q")], found.records(), mode="rm", drop=0.0)
    assert set(drawn(later)) == {"P", "Q"}


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "change", "words"), [
    ("rm", {"rewards": None}, "rewards: expected an array, got null"),
    ("rm", {"rewards": [1]}, "rewards: 1 entries for 2 completions"),
    ("lmc", {}, "feedbacks: missing"),
    ("lmu", {"feedbacks": ["a", "b"]}, "scores: missing"),
    ("lmu", {"feedbacks": ["a", "b"], "scores": [1, 4]}, r"scores\[1\]: expected 0 to 3, got 4"),
    ("lmc", {"feedbacks": ["Harmful", "Unclear"]}, r"feedbacks\[1\]: 'Unclear' is none of the tags: Harmless and very"),
    ("steerlm", {"feedbacks": ["Harmful", None]}, r"feedbacks\[0\]: 'Harmful' is none of the tags: harmful:0,help"),
    ("rm", {"pool": {"mode": "quark", "tags": ["_Q_"]}}, "pool: made with mode quark and tags _Q_, not mode rm and"),
    ("rm", {"pool": 3}, "pool: expected an object, got a number"),
])
def test_a_record_that_does_not_fit_is_named(how, change, words):
    record = {"prompt": "P", "completions": ["a", "b"], "rewards": [1, 2], **change}
    with pytest.raises(ValueError, match=words):
        pool.Selection(how).check(record)


@pytest.mark.parametrize(("how", "words"), [
    ({"mode": "rm", "quantiles": 6}, "tags: 5 for 6 quantiles; give one for each"),
    ({"mode": "rm", "quantiles": 3, "tags": ("a", "b")}, "tags: 2 for 3 quantiles; give one for each"),
    ({"mode": "rm", "quantiles": 2, "tags": ("Good", "Good one")}, "tags: 'Good' is the beginning of 'Good one'"),
    ({"mode": "lmc", "tags": ("a", "A")}, "tags: 'a' is the beginning of 'A'"),
    ({"mode": "lmc", "tags": ("ab", "c", "Abc", "a d")}, "tags: 'ab' is the beginning of 'Abc'"),
    ({"mode": "lmc", "tags": ("a",)}, "tags: at least two"),
    ({"mode": "lmc", "tags": ("a", " ")}, "tags: one is blank"),
    ({"mode": "quark", "tags": ("a", "b")}, "tags: those of mode quark are its own"),
    ({"mode": "rm", "per_quantile": 1, "per_prompt": 1}, "give one of the two"),
])
def test_draws_that_cannot_be(how, words):
    with pytest.raises(ValueError, match=words):
        pool.Selection(**how)


def test_tags_by_the_hundred_thousand():
    """Comparing each with each, this would not end."""
    assert len(pool.Selection("quark", quantiles=100_000).names) == 100_000


def test_spaces_around_a_tag_are_no_other_category():
    selection = pool.Selection("lmc", tags=(" Good", "Bad "))
    assert [selection.category(feedback) for feedback in ("good ", "bad", "so")] == [0, 1, None]


def test_nothing_to_learn_from():
    with pytest.raises(DataError, match="no completions with feedback"):
        gathered([{"prompt": "P", "completions": ["a"], "feedbacks": [None]}], mode="lmc")
    cure = r"more of them \(al-sample -n\), fewer --quantiles"
    with pytest.raises(DataError, match=rf"the pool has fewer completions than there are quantiles \(5\): {cure}$"):
        gathered([ranked(4)], mode="rm", scope="pool")
    with pytest.raises(DataError, match=rf"every prompt has fewer .* quantiles \(5\): {cure}, or --scope pool$"):
        gathered([ranked(4), ranked(3, "Q")], mode="rm")
