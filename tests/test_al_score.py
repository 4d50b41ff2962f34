"""al-score: its figures against the models' own, its errors, its fields."""

import json
import math
import sys

import pytest

from alignlib.toy import world
from helpers.commands import CLASSES, CONTEXT, folders, lines, one_line, pairs, prompts, read, rewarded, run
from helpers.process import call

NEAR = {"rel": 1e-4, "abs": 1e-5}


def unscored(count: int, k: int = 3) -> list[dict]:
    return [{name: value for name, value in record.items() if name != "rewards"} for record in rewarded(count, k)]


def score(records, *args, model) -> list[dict]:
    done = run("al-score", model, *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def logits_of(path: str, records: list[dict], end: bool = False):
    """One row a completion, each text alone, by transformers' own forward pass: [completions, labels]."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model, encode = AutoModelForSequenceClassification.from_pretrained(path), folders().tokenizer
    texts = [(record["prompt"], text) for record in records for text in record["completions"]]
    rows = [encode(prompt)["input_ids"] + encode(text, add_special_tokens=False)["input_ids"]
            + ([encode.eos_token_id] if end else []) for prompt, text in texts]
    with torch.no_grad():
        return torch.cat([model(torch.tensor([row])).logits for row in rows]).double()


def flat(records: list[dict], field: str = "rewards") -> list[float]:
    return [value for record in records for value in record[field]]


# -- figures -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_line_in_one_line_out():
    record = {"mine": {"x": [None]}, "prompt": "\n\nHuman: Hi\n\nAssistant:", "completions": [" Hello.", ""], "id": "7"}
    (made,) = score([record], model=folders().reward)
    assert list(made.items())[:-1] == list(record.items()) and list(made)[-1] == "rewards"
    assert made["rewards"] == pytest.approx(logits_of(folders().reward, [record])[:, 0].tolist(), **NEAR)
    (again,) = score([{**made, "rewards": [5, 6]}], model=folders().reward)
    assert again == made  # its own field is written anew, in its place


@pytest.mark.slow
def test_a_reward_model_reads_its_score_at_the_last_token():
    records = unscored(9)
    made = score(records, model=folders().reward)
    assert flat(made) == pytest.approx(logits_of(folders().reward, records)[:, 0].tolist(), **NEAR)
    assert flat(score(records, "--negate", model=folders().reward)) == [-value for value in flat(made)]
    assert flat(score(records, "--pack-tokens", 1, model=folders().reward)) == pytest.approx(flat(made), **NEAR)
    lone = flat(score(records, "--as", "prob", model=folders().reward))
    assert lone == pytest.approx([1 / (1 + math.exp(-value)) for value in flat(made)], **NEAR)
    assert flat(score(records, "--as", "logodds", model=folders().reward)) == flat(made)


@pytest.mark.slow
def test_the_end_of_a_text_is_read_where_it_is_asked_for():
    """Whoever made the reward model: one of al-train-rm's that reads no end, and one that says nothing of it."""
    records = unscored(5)
    silent = folders().saying(folders().reward, reads_eos=None)
    for model in (folders().reward, silent):
        for end in ("token", "none"):
            wanted = logits_of(folders().reward, records, end=end == "token")[:, 0].tolist()
            assert flat(score(records, "--end", end, model=model)) == pytest.approx(wanted, **NEAR)
    done = run("al-score", folders().policy, "--logps", "--end", "none", stdin=lines(*records))
    assert done.returncode == 2 and "--end goes with a reward model" in done.stderr


def test_a_classifiers_class_as_logit_probability_and_log_odds():
    records = unscored(5)
    logits = logits_of(folders().classifier, records)
    chances = logits.softmax(-1)
    for number, name in enumerate(CLASSES):
        as_logit = score(records, "--label", name, model=folders().classifier)
        assert flat(as_logit) == pytest.approx(logits[:, number].tolist(), **NEAR)
        assert score(records, "--label", number, model=folders().classifier) == as_logit
    chance = chances[:, 2]
    args = ("--label", "good", "--as")
    assert flat(score(records, *args, "prob", model=folders().classifier)) == pytest.approx(chance.tolist(), **NEAR)
    odds = (chance / (1 - chance)).log()
    assert flat(score(records, *args, "logodds", model=folders().classifier)) == pytest.approx(odds.tolist(), **NEAR)
    negated = score(records, *args, "logodds", "--negate", model=folders().classifier)
    assert flat(negated) == pytest.approx((-odds).tolist(), **NEAR)


def test_log_probabilities_and_perplexities():
    import torch
    from transformers import AutoModelForCausalLM

    records = [{**record, "finish_reasons": ["stop", "length", "stop"]} for record in unscored(4)]
    records[1]["completions"][1] = ""  # cut before its first token: no tokens at all
    model, encode = AutoModelForCausalLM.from_pretrained(folders().policy), folders().tokenizer

    def expected(temperature):
        for record in records:
            for text, reason in zip(record["completions"], record["finish_reasons"], strict=True):
                prompt = encode(record["prompt"])["input_ids"]
                ids = encode(text, add_special_tokens=False)["input_ids"]
                ids += [encode.eos_token_id] if reason == "stop" else []
                with torch.no_grad():
                    logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1:-1].double() / temperature
                yield logits.log_softmax(-1)[range(len(ids)), ids].sum().item(), len(ids)

    plain = list(expected(1))
    made = score(records, "--logps", "--perplexity", model=folders().policy)
    assert list(made[0])[-2:] == ["logps", "perplexities"]
    assert flat(made, "logps") == pytest.approx([logp for logp, _ in plain], **NEAR)
    wanted = [math.exp(-logp / count) if count else 1 for logp, count in plain]
    assert flat(made, "perplexities") == pytest.approx(wanted, **NEAR)
    assert made[1]["logps"][1] == 0 and made[1]["perplexities"][1] == 1
    (alone, *_) = score(records, "--perplexity", model=folders().policy)
    assert list(alone)[-1] == "perplexities" and "logps" not in alone
    cool = score(records, "--logps", "--temperature", 0.5, "--perplexity", model=folders().policy)
    assert flat(cool, "logps") == pytest.approx([logp for logp, _ in expected(0.5)], **NEAR)
    assert flat(cool, "perplexities") == pytest.approx(wanted, **NEAR)
    assert cool[0]["logps_temperature"] == 0.5


