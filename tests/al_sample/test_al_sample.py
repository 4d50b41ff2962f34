"""al-sample: what it writes, what it draws, what it refuses."""

import json

import pytest

from helpers.commands import CONTEXT, folders, lines, one_line, pairs, prompts, read, run

M = ("-m", 12)


def sample(records, *args, model=None) -> list[dict]:
    done = run("al-sample", model or folders().policy, *M, *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


@pytest.mark.slow
def test_one_line_in_one_line_out():
    record = {"mine": {"x": [None, 1.5]}, "prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello.", "id": "7"}
    (made,) = sample([record])
    assert list(made.items())[:4] == list(record.items())  # the fields it does not know, in their order
    assert list(made)[4:] == ["completions", "finish_reasons"]
    assert len(made["completions"]) == 1 and made["finish_reasons"][0] in ("stop", "length")


def test_old_completions_go_with_all_that_went_with_them():
    old = {"prompt": "p", "completions": ["a"], "rewards": [1], "logps": [-1], "logps_temperature": 0.7,
           "ref_logps": [-2], "ref_logps_temperature": 0.7, "condition": "old", "id": "7",
           "winner": 0, "win_probability": 0.9, "human_winner": 1, "orders_agree": True, "unparsed": [None]}
    (made,) = sample([old], "-n", 2)
    assert set(made) == {"prompt", "id", "completions", "finish_reasons"} and len(made["completions"]) == 2


def test_ids_decode_to_the_text_and_lengths_agree_with_the_reasons():
    made = sample(prompts(20), "-n", 4, "--ids", "-t", "0.7")
    assert all(list(record)[-4:] == ["completions", "finish_reasons", "completion_ids", "end_ids"] for record in made)
    draws = [draw for record in made for draw in zip(*list(record.values())[-4:-1], strict=True)]
    assert {reason for _, reason, _ in draws} == {"stop", "length"}  # both occur
    for text, reason, ids in draws:
        assert folders().tokenizer.decode(ids, skip_special_tokens=True) == text
        assert (len(ids) == 12) if reason == "length" else (len(ids) < 12)
        assert folders().tokenizer.eos_token_id not in ids


@pytest.mark.slow
def test_a_seed_and_a_place_decide_a_draw_and_nothing_else():
    records = prompts(7)
    four = sample(records, "-n", 4)
    assert sample(records, "-n", 4) == four
    other = sample(records, "-n", 4, "--seed", 1)
    assert all(a["completions"] != b["completions"] for a, b in zip(four, other, strict=True))
    assert sample(records, "-n", 4, "--seed", -1) not in (four, other, sample(records, "-n", 4, "--seed", -2))
    assert all(len(set(record["completions"])) == 4 for record in four)
    # Neither how many are drawn, nor windows, nor batches, nor what else is in the file
    first = [{**record, "completions": record["completions"][:1], "finish_reasons": record["finish_reasons"][:1]}
             for record in four]
    assert sample(records, "-n", 1) == first
    assert sample(records, "-n", 4, "--window", 2) == four
    assert sample(records, "-n", 4, "--batch-tokens", 200) == four
    assert sample(records[:3], "-n", 4) == four[:3]


@pytest.mark.slow
def test_greedy_is_the_most_likely_token_each_time():
    import torch
    from transformers import AutoModelForCausalLM

    records = prompts(5)
    made = sample(records, "--greedy", "--ids", "-n", 2)
    assert sample(records, "-t", 0, "--ids", "-n", 2) == made
    assert sample(records, "--top-k", 1, "--ids", "-n", 2) == made
    assert sample(records, "--top-p", 1e-6, "--ids", "-n", 2) == made
    model = AutoModelForCausalLM.from_pretrained(folders().policy)
    for record in made:
        prompt = folders().tokenizer(record["prompt"])["input_ids"]
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt):].tolist()
        expected = [i for i in expected if i != folders().tokenizer.eos_token_id]
        assert record["completion_ids"] == [expected, expected]


def test_several_temperatures_are_named():
    (made,) = sample(prompts(1), "-t", 0, "-t", 1.5, "-n", 2)
    assert made["temperatures"] == [0, 0, 1.5, 1.5]
    assert len(made["completions"]) == len(made["finish_reasons"]) == 4
    assert made["completions"][0] == made["completions"][1] != made["completions"][2] != made["completions"][3]


