"""Conversations through the commands: what is sampled is what is scored and trained on, whatever form the data has."""

import json

import pytest
import torch
import transformers

from alignlib.models import load
from helpers import tiny
from helpers.commands import folders, lines, one_line, read, run

USER, BLUE, NO = ({"role": "user", "content": "A colour?"}, {"role": "assistant", "content": "Blue."},
                  {"role": "assistant", "content": "No."})
MORE, GREEN = {"role": "user", "content": "Another?"}, {"role": "assistant", "content": "Green."}
STRICT = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
          "{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
          "{{ raise_exception('Roles must alternate') }}{% endif %}<|im_start|>{{ m['content'] | trim }}<|im_end|>"
          "{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}")


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """Gemma's and Llama 3's shape: two ends in the generation config, of which the tokenizer's is not the turn's."""
    model = tiny.causal("llama", vocab_size=tiny.VOCABULARY + 2, max_position_embeddings=2048)
    model.generation_config.eos_token_id = [tiny.VOCABULARY - 2, tiny.TURN_END]
    with torch.no_grad():  # so that turns end, both ways
        model.get_output_embeddings().weight[[tiny.VOCABULARY - 2, tiny.TURN_END, tiny.TURN_START]] *= 2
    return tiny.save(model, tmp_path_factory.mktemp("chat") / "model", tiny.chat_tokenizer(bos=False))


def commanded(name, *args, records, code=0):
    done = run(name, *args, stdin=lines(*records))
    assert done.returncode == code, done.stderr
    return read(done.stdout)