def test_perplexities_as_alt(fixtures):
    """There the end of a text does not count, and the empty ones of the toxicity task are left out of the mean."""
    found = json.loads((fixtures / "ALT" / "metrics.json").read_text())

    def perplexities(rows):
        records = [{"prompt": prompt, "completions": texts, "finish_reasons": ["length"] * len(texts)}
                   for prompt, texts in rows]
        return flat(score(records, "--perplexity", "--dtype", "fp32", model=fixtures / "ALT/models/lm"), "perplexities")

    for case in found["perplexity_alt"]:
        rows = [(line["prompt"].removeprefix("Good. input: "), line["generations"]) for line in case["lines"]]
        assert perplexities(rows) == pytest.approx(case["perplexities"], rel=1e-4)
    case = found["conditional_perplexity_toxicity"]
    rows = [(row["prompt"], [one["text"] for one in row["generations"] if one["text"]]) for row in case["rows"]]
    assert sum(made := perplexities(rows)) / len(made) == pytest.approx(case["mean_ppl"], rel=1e-4)


def test_the_temperature_goes_with_its_field():
    made = score(unscored(1), "--logps", "--temperature", 0.7, "--as-field", "ref_logps", model=folders().policy)
    assert made[0]["ref_logps_temperature"] == 0.7 and "logps" not in made[0]
    again = score(made, "--logps", "--as-field", "ref_logps", model=folders().policy)
    assert "ref_logps_temperature" not in again[0]  # 1 is not written, and an old one is wrong now
    assert again[0]["ref_logps"] != made[0]["ref_logps"]


def test_stored_ids_are_scored_as_they_are():
    """Two ways to spell one text: the ids that were drawn count, if they are of this text."""
    encode = folders().tokenizer
    (one,) = encode(" Hello", add_special_tokens=False)["input_ids"][:1]
    text = encode.decode([one])
    letters = [encode.convert_tokens_to_ids(letter) for letter in encode.convert_ids_to_tokens([one])[0]]
    assert len(letters) > 1 and encode.decode(letters) == text
    record = {"prompt": "p", "completions": [text, text, text], "completion_ids": [[one], letters, [9, 9, 9]]}
    (made,) = score([record], "--logps", model=folders().policy)
    whole, spelt, foreign = made["logps"]
    assert whole == foreign != spelt