@pytest.mark.slow
def test_low_temperatures_and_small_nuclei_raise_the_likelihood():
    mean = {}
    for args in (("-t", 1), ("-t", 0.3), ("--top-p", 0.3), ("--top-k", 5)):
        made = sample(prompts(8), "-n", 8, "--logps", *args)
        scored = run("al-score", folders().policy, "--logps", stdin=lines(*made))
        mean[args] = sum(sum(record["logps"]) for record in read(scored.stdout))
    assert all(mean[args] > mean["-t", 1] + 100 for args in mean if args != ("-t", 1))


@pytest.mark.slow
def test_a_condition_steers_the_sampling_and_stays_out_of_the_prompt():
    records = prompts(4)
    made = sample(records, "--condition", "Be kind. ", "--ids", "--logps")
    assert all(record["condition"] == "Be kind. " for record in made)
    assert [record["prompt"] for record in made] == [record["prompt"] for record in records]
    joined = [{"prompt": "Be kind. " + record["prompt"]} for record in records]
    as_one = sample(joined, "--ids", "--logps")
    assert [r["completion_ids"] for r in made] == [r["completion_ids"] for r in as_one]
    plain = sample(records, "--ids")
    assert [r["completion_ids"] for r in made] != [r["completion_ids"] for r in plain]
    assert [r["logps"] for r in made] != [r["logps"] for r in as_one]  # of the bare prompt
    scored = run("al-score", folders().policy, "--logps", stdin=lines(*made))
    for one, other in zip(made, read(scored.stdout), strict=True):
        assert one["logps"] == pytest.approx(other["logps"], rel=1e-5)


def conditioned(**kept):
    """The policy with such conditions in its run.json."""
    folder = folders().without(folders().policy)
    (folder / "run.json").write_text(json.dumps({"conditions": {"best": "", "tags": [], "exemplars": [], **kept}}))
    return folder


@pytest.mark.slow
def test_conditions_that_the_policy_was_trained_under():
    tags = ["Good. input: ", "Bad. input: "]
    policy = conditioned(best=tags[0], tags=tags)
    for said, text in (("best", tags[0]), ("tag:1", tags[0]), ("tag:2", tags[1])):
        named = run("al-sample", policy, *M, "--condition", said, stdin=lines(*prompts(3)))
        assert named.returncode == 0 and {record["condition"] for record in read(named.stdout)} == {text}
        assert named.stdout == run("al-sample", policy, *M, "--condition", text, stdin=lines(*prompts(3))).stdout
    for said, words in (("exemplars", "has none; there are best and tag:1 to tag:2"), ("tag:3", "has tags 1 to 2"),
                        ("tag:0", "has tags 1 to 2"), ("tag:Good.", "expected the tag's number"),
                        ("tag:-1", "expected the tag's number")):
        done = run("al-sample", policy, *M, "--condition", said, stdin=lines(*prompts(1)))
        assert (done.returncode, done.stdout) == (2, "") and words in one_line(done.stderr)


@pytest.mark.slow
def test_an_exemplar_is_drawn_for_each_prompt_in_any_company():
    exemplars = [f"feedback: {word} input: " for word in ("fine", "kind", "short")]
    policy = conditioned(best=exemplars[0], exemplars=exemplars)
    made = run("al-sample", policy, *M, "--condition", "exemplars", stdin=lines(*prompts(12))).stdout
    drawn = {record["id"]: record["condition"] for record in read(made)}
    assert set(drawn.values()) == set(exemplars)
    other = run("al-sample", policy, *M, "--condition", "exemplars", stdin=lines(*prompts(12)[::-1])).stdout
    assert {record["id"]: record["condition"] for record in read(other)} == drawn
    seeded = run("al-sample", policy, *M, "--condition", "exemplars", "--seed", 1, stdin=lines(*prompts(12))).stdout
    assert {record["id"]: record["condition"] for record in read(seeded)} != drawn
    # What was drawn is what was sampled under.
    (first,) = read(run("al-sample", policy, *M, "--condition", drawn["toy-dialogue-train-0-0"],
                        stdin=lines(prompts(1)[0])).stdout)
    assert first == read(made)[0]
    done = run("al-sample", policy, *M, "--condition", "tag:1", stdin=lines(*prompts(1)))
    assert done.returncode == 2 and "has no tags, but exemplars" in one_line(done.stderr)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"conditions": {"best": 1, "tags": [], "exemplars": []}}',
                                     '{"conditions": {"best": "a", "tags": [1], "exemplars": []}}',
                                     '{"conditions": []}'])
