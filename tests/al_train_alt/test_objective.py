"""ALT's objective on packs of a tiny policy: what it reads, its figures, its reference, its coefficient."""

import pytest
import torch

from al_train_alt.objective import Conditional
from alignlib.models.encoding import Encoder
from alignlib.models.example import Example
from alignlib.models.policy import Policy
from alignlib.training.engine import AskingEngine
from helpers import tiny

RECORD = {"prompt": "Say the word.", "condition": "Good. ", "completions": [" Yes.", " No, never."]}


def conditional(**changes) -> Conditional:
    return Conditional(**{"kl_coef": 0.5, "entropy_coef": 0.25, "kl_target": None, "ref_sees": "prompt",
                          "batch_size": 8, **changes})


def policy(seed=0) -> Policy:
    return Policy(tiny.causal("llama", seed), tiny.tokenizer())


def encoder(**limits) -> Encoder:
    return Encoder(tiny.tokenizer(), max_length=tiny.CONTEXT, **limits)


def settled(objective: Conditional) -> Example:
    """RECORD as the only example there is."""
    examples = tiny.stored([objective.example(encoder(), RECORD)])
    objective.settle(examples, tiny.stored([]))
    return examples[0]


def referred(objective: Conditional, example: Example) -> Example:
    """The example, the only one there is, as the reference sees it."""
    objective.settle(tiny.stored([example]), tiny.stored([]))
    return objective.referred(0)


def test_the_policy_reads_the_condition_and_the_reference_the_bare_prompt():
    objective, words = conditional(), tiny.tokenizer()
    example = objective.example(encoder(), RECORD)
    assert words.decode(example.prompt).endswith("Good. Say the word.")
    seen = referred(objective, example)
    assert words.decode(seen.prompt).endswith("Say the word.") and "Good" not in words.decode(seen.prompt)
    assert seen.completions == example.completions
    assert objective.size(example) == sum(map(len, example.completions))
    seeing = conditional(ref_sees="condition")
    example = seeing.example(encoder(), RECORD)
    assert referred(seeing, example).prompt == example.prompt


def test_examples_are_numbered_as_the_reference_has_them():
    objective = conditional()
    examples = [objective.example(encoder(), {**RECORD, "prompt": prompt}) for prompt in "abc"]
    assert [example.values["number"] for example in examples] == [[0, 0], [1, 1], [2, 2]]
    objective.settle(tiny.stored(examples[:2]), tiny.stored(examples[2:]))
    assert [objective.referred(number).prompt for number in range(3)] == [example.bare for example in examples]


def test_tokens_that_the_reference_cannot_read_are_encoded_anew():
    objective, words = conditional(first_new=tiny.VOCABULARY - 3), tiny.tokenizer()
    ids = [words(text, add_special_tokens=False)["input_ids"] for text in RECORD["completions"]]
    plain = objective.example(encoder(), {**RECORD, "completion_ids": ids})
    said = objective.example(encoder(), {**RECORD, "completion_ids": [[*ids[0], tiny.VOCABULARY - 3], ids[1]]})
    assert said.completions == plain.completions


def test_the_loss_is_its_parts_and_the_likelihood_the_policys():
    objective, model = conditional(), policy()
    objective.refer(model, policy(seed=1), AskingEngine(model))
    batch = model.pack([settled(objective)])
    loss, figures = objective(model, batch)
    nll, kl, entropy = (figures[name].item() for name in ("nll", "kl", "entropy"))
    assert loss.item() == pytest.approx(nll + 0.5 * kl - 0.25 * entropy, rel=1e-5) and kl > 0.1
    assert nll == pytest.approx(-model.logps(batch).sum().item(), rel=1e-5)
    assert set(figures) == set(objective.sized)


def test_a_policy_has_no_kl_to_itself_under_the_same_prompt():
    objective, model = conditional(ref_sees="condition"), policy()
    objective.refer(model, policy(), AskingEngine(model))
    _, figures = objective(model, model.pack([settled(objective)]))
    assert figures["kl"].item() == pytest.approx(0, abs=1e-5)


def test_without_a_reference_there_is_no_kl():
    objective, model = conditional(kl_coef=0.0), policy()
    batch = model.pack([objective.example(encoder(), RECORD)])
    with torch.no_grad():
        loss, figures = objective(model, batch)
    assert figures["kl"].item() == 0
    assert loss.item() == pytest.approx((figures["nll"] - 0.25 * figures["entropy"]).item())


def test_the_coefficient_moves_towards_its_target_and_the_log_has_the_one_that_was_used():
    objective = conditional(kl_target=1.0, batch_size=1000)
    entry = {"kl": 9.0}
    objective.stepped(entry)
    assert entry["kl_coef"] == 0.5 and objective.state["kl_coef"] == pytest.approx(0.5 * (1 + 0.2 * 1000 / 10_000))
    fixed, entry = conditional(), {"kl": 9.0}
    fixed.stepped(entry)
    assert entry == {"kl": 9.0} and fixed.state["kl_coef"] == 0.5
