"""Examples against the originals: what their data sets make of the same records."""

import json
from collections import Counter

from transformers import AutoTokenizer

from alignlib.models.encoding import Encoder

FREE = {"max_length": 10**6, "max_completion": 10**5}


def cases(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def attended(row):
    return [token for token, seen in zip(row["input_ids"], row["attention_mask"], strict=True) if seen]


def test_exact_dataset(fixtures):
    """EXO's training rows. Ours are the same wherever nothing is cut and no token crosses the border.

    On purpose not the same otherwise: the original decodes, glues and encodes again, so that a token may be made
    of the prompt's last and the completion's first letter (ours never are: training sees what sampling saw), its
    prompt_len is then wrong, and it cuts the prompt for each completion apart (ours once, for all K).
    """
    seen = Counter()
    folder = fixtures / "exact-optimization"
    for case in cases(folder / "tokenize_exact_dataset.jsonl"):
        words = AutoTokenizer.from_pretrained(folder / "tokenizers" / case["tokenizer"])
        limited = Encoder(words, max_length=case["max_seq_len"], max_completion=case["max_gen_len"])
        record, free = {"prompt": case["sample"]["prompt"]}, Encoder(words, **FREE)
        ours = limited.encode(record, case["sample"]["completions"])
        whole = free.encode(record, case["sample"]["completions"])
        assert len(ours.prompt) >= 1 and ours.length <= len(ours.prompt) + len(ours.completions) * case["max_gen_len"]
        for text, row, long, theirs in zip(case["sample"]["completions"], ours.completions, whole.completions,
                                           case["rows"], strict=True):
            merged = words(record["prompt"] + text)["input_ids"] != whole.prompt + long[:-1]
            cut = ours.prompt != whole.prompt or row != long
            if not merged and not cut:
                assert attended(theirs) == ours.prompt + row
                assert theirs["prompt_len"] == len(ours.prompt)
                seen["the same"] += 1
            elif merged and not cut:
                # The same text in other tokens; ours are the prompt's own and the completion's own.
                assert attended(theirs) != ours.prompt + row
                assert words.decode(ours.prompt + row, True) == words.decode(attended(theirs), True)
                seen["merged"] += 1
            else:
                assert row == long[:limited.completion_limit(0)] and len(ours.prompt) + len(row) <= case["max_seq_len"]
                seen["cut"] += 1
    assert min(seen["the same"], seen["merged"], seen["cut"]) > 0, seen


def test_preference_dataset(fixtures):
    """EXO's reward model rows: the score is read at the last token but end-of-sequence, which ours never have."""
    seen = Counter()
    folder = fixtures / "exact-optimization"
    for case in cases(folder / "tokenize_pref_dataset.jsonl"):
        words = AutoTokenizer.from_pretrained(folder / "tokenizers" / case["tokenizer"])
        for side in ("chosen", "rejected"):
            prompt, text = case["sample"]["prompt"], case["sample"][side]
            ours = Encoder(words, **FREE, eos=False).encode({"prompt": prompt}, [text])
            joined = ours.prompt + ours.completions[0]
            cut = len(joined) + 1 > case["max_seq_len"] or len(ours.completions[0]) + 1 > case["max_gen_len"]
            merged = words(prompt + text)["input_ids"] != joined
            theirs = attended(case[side])
            if cut or merged:
                seen["cut" if cut else "merged"] += 1
                assert cut or theirs[:case[side]["class_pos"] + 1] != joined
            else:
                assert theirs == [*joined, words.eos_token_id] and case[side]["class_pos"] == len(joined) - 1
                seen["the same"] += 1
    assert min(seen["the same"], seen["merged"], seen["cut"]) > 0, seen


def test_study_batch_element(fixtures):
    """The RLAIF study's rows, which are joined as ids like ours.

    On purpose not the same: ours begin with the BOS of a tokenizer that has one; cut, our prompts keep all that fits
    (the original cuts them to max_prompt_length and both answers to the rest, even where there was room).
    """
    seen = Counter()
    folder = fixtures / "dpo-rlaif"
    for case in cases(folder / "tokenize_batch_element.jsonl"):
        if case.get("raises"):
            seen["raises"] += 1
            continue
        words = AutoTokenizer.from_pretrained(folder / "tokenizers" / case["tokenizer"])
        keep = case["truncation_mode"].removeprefix("keep_")
        texts, record = [case["chosen"], case["rejected"]], {"prompt": case["prompt"]}
        ours = Encoder(words, **FREE, keep=keep).encode(record, texts)
        bare = ours.prompt[1:] if ours.prompt[0] == words.bos_token_id else ours.prompt
        seen["begins with BOS"] += bare != ours.prompt
        if max(len(bare) + len(row) for row in ours.completions) <= case["max_length"]:
            for side, row in zip(("chosen", "rejected"), ours.completions, strict=True):
                assert case["output"][f"{side}_input_ids"] == bare + row
                assert case["output"][f"{side}_labels"] == [-100] * len(bare) + row
            seen["the same"] += 1
        else:
            room = case["max_length"] - case["max_prompt_length"]
            limits = {"max_length": case["max_length"], "max_prompt": case["max_prompt_length"]}
            short = Encoder(words, **limits, max_completion=room, keep=keep).encode(record, texts)
            assert all(len(short.prompt) + len(row) <= case["max_length"] for row in short.completions)
            assert [len(row) for row in short.completions] == [min(len(row), room) for row in ours.completions]
            seen["cut"] += 1
    assert min(seen["the same"], seen["cut"], seen["begins with BOS"], seen["raises"]) > 0, seen