def changed(model, tmp_path, **words):
    """A copy of a folder whose tokenizer has other words."""
    folder = folders().without(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    for name, value in words.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    return folder


# -- ends ----------------------------------------------------------------------------------------------------


def test_what_ended_a_sample_is_scored_and_trained_on(chat, tmp_path):
    """Sample, score, train: the ids and the end that were drawn, whichever of the two it was."""
    records = [{"messages": [USER]}, {"messages": [USER, BLUE, MORE]}, {"prompt": "the end"}]
    sampled = commanded("al-sample", chat, "-n", 12, "-m", 16, "--logps", "--dtype", "fp32", records=records)
    ends = {end for record in sampled for end in record["end_ids"]}
    assert ends == {tiny.VOCABULARY - 2, tiny.TURN_END, None}
    for record in sampled:
        assert [end is None for end in record["end_ids"]] == [why == "length" for why in record["finish_reasons"]]
    scored = commanded("al-score", chat, "--logps", "--dtype", "fp32", records=sampled)
    for one, other in zip(sampled, scored, strict=True):
        assert one["logps"] == pytest.approx(other["logps"], abs=1e-4)
    policy = load.load_policy(chat, "cpu", "fp32")
    encoder = load.encoder_for(policy)
    for record in sampled:
        example = tiny.contrast("dpo-rw", ref="ref_logps").example(
            encoder, {**record, "rewards": [*range(12)], "ref_logps": record["logps"]})
        drawn = [ids + [end] * (end is not None)
                 for ids, end in zip(record["completion_ids"], record["end_ids"], strict=True)]
        assert example.completions == drawn
        logits = policy.core(torch.tensor([example.prompt + drawn[0]])).logits[0].log_softmax(-1)
        own = sum(logits[len(example.prompt) + i - 1, token].item() for i, token in enumerate(drawn[0]))
        assert record["logps"][0] == pytest.approx(own, abs=1e-4)


def test_the_same_text_has_the_same_log_probability_whatever_the_tokenizer_calls_its_end(chat, tmp_path):
    record = {"messages": [USER], "completions": ["Blue.", "the end"]}
    other = changed(chat, tmp_path, eos_token="<|im_end|>")
    one, two = (commanded("al-score", path, "--logps", "--dtype", "fp32", records=[record]) for path in (chat, other))
    assert one == two
    policy = load.load_policy(chat, "cpu", "fp32")
    ids = policy.tokenizer.apply_chat_template([USER, BLUE])["input_ids"][:-1]  # less the line's end behind the turn's
    logits = policy.core(torch.tensor([ids])).logits[0].log_softmax(-1)
    own = sum(logits[place - 1, ids[place]].item() for place in range(len(ids) - 6, len(ids)))
    assert ids[-1] == tiny.TURN_END and one[0]["logps"][0] == pytest.approx(own, abs=1e-4)


def test_a_control_token_may_be_a_stop_string(chat):
    records = [{"messages": [USER]}] * 4
    how = ("-n", 4, "-m", 24, "--ids", "--seed", 1)
    free = commanded("al-sample", chat, *how, records=records)
    ids = [row for record in free for row in record["completion_ids"]]
    token = next(i for row in ids for i in row[1:] if i == tiny.TURN_START)
    stopped = commanded("al-sample", chat, *how, "--stop", "<|im_start|>", records=records)
    rows = [row for record in stopped for row in record["completion_ids"]]
    assert token not in {i for row in rows for i in row}
    assert [row[:row.index(token)] if token in row else row for row in ids] == rows
    assert token in {end for record in stopped for end in record["end_ids"]}


# -- forms of data -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_form_of_a_pair_is_the_same_pair(chat, tmp_path):
    """A rewards model and a policy see one thing, whatever form their records have."""
    forms = [
        {"messages": [USER, BLUE, MORE], "chosen": "Green.", "rejected": "No."},
        {"prompt": [USER, BLUE, MORE], "chosen": [GREEN], "rejected": [NO]},
        {"chosen": [USER, BLUE, MORE, GREEN], "rejected": [USER, BLUE, MORE, NO]},
        {"prompt": "A colour?", "messages": [USER, BLUE, MORE, GREEN], "chosen": [USER, BLUE, MORE, GREEN],
         "rejected": [USER, BLUE, MORE, NO]},
        {"prompt": "Another?", "messages": [USER, BLUE, MORE, GREEN], "rejected": "No."},
    ]
    logps = commanded("al-score", chat, "--logps", records=commanded("al-pref2rw", records=forms))
    assert [record["logps"] for record in logps] == [logps[0]["logps"]] * len(forms)
    for name, more in (("al-sft", ()), ("al-train-rm", ()), ("al-train-exo", ("--loss", "exo-pref"))):
        logs = [commanded(name, chat, "-o", tmp_path / f"{name}{i}", "--steps", 1, *more, records=[form])
                for i, form in enumerate(forms)]
        assert len({entry["loss"] for log in logs for entry in log}) == 1, name


def test_the_answer_is_never_part_of_the_prompt(chat):
    """Rows of ultrachat_200k have a prompt, and messages that end with the answer."""
    row = {"prompt": "A colour?", "prompt_id": "p1", "messages": [USER, BLUE], "chosen": "Blue.", "rejected": "No."}
    (one,), (two,) = (commanded("al-sample", chat, "--greedy", "-m", 8, records=[record])
                      for record in (row, {"messages": [USER]}))
    assert one["completions"] == two["completions"] and {**one, **row} == one  # the rest travels as it came


ROWS = {  # as public sets have them
    "TRL, prompt": {"prompt": [USER]},
    "TRL, prompt and completion": {"prompt": [USER], "completion": [BLUE]},
    "TRL, preference": {"prompt": [USER], "chosen": [BLUE], "rejected": [NO]},
    "TRL, no prompt": {"chosen": [USER, BLUE], "rejected": [USER, NO]},
    "OpenAI": {"messages": [USER, BLUE]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "A colour?"}, {"from": "gpt", "value": "Blue."}]},
    "Alpaca": {"instruction": "A colour?", "input": "", "output": "Blue."},
    "question": {"question": "A colour?", "answer": "Blue."},
    "response": {"prompt": "A colour?", "response": "Blue."},
    "ultrachat_200k": {"prompt": "A colour?", "prompt_id": "p", "messages": [USER, BLUE]},
    "ultrafeedback_binarized": {"prompt": "A colour?", "prompt_id": "p", "chosen": [USER, BLUE], "score_chosen": 8.0,
                                "rejected": [USER, NO], "score_rejected": 5.0, "messages": [USER, BLUE]},
}
COMMANDS = {"al-sample": ("-m", 4), "al-args": ("-m", 4), "al-score": (), "al-pref2rw": (), "al-label-ai": (),
            "al-sft": ("--steps", 1), "al-train-rm": ("--steps", 1), "al-train-exo": ("--steps", 1),
            "al-train-ppo": ("--steps", 1, "--reward", "length", "-n", 2, "-m", 4)}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.slow
def test_every_public_row_works_or_names_its_cure(name, chat, tmp_path):
    """After the cure, it works wherever the row has what the command needs."""
    rm = folders().saying(folders().reward, reads_eos=False)
    models = {"al-args": (folders().policy, rm), "al-label-ai": ("--judge", chat), "al-pref2rw": ()}.get(name, (chat,))
    for i, (kind, row) in enumerate(ROWS.items()):
        trains = name == "al-sft" or name.startswith("al-train-")
        done = run(name, *models, *COMMANDS[name], *(("-o", tmp_path / f"raw{i}") if trains else ()),
                   *(("--logps",) if name == "al-score" else ()), stdin=lines(row))
        assert done.returncode in (0, 65), (kind, done.stderr)
        pair = "rejected" in row
        if name in ("al-pref2rw", "al-label-ai", "al-train-rm", "al-train-exo"):
            assert (done.returncode == 0) == pair, (kind, done.stderr)
        if name == "al-score" and pair:
            assert "al-pref2rw makes them of chosen and rejected" in done.stderr, kind
        elif done.returncode == 65 and not {"messages", "prompt", "chosen"} & row.keys():
            assert "al-data chat makes records of the usual public forms" in done.stderr, kind


