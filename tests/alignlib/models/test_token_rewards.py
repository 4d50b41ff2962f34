"""Reward models of next tokens: texts' rewards and tokens' values against whole passes, and which folders are such."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from al_train_rm.start import new_token_reward
from alignlib.models import heads, load, token_rewards
from alignlib.models.example import Example
from alignlib.models.policy import Policy, RewardModel
from alignlib.models.token_rewards import NextTokenReward, VocabularyReward
from helpers import tiny
from helpers.commands import folders, lines, one_line, prompts, run

EXAMPLES = [tiny.example(6, 9, 4, 1, seed=1), tiny.example(3, 2, 7, 5, seed=2), tiny.example(4, 0, 5, 3, seed=3)]


def values(family: str = "llama", **changes) -> VocabularyReward:
    return VocabularyReward(tiny.causal(family, seed=4, **changes), tiny.tokenizer())


@torch.no_grad()
def value(model: VocabularyReward, text: list[int]) -> float:
    """Of a text's last token, by a whole pass over what comes before it."""
    return model.core(input_ids=torch.tensor([text[:-1]])).logits[0, -1, text[-1]].item()


def test_a_text_is_worth_its_log_probability():
    model = NextTokenReward(tiny.causal("llama"), tiny.tokenizer())
    with torch.no_grad():
        batch = model.pack(EXAMPLES)
        assert torch.equal(model.scores(batch), Policy(model.core, model.tokenizer).logps(batch))


@pytest.mark.parametrize("family", [*tiny.FAMILIES, "gemma2", "cohere", "bloom"])
@pytest.mark.slow
def test_a_text_is_worth_its_last_tokens_value_at_the_position_before(family):
    """Under caps and scales too; of prompts that are shared, and of empty completions, which end with their prompt."""
    model = values(family)
    with torch.no_grad():
        scores = model.scores(model.pack(EXAMPLES))
    for example, row in zip(EXAMPLES, scores.tolist(), strict=True):
        wanted = [value(model, example.prompt + completion) for completion in example.completions]
        assert row == pytest.approx(wanted, abs=1e-4)


def test_nothing_is_worth_what_goes_on_from_there():
    """An empty completion of a prompt of one token has no position before it: the best text's value counts."""
    model = values()
    with torch.no_grad():
        scores = model.scores(model.pack([Example([7], [[], [5]]), Example([7, 8], [[], [5]])]))
        assert scores[0, 0].item() == pytest.approx(model.core(torch.tensor([[7]])).logits.max().item(), abs=1e-5)
        assert scores[0, 1].item() == pytest.approx(value(model, [7, 5]), abs=1e-5) and scores[1].isfinite().all()
        assert model.scores(model.pack([Example([7, 8], [[]])])).item() == pytest.approx(value(model, [7, 8]), abs=1e-5)


def test_values_of_tokens_and_the_best_ones(monkeypatch):
    """In chunks too; no gradient reaches the states through the best."""
    model = values()
    hidden = torch.randn(12, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    tokens = torch.arange(12) * 7
    logits = model.logits(hidden)
    for chunk in (token_rewards.logps.CHUNK, 5 * tiny.VOCABULARY):
        monkeypatch.setattr(token_rewards.logps, "CHUNK", chunk)
        mine, best = model.values(hidden, tokens)
        torch.testing.assert_close(mine, logits.gather(1, tokens[:, None])[:, 0])
        torch.testing.assert_close(best, logits.amax(-1))
        assert mine.requires_grad and not best.requires_grad


def test_values_are_made_in_float32():
    """As scores are: in bf16 those of alike texts would tie. Embeddings that are the head too stay as they are."""
    model = VocabularyReward(tiny.causal("llama", tie_word_embeddings=True).bfloat16(), tiny.tokenizer())
    head = model.core.get_output_embeddings()
    assert isinstance(head, heads.Float32Linear) and head.weight.dtype == torch.float32
    assert model.core.get_input_embeddings().weight.dtype == torch.bfloat16
    with torch.no_grad():
        assert model.scores(model.pack(EXAMPLES)).dtype == torch.float32


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.slow
def test_a_folder_loads_as_it_was_saved(family, tmp_path):
    """transformers too: a language model whose logits are values, of a head of its own."""
    policy = tiny.save(tiny.causal(family), tmp_path / "policy")
    made = new_token_reward(VocabularyReward, policy, tiny.recipe("x"))
    rows = made.core.get_output_embeddings().weight
    assert (rows == rows[0]).all() and rows[0].norm().item() == pytest.approx(1, abs=0.5)
    rows.data += torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
    load.save(made, tmp_path / "rm")
    read = load.load_reward(str(tmp_path / "rm"), "cpu", "fp32")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "rm")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        wanted = made.core(input_ids=ids).logits
        assert isinstance(read, VocabularyReward)
        torch.testing.assert_close(read.core(input_ids=ids).logits, wanted)
        torch.testing.assert_close(plain(input_ids=ids).logits, wanted)
    again = new_token_reward(VocabularyReward, str(tmp_path / "rm"), tiny.recipe("x"))  # training goes on with its head
    assert torch.equal(again.core.get_output_embeddings().weight, rows)


# -- which folders ------------------------------------------------------------------------------------------------


def kind_in(path: str) -> object:
    return load.token_reward(path)


def test_the_configuration_says_which():
    policy = folders().policy
    assert kind_in(policy) is None and kind_in(folders().reward) is None
    next_token, vocabulary = (str(folders().saying(policy, reward_kind=kind)) for kind in ("next-token", "vocabulary"))
    assert kind_in(next_token) is NextTokenReward and kind_in(vocabulary) is VocabularyReward
    assert kind_in(str(folders().saying(folders().reward, reward_kind="vocabulary"))) is None  # a classifier's head is
    assert isinstance(load.load_reward(folders().reward, "cpu"), RewardModel)
    plain = load.load_policy(next_token, "cpu")  # a policy, as any other; what comes of it is one
    assert type(plain) is Policy and not hasattr(plain.core.config, "reward_kind")
    for command in (("al-sample", vocabulary), ("al-score", "--logps", vocabulary)):
        done = run(*command, stdin=lines({**prompts(1)[0], "completions": [" x"]}))
        assert done.returncode == 2
        assert f"{vocabulary}: a reward model (of the values of next tokens); a policy" in one_line(done.stderr)
    odd = folders().saying(policy, reward_kind="odd")
    done = run("al-score", odd, stdin=lines({**prompts(1)[0], "completions": [" x"]}))
    assert done.returncode == 2
    assert f"{odd}: config.json: reward_kind: expected next-token or vocabulary, got 'odd'" in one_line(done.stderr)
    assert json.loads((odd / "config.json").read_text())["reward_kind"] == "odd"