@pytest.mark.parametrize("name", world.ORACLES)
def test_the_oracles(name):
    records = unscored(3)
    done = run("al-score", f"toy:{name}", stdin=lines(*records))
    expected = [world.score(name, record["prompt"], text) for record in records for text in record["completions"]]
    assert flat(read(done.stdout)) == expected
    assert flat(score(records, "--negate", "--as-field", "mine", model=f"toy:{name}"), "mine") == [-x for x in expected]


def test_messages():
    messages = [{"role": "user", "content": "Hello"}]
    completions = [" Hi.", " Go."]
    chat = folders().templated(folders().reward)
    one = score([{"messages": messages, "completions": completions}], model=chat)
    two = score([{"prompt": "[user] Hello\n[bot]", "completions": completions}], model=folders().reward)
    assert flat(one) == flat(two)
    done = run("al-score", "toy:helpful", stdin=lines({"messages": messages, "completions": completions}))
    assert done.returncode == 65 and "prompt: missing (an oracle reads no messages)" in one_line(done.stderr)


def test_records_of_different_widths_and_lengths_share_a_window():
    records = [*unscored(4, 2), *unscored(3, 5), *unscored(2, 1)]
    made = score(records, model=folders().reward)
    assert [record["id"] for record in made] == [record["id"] for record in records]
    assert flat(made) == pytest.approx(logits_of(folders().reward, records)[:, 0].tolist(), **NEAR)


# -- errors --------------------------------------------------------------------------------------------------

BAD = {
    "broken JSON": b'{"prompt": \n',
    "expected an object, got an array": b"[1]\n",
    "prompt: missing": b'{"completions": ["a"]}\n',
    "completions: missing": b'{"prompt": "p"}\n',
    "completions: empty": b'{"prompt": "p", "completions": []}\n',
    "completions[1]: expected a string, got null": b'{"prompt": "p", "completions": ["a", null]}\n',
    "rewards: 1 entries for 2 completions": b'{"prompt": "p", "completions": ["a", "b"], "rewards": [1]}\n',
    "NaN is no number in JSON": b'{"prompt": "p", "completions": ["a"], "rewards": [NaN]}\n',
    "invalid UTF-8 at byte": b'{"prompt": "\xff", "completions": ["a"]}\n',
    "finish_reasons[0]: expected": b'{"prompt": "p", "completions": ["a"], "finish_reasons": ["done"]}\n',
}


@pytest.mark.parametrize("model", ["reward", "toy:helpful"])
@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_in_the_middle(what, model):
    records = unscored(3)
    data = lines(*records[:2]) + BAD[what] + lines(records[2])
    done = run("al-score", getattr(folders(), model, model), stdin=data)
    assert done.returncode == 65 and f"<stdin>:3: {what}" in one_line(done.stderr)
    assert [record["id"] for record in read(done.stdout)] == [record["id"] for record in records[:2]]


def test_bad_lines_put_aside(tmp_path):
    records = unscored(len(BAD) + 1)
    mixed = [part for record, bad in zip(records[1:], BAD.values(), strict=True) for part in (bad, lines(record))]
    data = lines(records[0]) + b"".join(mixed)
    file, rejects = tmp_path / "in", tmp_path / "rejects"
    file.write_bytes(data)
    done = run("al-score", folders().reward, file, "--on-error", "skip", "--rejects", rejects)
    assert done.returncode == 0 and f"{len(records)} records, {len(BAD)} skipped" in done.stderr
    assert read(done.stdout) == score(records, model=folders().reward)
    assert rejects.read_bytes() == b"".join(BAD.values())
    assert f"skipped {file}:2: broken JSON" in done.stderr


def test_no_records():
    for model in (folders().reward, "toy:helpful"):
        done = run("al-score", model)
        assert (done.returncode, done.stdout) == (0, "") and "0 records" in one_line(done.stderr)