@pytest.mark.parametrize("name", ["al-sample", "al-score", "al-sft", "al-train-exo", "al-train-rm", "al-train-ppo",
                                  "al-pref2rw"])
def test_fields_that_do_not_agree_are_bad_data(name, chat, tmp_path):
    bad = {"prompt": "A shape?", "messages": [USER], "chosen": "a", "rejected": "b", "completions": ["a", "b"],
           "rewards": [1, 0]}
    more = {"al-sample": (chat,), "al-score": (chat, "--logps"), "al-pref2rw": ("--to", "pref"),
            "al-train-ppo": (chat, "--reward", "length", "-o", tmp_path / "out")}.get(
        name, (chat, "-o", tmp_path / "out"))
    done = run(name, *more, stdin=lines(bad))
    assert (done.returncode, done.stdout) == (65, "")
    assert "<stdin>:1: prompt: neither the user's first or last turn of messages, nor all of them" in done.stderr


@pytest.mark.slow
def test_every_turn_may_be_learnt(chat, tmp_path):
    """The loss of all turns in one row is that of a record for each of them."""
    whole = {"messages": [USER, BLUE, MORE, GREEN]}
    each = [{"messages": [USER], "chosen": "Blue."}, {"messages": [USER, BLUE, MORE], "chosen": "Green."}]
    how = ("--steps", 1, "--dtype", "fp32", "--loss", "sequence", "--batch-size", 2)
    (all_turns,) = commanded("al-sft", chat, "-o", tmp_path / "all", *how, "--turns", "all", records=[whole])
    (apart,) = commanded("al-sft", chat, "-o", tmp_path / "apart", *how, records=each)
    (last,) = commanded("al-sft", chat, "-o", tmp_path / "last", *how, records=[whole])
    assert all_turns["loss"] == pytest.approx(2 * apart["loss"], rel=1e-5) != last["loss"]
    assert all_turns["tokens"] < apart["tokens"]


def test_a_judge_takes_chosen_and_rejected_for_two_answers(chat):
    """What people preferred stays, as human_winner."""
    pair = {"messages": [USER], "chosen": "Blue.", "rejected": "No."}
    judge = ("--judge-rm", folders().templated(folders().reward))
    (one,) = commanded("al-label-ai", *judge, records=[pair])
    (two,) = commanded("al-label-ai", *judge, records=[{"messages": [USER], "completions": ["Blue.", "No."]}])
    assert one["human_winner"] == 0 and one["winner"] == two["winner"] and one["chosen"] == two["chosen"]


def test_a_judge_in_a_folder_takes_a_template_and_its_arguments(chat, tmp_path):
    """Another template is another question, and arguments reach it; a server has its own."""
    pair = {"messages": [USER], "chosen": "Blue.", "rejected": "No."}
    (tmp_path / "strict.jinja").write_text("{% if not kind %}{{ raise_exception('Be kind') }}{% endif %}" + tiny.CHATML)
    strict = ("--judge", chat, "--chat-template", tmp_path / "strict.jinja")
    done = run("al-label-ai", *strict, stdin=lines(pair))
    assert done.returncode == 65 and "<stdin>:1: messages: the chat template refuses them (Be kind)" in done.stderr
    kind = commanded("al-label-ai", *strict, "--template-arg", "kind=true", records=[pair])
    assert kind == commanded("al-label-ai", "--judge", chat, records=[pair])
    done = run("al-label-ai", "--judge", "m", "--base-url", "http://localhost:1/v1", *strict[2:], stdin=lines(pair))
    assert done.returncode == 2 and "--chat-template goes with a model's folder" in done.stderr


# -- templates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "more"), [
    ("al-sample", ("-m", 4)), ("al-score", ("--logps",)), ("al-sft", ("-o",)), ("al-train-exo", ("-o",)),
    ("al-train-rm", ("-o",)), ("al-train-alt", ("--quantiles", 2, "-o")),
    ("al-train-ppo", ("--reward", "length", "-m", 4, "--prompts", 1, "-n", 2, "-o"))])