def test_a_model_without_conditions_is_2_in_one_line(content):
    policy = folders().policy
    if content is not None:
        policy = folders().without(policy)
        (policy / "run.json").write_text(content)
    done = run("al-sample", policy, *M, "--condition", "best", stdin=lines(*prompts(1)))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{policy}/run.json" in one_line(done.stderr) and "conditions" in done.stderr


def test_stop_strings_end_a_completion_and_are_left_out():
    free = sample(prompts(10), "-n", 4)
    texts = [text for record in free for text in record["completions"]]
    letter = max("aeio", key=lambda one: sum(one in text for text in texts))
    made = sample(prompts(10), "-n", 4, "--stop", letter, "--stop", "\0\0never")
    assert any(letter in text for text in texts)
    for before, after in zip(free, made, strict=True):
        for old, new, reason in zip(before["completions"], after["completions"], after["finish_reasons"], strict=True):
            assert new == old.split(letter)[0]
            assert reason == "stop" or letter not in old


def test_messages_are_rendered_by_the_chat_template():
    turns = (("user", "Hello"), ("bot", "Hi."), ("user", "?"))
    messages = [{"role": role, "content": content} for role, content in turns]
    (made,) = sample([{"messages": messages, "id": "7"}], "-n", 2, model=folders().templated(folders().policy))
    assert list(made)[:2] == ["messages", "id"] and made["messages"] == messages
    (plain,) = sample([{"prompt": "[user] Hello\n[bot] Hi.\n[user] ?\n[bot]"}], "-n", 2)
    assert made["completions"] == plain["completions"]
    done = run("al-sample", folders().policy, stdin=lines({"messages": messages}))
    assert done.returncode == 65 and "<stdin>:1: messages: the tokenizer has no chat template" in one_line(done.stderr)


# -- bad lines, long lines -----------------------------------------------------------------------------------


def test_a_bad_line_in_the_middle(tmp_path):
    good, bad = prompts(5), b'{"prompt": 3}\n'
    data = lines(*good[:3]) + bad + lines(*good[3:])
    done = run("al-sample", folders().policy, *M, stdin=data)
    assert done.returncode == 65
    assert one_line(done.stderr) == "al-sample: <stdin>:4: prompt: expected a string, got a number"
    assert [record["id"] for record in read(done.stdout)] == [record["id"] for record in good[:3]]
    rejects = tmp_path / "rejects"
    done = run("al-sample", folders().policy, *M, "--on-error", "skip", "--rejects", rejects, stdin=data)
    assert done.returncode == 0 and rejects.read_bytes() == bad
    assert [record["id"] for record in read(done.stdout)] == [record["id"] for record in good]
    assert "skipped <stdin>:4" in done.stderr and "5 records, 1 skipped" in done.stderr


@pytest.mark.slow
def test_files_stdin_and_output_say_the_same(tmp_path):
    (tmp_path / "a").write_bytes(lines(*prompts(4)[:2])), (tmp_path / "b").write_bytes(lines(*prompts(4)[2:]))
    piped = run("al-sample", folders().policy, *M, stdin=lines(*prompts(4)))
    assert run("al-sample", folders().policy, tmp_path / "a", tmp_path / "b", *M).stdout == piped.stdout
    args = (folders().policy, tmp_path / "a", "-", *M, "-o", tmp_path / "out")
    done = run("al-sample", *args, stdin=(tmp_path / "b").read_bytes())
    assert done.stdout == "" and (tmp_path / "out").read_text() == piped.stdout
    assert not (tmp_path / "out.state").exists()
    done = run("al-sample", *args, "--resume", stdin=(tmp_path / "b").read_bytes())
    assert done.returncode == 0 and "complete: nothing to resume" in done.stderr
    assert (tmp_path / "out").read_text() == piped.stdout


def test_no_records():
    done = run("al-sample", folders().policy)
    assert (done.returncode, done.stdout) == (0, "") and "0 records" in one_line(done.stderr)


