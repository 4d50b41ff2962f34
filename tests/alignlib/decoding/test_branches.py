"""Branches of texts that are read once: the states of whole texts, and what becomes of models that cannot have them."""

import random

import click
import pytest
import torch
import transformers

from alignlib.decoding import branches
from alignlib.models.policy import Policy
from alignlib.models.windows import Window
from helpers import tiny


@pytest.mark.parametrize("kind", [branches.Tree, branches.Copies])
@pytest.mark.parametrize("family", [*tiny.FAMILIES, "mistral", "gemma2", "llama4"])
@pytest.mark.slow
def test_whatever_is_read_kept_forgotten_and_copied(family, kind):
    """A random walk over three slots in little room; after each pass the states are those of whole texts.

    They go on for four windows, where the family knows any.
    """
    model = Policy(tiny.causal(family, **tiny.windowed(family, 5)).double(), tiny.tokenizer())
    chance, texts, longest = random.Random(family), [[], [], []], 0

    def tokens(least, most):
        return [chance.randrange(256) for _ in range(chance.randint(least, most))]

    with torch.inference_mode():
        slots = kind(model, 3, 8)
        for _ in range(25):
            some = sorted(chance.sample(range(3), chance.randint(1, 3)))
            readings = [(slot, tokens(1, 4), tokens(0, 3)) for slot in some]
            if chance.random() < 0.5:  # slots that have all read something look at as many branches alone
                readings = [(slot, [] if texts[slot] else read, [1, 2, 3]) for slot, read, _ in readings]
            hidden = list(slots.ask(readings))
            for slot, read, candidates in readings:
                for token in read:
                    texts[slot] = [*texts[slot], token]
                    same(hidden.pop(0), alone(model, texts[slot]))
                for token in candidates:
                    same(hidden.pop(0), alone(model, [*texts[slot], token]))
            picks = {slot: chance.randrange(len(candidates))
                     for slot, _, candidates in readings[chance.randint(0, 1):] if candidates}
            slots.keep(list(picks.items()))
            for slot, _, candidates in readings:
                texts[slot] = [*texts[slot], candidates[picks[slot]]] if slot in picks else texts[slot]
            if chance.random() < 0.3:
                slots.copy(some[0], 2)
                texts[2] = texts[some[0]]
            if chance.random() < 0.3 and texts[1]:  # another text that begins alike
                texts[1] = [*texts[1][:chance.randint(0, len(texts[1]))], *tokens(1, 3)]
                slots.ask([(1, slots.rewind(1, texts[1]), [])])
            assert slots.read == texts
            longest = max(longest, *map(len, texts))
    assert longest > 20


def same(states: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(states, wanted, rtol=1e-6, atol=1e-6)  # some families compute parts in float32


def alone(model: Policy, text: list[int]) -> torch.Tensor:
    return model.body(input_ids=torch.tensor([text]), use_cache=False).last_hidden_state[0, -1]


def test_a_model_that_gives_other_numbers_is_given_copies(capsys, monkeypatch):
    """Positions off by one, say."""
    model, build_part = Policy(tiny.causal("gpt2"), tiny.tokenizer()), branches.build_part

    def wrong(*args):
        part = build_part(*args)
        part.places += 1
        return part

    monkeypatch.setattr(branches, "build_part", wrong)
    assert branches.texts_type(model) is branches.Copies
    assert "candidates on a shared cache differ by" in capsys.readouterr().err
    assert model.core.config._attn_implementation != branches.NAME


@pytest.mark.parametrize("family", ["falcon", "stablelm", "gptj"])
def test_an_attention_that_cannot_be_replaced_gives_copies(family, capsys):
    """Falcon's is a class of its own, StableLM hands nothing on to its."""
    assert branches.texts_type(Policy(tiny.causal(family), tiny.tokenizer())) is branches.Copies
    assert "candidates on a shared cache fail (its attention cannot be replaced)" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_a_window_that_is_not_heeded_gives_copies(family, monkeypatch, capsys):
    """In texts on load that are shorter than it."""
    model = Policy(tiny.causal(family), tiny.tokenizer())
    monkeypatch.setattr(branches, "layer_windows", lambda config: [("full_attention", None)] * 2)
    assert branches.texts_type(model) is branches.Copies
    assert "candidates on a shared cache differ by" in capsys.readouterr().err


def test_keys_before_a_window_are_not_looked_at():
    """One token of two texts: nothing is masked, and no column before their window is read."""
    part = branches.build_part([(0, [1], []), (1, [2], [])], [9, 9], [None, Window(4), Window(4, chunked=True)],
                               torch.float32, torch.device("cpu"))
    assert {window: (view.first, view.mask) for window, view in part.views.items()} == {
        None: (0, None), Window(4): (6, None), Window(4, chunked=True): (8, None)}


def test_a_model_that_cannot_be_copied_either_is_refused():
    """Mamba's state is no list of keys and values."""
    mamba = transformers.MambaForCausalLM(transformers.MambaConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=32, num_hidden_layers=2)).eval()
    with pytest.raises(click.UsageError, match="a MambaForCausalLM cannot be asked about a text that goes on: copies"):
        branches.texts_type(Policy(mamba, tiny.tokenizer()))