def test_a_template_that_refuses_a_record_is_bad_data(name, more, chat, tmp_path):
    strict = changed(chat, tmp_path, chat_template=STRICT)
    system = {"role": "system", "content": "Be short."}
    answers = {"chosen": "a", "rejected": "b", "completions": ["a", "b"], "rewards": [1, 0]}
    records = [{"messages": turns, **answers} for turns in ([USER], [system, USER], [USER, USER])]
    more = (*more, tmp_path / "out") if more[-1] == "-o" else more
    done = run(name, strict, *more, stdin=lines(*records))
    assert done.returncode == 65
    assert "<stdin>:2: messages: the chat template refuses them (System role not supported)" in done.stderr
    if more[-1] == tmp_path / "out":
        done = run(name, strict, *more, "--on-error", "skip", "--steps", 1, stdin=lines(*records))
        said, times = done.stderr.splitlines(), 2 if name == "al-train-alt" else 1  # under each of two conditions
        assert done.returncode == 0 and f" {2 * times} skipped" in said[-1]
        named = [line.split(": ")[0] for line in said if line.startswith("skipped")]
        assert named == ["skipped <stdin>:2"] * times + ["skipped <stdin>:3"] * times
    else:
        rejects = folders().new("rejects")
        done = run(name, strict, *more, "--on-error", "skip", "--rejects", rejects, stdin=lines(*records))
        assert done.returncode == 0 and len(read(done.stdout)) == 1
        assert rejects.read_bytes() == lines(*records[1:])


def test_a_template_that_does_not_parse_is_a_usage_error(chat, tmp_path):
    (tmp_path / "bad.jinja").write_text("{% for %}")
    done = run("al-sample", chat, "--template", tmp_path / "bad.jinja", stdin=lines({"messages": [USER]}))
    assert (done.returncode, done.stdout) == (2, "")
    assert "the chat template: line 1: Expected an expression" in one_line(done.stderr)


@pytest.mark.slow
def test_another_template_and_its_arguments(chat, tmp_path):
    """--template replaces the folder's and goes into what is trained with it; --template-arg reaches it."""
    file = tmp_path / "plain.jinja"
    file.write_text("{{ tone }} {{ messages[-1].content }}<|im_end|>")
    how = ("--template", file, "--template-arg", "tone=low")
    (one,) = commanded("al-sample", chat, *how, "--greedy", "-m", 8, records=[{"messages": [USER]}])
    (two,) = commanded("al-sample", chat, "--greedy", "-m", 8, "--control-tokens",
                       records=[{"prompt": "low A colour?<|im_end|>"}])
    assert one["completions"] == two["completions"]
    commanded("al-sft", chat, *how, "-o", tmp_path / "out", "--steps", 1, records=[{"messages": [USER, BLUE]}])
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == file.read_text()


def test_a_plain_prompt_to_a_chat_model_is_noted_once(chat):
    done = run("al-sample", chat, "-m", 4, stdin=lines({"prompt": "a"}, {"prompt": "b"}))
    assert done.stderr.count("note: ") == 1 and f"{chat} has a chat template" in done.stderr
    assert "note: " not in run("al-sample", chat, "-m", 4, stdin=lines({"messages": [USER]})).stderr


# -- conditions ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_condition_stands_in_a_conversation(chat, tmp_path):
    """What al-train-alt trained under, al-sample samples under, as run.json says."""
    records = [{"messages": [USER], "completions": ["Blue.", "No."], "rewards": [1, 0]}]
    alt = tmp_path / "alt"
    commanded("al-train-alt", chat, "-o", alt, "--quantiles", 2, "--tags", "Good.", "--tags", "Bad.", "--steps", 1,
              "--condition-as", "system", records=records)
    assert json.loads((alt / "run.json").read_text())["conditions"]["role"] == "system"
    how = ("--greedy", "-m", 8)
    (best,) = commanded("al-sample", alt, "--condition", "best", *how, records=[{"messages": [USER]}])
    system = {"role": "system", "content": "Good. input:"}
    (by_hand,) = commanded("al-sample", alt, *how, records=[{"messages": [system, USER]}])
    (in_turn,) = commanded("al-sample", alt, "--condition", "best", "--condition-as", "user", *how,
                           records=[{"messages": [USER]}])
    (said,) = commanded("al-sample", alt, *how, records=[{"messages": [{**USER, "content": "Good. input: A colour?"}]}])
    assert best["messages"] == [USER] and best["completions"] == by_hand["completions"]
    assert in_turn["completions"] == said["completions"]


def test_conditioned_conversations_are_emitted(chat):
    records = [{"messages": [USER], "completions": ["Blue.", "No."], "rewards": [1, 0]}]
    emitted = commanded("al-train-alt", chat, "--emit", "--quantiles", 2, "--tags", "Good.", "--tags", "Bad.",
                        records=records)
    assert [(record["messages"], record["condition"], record["completions"]) for record in emitted] == [
        ([USER], "Good. input: ", ["Blue."]), ([USER], "Bad. input: ", ["No."])]


