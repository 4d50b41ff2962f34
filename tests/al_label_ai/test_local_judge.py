"""A judge that runs here: a policy, by the probabilities of the options."""

import json
from pathlib import Path

import pytest

from al_label_ai import questions
from al_label_ai.answers import verdict_form
from helpers.commands import folders, lines, one_line, read, run
from helpers.judging import pairs

pytestmark = pytest.mark.slow


def roomy(path: str) -> str:
    """A copy of a tiny model that was made for longer texts."""
    copy = folders().without(path)
    for name, field in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        settings = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps(settings | {field: 4096}))
    return str(copy)


@pytest.mark.parametrize("chat", [True, False])
def test_a_model_judges_by_the_options_probabilities(chat):
    """The same as its own log-probabilities of A, B, C, in both orders; nothing is drawn."""
    import torch
    import transformers

    path = roomy(folders().templated(folders().policy) if chat else folders().policy)
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    done = run("al-label-ai", "--judge", path, stdin=lines(*pairs(6)))
    assert done.returncode == 0, done.stderr
    expected = []
    template = questions.Template(questions.packaged_text("pair"), questions.packaged_text("question-general"),
                                   verdict_form(), {"first": "answer A", "second": "answer B"})
    for record in pairs(6):
        letters = []
        for texts in (record["completions"], record["completions"][::-1]):
            messages = template.fill(record, *texts).messages
            text = (tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) if chat
                    else messages[0]["content"] + "\n\nAnswer:")
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            bos = [] if chat else [tokenizer.bos_token_id]  # the template brings its own
            sums = []
            for option in "ABC":
                own = tokenizer((" " if not chat else "") + option, add_special_tokens=False)["input_ids"]
                with torch.no_grad():
                    logps = model(torch.tensor([[*bos, *ids, *own]])).logits[0].log_softmax(-1)
                start = len(bos) + len(ids)
                sums.append(sum(logps[start + i - 1, token].item() for i, token in enumerate(own)))
            letters.append("ABC"[sums.index(max(sums))])
        expected.append((letters[0] + letters[1] in ("AB", "BA", "CC"), {"AB": 0, "BA": 1}.get("".join(letters))))
    assert [(record["orders_agree"], record["winner"]) for record in read(done.stdout)] == expected


def test_a_model_sorts_and_rates_but_does_not_write():
    path = roomy(folders().policy)
    names = {kind.name for kind in questions.load_categories()}
    done = run("al-label-ai", "--judge", path, "--mode", "lmc", stdin=lines(*pairs(2)))
    assert all(name in names for record in read(done.stdout) for name in record["feedbacks"]), done.stderr
    done = run("al-label-ai", "--judge", path, "--mode", "rate", stdin=lines(*pairs(2)))
    assert all(1 <= score <= 10 for record in read(done.stdout) for score in record["scores"])
    done = run("al-label-ai", "--judge", path, "--mode", "lmu", stdin=lines(*pairs(2)))
    assert done.returncode == 2 and "a judge that writes" in one_line(done.stderr)


def test_a_question_longer_than_the_models_context_is_not_cut():
    done = run("al-label-ai", "--judge", folders().policy, stdin=lines(*pairs(1)))
    assert done.returncode == 65 and "<stdin>:1: too long: " in one_line(done.stderr)


def test_judges_that_are_none():
    for path, word in folders().wrong(folders().policy).values():
        if Path(path).is_dir():
            done = run("al-label-ai", "--judge", path, stdin=lines(*pairs(1)))
            assert done.returncode == 2 and word in one_line(done.stderr)
    done = run("al-label-ai", "--judge", str(folders().broken(roomy(folders().policy))), stdin=lines(*pairs(1)))
    assert done.returncode == 1 and "<stdin>:1: the judge gives figures that are not finite" in done.stderr