@pytest.mark.slow
def test_a_prompt_that_is_too_long_alone(tmp_path):
    long = {"prompt": "wash the old door. " * 100, "id": "long"}
    records = [prompts(2)[0], long, prompts(2)[1]]
    made = run("al-sample", folders().policy, *M, "--logps", stdin=lines(*records))
    assert made.returncode == 0 and "1 prompts cut" in made.stderr and len(read(made.stdout)) == 3
    # The end stays, behind a BOS: as if only that had been there.
    ids = folders().tokenizer(long["prompt"], add_special_tokens=False)["input_ids"]
    kept = folders().tokenizer.decode(ids[-(CONTEXT - 12 - 1):])
    assert folders().tokenizer(kept)["input_ids"][1:] == ids[-(CONTEXT - 12 - 1):]
    assert sample([records[0], {"prompt": kept}])[1]["completions"] == read(made.stdout)[1]["completions"]
    start = sample(records, "--keep-prompt", "start")
    assert start[1]["completions"] != read(made.stdout)[1]["completions"]
    skipped = run("al-sample", folders().policy, *M, "--on-long", "skip", stdin=lines(*records))
    assert skipped.returncode == 0 and "2 records, 1 skipped" in skipped.stderr
    assert [record["id"] for record in read(skipped.stdout)] == [records[0]["id"], records[2]["id"]]
    failed = run("al-sample", folders().policy, *M, "--on-long", "fail", stdin=lines(*records))
    assert failed.returncode == 65 and "<stdin>:2: too long: " in one_line(failed.stderr)
    assert len(read(failed.stdout)) == 1


# -- models --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_wrong_models_are_2_in_one_line():
    for what, (path, word) in folders().wrong(folders().policy).items():
        done = run("al-sample", path, stdin=lines(*prompts(1)))
        assert (done.returncode, done.stdout) == (2, ""), what
        message = one_line(done.stderr)
        assert path in message and word in message, what
    done = run("al-sample", folders().reward, stdin=lines(*prompts(1)))
    assert done.returncode == 2 and "a policy is needed here" in one_line(done.stderr)


@pytest.mark.slow
def test_a_cut_checkpoint_is_2_in_one_line():
    folder = folders().without(folders().policy)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-500])
    done = run("al-sample", folder, stdin=lines(*prompts(1)))
    assert done.returncode == 2 and str(folder) in one_line(done.stderr)
    (folder / "model.safetensors").write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    done = run("al-sample", folder, stdin=lines(*prompts(1)))
    message = "down_proj.weight is [32, 64], the configuration wants [32, 48]"
    assert done.returncode == 2 and message in one_line(done.stderr)


@pytest.mark.parametrize("how", [("--logps",), ("--greedy",), ("--top-p", "0.9", "--top-k", "3")])
def test_a_model_of_nan_is_1_and_names_the_record(how):
    done = run("al-sample", folders().broken(folders().policy), *how, stdin=lines(prompts(1)[0]))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("<stdin>:1: the model's logits are not finite\n")


def test_more_new_tokens_than_the_context_has():
    done = run("al-sample", folders().policy, "-m", CONTEXT, stdin=lines(*prompts(1)))
    assert done.returncode == 2 and f"the model's context is {CONTEXT} tokens" in one_line(done.stderr)
    done = run("al-sample", folders().policy, "-m", CONTEXT - 1, "--ids", stdin=lines(*prompts(3)))
    assert done.returncode == 0 and "3 prompts cut" in done.stderr
    assert all(len(record["completion_ids"][0]) < CONTEXT for record in read(done.stdout))


def test_the_summary_counts_what_was_drawn():
    made = run("al-sample", folders().policy, *M, "-n", 8, "--ids", stdin=lines(*pairs(2)))
    drawn = sum(len(ids) + (reason == "stop") for record in read(made.stdout)
                for ids, reason in zip(record["completion_ids"], record["finish_reasons"], strict=True))
    assert f"2 records, {drawn} tokens, 16 completions" in made.stderr


def test_what_would_do_nothing_is_refused():
    for args, said in ((("--stop", ""), "--stop"), (("--greedy", "-t", 0.7), "--greedy")):
        done = run("al-sample", folders().policy, *args, stdin='{"prompt": "Hi"}\n')
        assert done.returncode == 2 and said in done.stderr and done.stdout == ""