def test_too_long(tmp_path):
    long = {"prompt": "wash the old door. " * 100, "completions": ["a", "b" * 500], "id": "long"}
    records = [*unscored(1, 2), long]
    done = run("al-score", folders().reward, stdin=lines(*records))
    assert done.returncode == 0 and "1 prompts cut, 1 completions cut" in done.stderr
    assert all(map(math.isfinite, flat(read(done.stdout))))
    skipped = run("al-score", folders().reward, "--on-long", "skip", stdin=lines(*records))
    assert skipped.returncode == 0 and "1 records, 1 skipped" in skipped.stderr
    failed = run("al-score", folders().reward, "--on-long", "fail", stdin=lines(*records))
    assert failed.returncode == 65 and "<stdin>:2: too long: " in one_line(failed.stderr)
    assert read(skipped.stdout) == read(failed.stdout)
    assert flat(read(failed.stdout)) == pytest.approx(flat(read(done.stdout)[:1]), **NEAR)  # in another batch
    done = run("al-score", folders().reward, "--max-length", CONTEXT + 1, stdin=lines(*records))
    assert done.returncode == 2 and f"the model's context is {CONTEXT} tokens" in one_line(done.stderr)


def test_wrong_models_are_2_in_one_line():
    for what, (path, word) in folders().wrong(folders().reward).items():
        done = run("al-score", path, stdin=lines(*unscored(1)))
        assert (done.returncode, done.stdout) == (2, ""), what
        message = one_line(done.stderr)
        assert path in message and word in message, what
    done = run("al-score", folders().policy, stdin=lines(*unscored(1)))
    assert done.returncode == 2 and "a reward model (sequence classifier) is needed here" in one_line(done.stderr)
    done = run("al-score", folders().reward, "--logps", stdin=lines(*unscored(1)))
    assert done.returncode == 2 and "a policy is needed here" in one_line(done.stderr)


@pytest.mark.parametrize("kind,args", [("reward", ()), ("policy", ("--logps",)), ("policy", ("--perplexity",)),
                                       ("classifier", ("--label", "good", "--as", "prob"))])
def test_a_model_of_nan_is_1_and_names_the_record(kind, args):
    done = run("al-score", folders().broken(getattr(folders(), kind)), *args, stdin=lines(*unscored(2)))
    assert (done.returncode, done.stdout) == (1, "")
    assert "<stdin>:1: " in done.stderr and "not finite" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("model,args,message", [
    ("classifier", (), "name one with --label"),
    ("classifier", ("--label", "nice"), "--label nice: "),
    ("classifier", ("--label", "3"), "--label 3: "),
    ("reward", ("--temperature", "2"), "--temperature goes with --logps"),
    ("reward", ("--as-field", "prompt"), "--as-field prompt: that field holds something else"),
    ("policy", ("--logps", "--negate"), "go with a classifier"),
    ("policy", ("--logps", "--label", "good"), "go with a classifier"),
    ("policy", ("--perplexity", "--as", "prob"), "go with a classifier"),
    ("policy", ("--perplexity", "--as-field", "mine"), "--as-field goes with --logps"),
    ("policy", ("--logps", "--temperature", "0"), "--temperature"),
    ("toy:nobody", (), "no such oracle; there are overall, helpful"),
    ("toy:helpful", ("--logps",), "an oracle"),
    ("toy:helpful", ("--label", "good"), "an oracle"),
    ("length", ("--logps",), "length: a program, neither a policy nor a classifier"),
    ("math", ("--end", "token"), "--end goes with a reward model"),
    ("length", ("--timeout", "3"), "--timeout goes with cmd:PROGRAM"),
    ("py:none.py:f", (), "py:none.py:f: none.py: no such file"),
    ("cmd:no-such-program", (), "no-such-program: no such program"),
    ("reward", ("--device", "banana"), "--device banana: no such device"),
    ("reward", ("--device", "cuda:99"), "--device cuda:99: torch finds"),
    ("reward", ("--resume",), "--resume goes with --output"),
    ("reward", ("--rejects", "x"), "--rejects needs --on-error skip"),
])
def test_what_would_do_nothing_is_refused(model, args, message):
    done = run("al-score", getattr(folders(), model, model), *args, stdin=lines(*unscored(1)))
    assert (done.returncode, done.stdout) == (2, "") and message in one_line(done.stderr)


@pytest.mark.slow
def test_output_and_resume(tmp_path):
    (tmp_path / "in").write_bytes(lines(*unscored(4)))
    args = (folders().reward, tmp_path / "in", "-o", tmp_path / "out")
    assert run("al-score", *args).returncode == 0
    assert read((tmp_path / "out").read_text()) == score(unscored(4), model=folders().reward)
    again = run("al-score", *args, "--resume")
    assert again.returncode == 0 and "complete: nothing to resume" in again.stderr
    for wrong, message in (((tmp_path / "none",), "no such file"), ((tmp_path,), "a folder, not a file"),
                           ((tmp_path / "in", "-o", tmp_path / "in"), "would be overwritten"),
                           ((tmp_path / "in", "-o", tmp_path / "none" / "out"), "no such folder")):
        done = run("al-score", folders().reward, *wrong)
        assert done.returncode == 2 and message in one_line(done.stderr)


def test_pairs_and_prompts_are_named_as_what_they_lack():
    for record in (pairs(1)[0], prompts(1)[0]):
        done = run("al-score", folders().reward, stdin=lines(record))
        assert done.returncode == 65 and "<stdin>:1: completions: missing" in one_line(done.stderr)


@pytest.mark.slow
def test_a_name_that_is_no_model_is_told_in_one_line():
    done = call("al-score", "no-such/model", stdin='{"prompt": "p", "completions": ["a"]}\n')
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "no-such/model" in done.stderr


def test_rewards_do_not_go_into_a_field_of_log_probabilities():
    done = run("al-score", "toy:polite", "--as-field", "ref_logps", stdin='{"prompt": "p", "completions": ["a"]}\n')
    assert done.returncode == 2 and "--logps" in done.stderr


def test_an_oracle_wants_a_prompt_that_is_one():
    record = '{"prompt": 5, "completions": [""]}\n'
    done = run("al-score", "toy:polite", stdin=record)
    assert done.returncode == 65 and "prompt: expected a string" in done.stderr


# -- programs -------------------------------------------------------------------------------------------------

REWARDS = """
def words(record, completions):
    return [len(text.split()) / record.get('by', 1) for text in completions]
"""
JUDGE = "import json, sys\nfor line in sys.stdin:\n    print(len(json.loads(line)['completion'].split()))\n"


@pytest.fixture
def programs(tmp_path):
    """A function and a program that both count words, beside the rule that does."""
    (tmp_path / "word_rewards.py").write_text(REWARDS)
    (tmp_path / "judge.py").write_text(JUDGE)
    return [f"py:{tmp_path}/word_rewards.py:words", f"cmd:{sys.executable} -S {tmp_path}/judge.py", "length"]


@pytest.mark.slow
def test_programs_score_as_models_do(programs):
    records = unscored(3, 2)
    expected = [len(text.split()) for record in records for text in record["completions"]]
    for program in programs:
        made = score(records, model=program)
        assert flat(made) == expected and [list(record)[-1] for record in made] == ["rewards"] * 3
        assert flat(score(records, "--negate", "--as-field", "mine", model=program), "mine") == [-x for x in expected]
        cut = [len(text.partition(".")[0].split()) for record in records for text in record["completions"]]
        assert flat(score(records, "--stop", ".", model=program)) == cut


def test_a_program_s_failure_names_the_record_and_what_was_done_stays(programs):
    records = unscored(3)
    records[1]["by"] = 0
    done = run("al-score", programs[0], stdin=lines(*records))
    assert done.returncode == 1 and len(read(done.stdout)) == 1
    assert one_line(done.stderr).startswith(f"al-score: <stdin>:2: {programs[0]}: ZeroDivisionError: ")
    done = run("al-score", programs[0], "-v", stdin=lines(*records))
    assert "Traceback" in done.stderr and "in words" in done.stderr


def test_what_a_program_fails_at_is_put_aside_where_bad_lines_are(programs, tmp_path):
    records = unscored(3)
    records[1]["by"] = 0
    (tmp_path / "in").write_bytes(lines(*records))
    done = run("al-score", programs[0], tmp_path / "in", "--on-error", "skip", "--rejects", tmp_path / "rejects")
    assert done.returncode == 0 and "2 records, 1 skipped" in done.stderr
    assert f"skipped {tmp_path}/in:2: {programs[0]}: ZeroDivisionError" in done.stderr
    assert [record["id"] for record in read(done.stdout)] == [records[0]["id"], records[2]["id"]]
    assert (tmp_path / "rejects").read_bytes() == lines(records[1])


@pytest.mark.slow
def test_a_program_that_dies_is_silent_or_writes_too_much_ends_the_run(tmp_path):
    (tmp_path / "in").write_bytes(lines(*unscored(2, 2)))
    for code, more, message in (
        ("input(); print(1)", (), "<stdin>:1: {}: ended with exit code 0 (1 of 2 numbers)"),
        ("import sys; sys.stdin.read()", ("--timeout", 0.2), "<stdin>:1: {}: silent for 0.2 s; "),
        ("import sys\nfor line in sys.stdin: print(1)\nprint(1)", (), "<stdin>:2: {}: wrote more lines than it was"),
        ("import sys\nfor line in sys.stdin: print('x')", (), "completions[0]: expected a finite number, got 'x'"),
    ):
        (tmp_path / "judge.py").write_text(code)
        program = f"cmd:{sys.executable} -S {tmp_path}/judge.py"
        done = run("al-score", program, *more, stdin=lines(*unscored(2, 2)))
        assert done.returncode == 1 and message.format(program) in one_line(done.stderr)
        assert len(read(done.stdout)) == (2 if "wrote" in message else 0)


@pytest.mark.slow
def test_a_program_that_has_changed_goes_on_with_no_run_of_the_other(programs, tmp_path):
    records = unscored(3)
    records[1]["by"] = 0
    (tmp_path / "in").write_bytes(lines(*records))
    args = (programs[0], tmp_path / "in", "-o", tmp_path / "out")
    assert run("al-score", *args).returncode == 1
    again = run("al-score", *args, "--resume")
    assert again.returncode == 1 and ":2: " in again.stderr
    (tmp_path / "word_rewards.py").write_text(REWARDS.replace("'by', 1", "'by', 1) + (1"))
    done = run("al-score", *args, "--resume")
    assert done.returncode == 2 and "made with other options or another model" in one_line(done.stderr)


def test_math_reads_the_record_s_answer():
    record = {"prompt": "p", "completions": ["#### 4", r"\boxed{5}"], "answer": "5"}
    assert flat(score([record], model="math")) == [0, 1]
    done = run("al-score", "math", stdin=lines(*unscored(1)))
    assert done.returncode == 65 and "<stdin>:1: answer: missing: what math compares with" in one_line(done.stderr)


# -- texts that stop ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stop_strings_cut_what_was_decoded_without_them():
    """As if it had been said while sampling; of what is cut nothing else stays that was said of the whole."""
    free = read(run("al-sample", folders().policy, "-m", 16, "-n", 3, stdin=lines(*prompts(6))).stdout)
    letter = max("aeio", key=lambda one: sum(one in text for record in free for text in record["completions"]))
    stop = ("--stop", letter, "--stop", "\0never")
    told = read(run("al-sample", folders().policy, "-m", 16, "-n", 3, *stop, stdin=lines(*prompts(6))).stdout)
    stale = [{**record, "logps": [0.0] * 3, "rewards": [0.0] * 3, "id": "7"} for record in free]
    done = run("al-score", folders().reward, *stop, "--as-field", "mine", stdin=lines(*stale))
    cut = 0
    for before, one, wanted in zip(stale, read(done.stdout), score(told, model=folders().reward), strict=True):
        assert one["completions"] == wanted["completions"] and one["finish_reasons"] == wanted["finish_reasons"]
        assert one["mine"] == pytest.approx(wanted["rewards"], **NEAR)
        changed = [text != other for text, other in zip(one["completions"], before["completions"], strict=True)]
        assert set(before) - set(one) == ({"logps", "rewards"} if any(changed) else set())
        cut += sum(changed)
    assert 0 < cut < 18 and f"18 completions, {cut} stopped" in done.stderr
    oracle = score(told, model="toy:polite")
    assert flat(score(free, *stop, model="toy:polite")) == flat(oracle)


@pytest.mark.parametrize(("args", "said"), [(("--logps", "--stop", "x"), "--stop goes with rewards"),
                                            (("--stop", ""), "--stop: an empty text")])
def test_stop_strings_that_make_no_sense_are_refused(args, said):
    done = run("al-score", folders().policy, *args, stdin=lines(*unscored(1)))
    assert (done.returncode, done.stdout) == (2, "") and said in one_line(done.stderr)
