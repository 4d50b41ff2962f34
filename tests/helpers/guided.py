"""Guided decoding in tests: tiny models and draws for the decoders, the toy world's models for al-args."""

import functools
import json

import torch

from al_args import best_segments, token_by_token
from al_args.settings import Search
from al_args.token_by_token import GuidedDraw, GuidedModels
from alignlib.decoding.draws import Sampling
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Policy, RewardModel
from helpers import tiny
from helpers.commands import folders, lines, one_line, read, run

NEW = 10  # tokens of a completion
BOS = tiny.VOCABULARY - 3
RAGGED = (3, 17, 1, 30, 8)  # tokens of prompts
M = ("-m", 12)


def models(family="llama", other=None, *, ends_are_tokens=False, reads_eos=False, batch_tokens=1 << 16, new=NEW,
           stop=(), seed=0, window=0) -> GuidedModels:
    """Tiny models in float64, so that no sum's rounding decides what comes next; window: of families that know any."""
    own, others = ((tiny.windowed(name, window) if window else {}) for name in (family, other or family))
    policy = Policy(tiny.causal(family, seed, **own).double(), tiny.tokenizer())
    reward = RewardModel(tiny.classifier(other or family, seed=seed + 1, **others).double(), tiny.tokenizer())
    encoder = Encoder(policy.tokenizer, max_length=tiny.CONTEXT)
    reader = Encoder(reward.tokenizer, max_length=tiny.CONTEXT, eos=reads_eos)
    return GuidedModels(policy, reward, encoder, reader, Sampling(new, stop=stop, seed=5), batch_tokens=batch_tokens,
                        ends_are_tokens=ends_are_tokens)


def closing(both: GuidedModels, end: int | None) -> list[int]:
    """What the reward model reads behind a plain prompt's completion that a token, or none, has ended."""
    (end,) = both.reader.ends_of({"prompt": "", "end_ids": [end]}, 1)
    return [] if end is None else [end]


def draws(*lengths, number=1) -> list[GuidedDraw]:
    """`number` draws for each of the prompts, which have so many tokens; no two rewards see the same."""
    texts = [[BOS, *tiny.example(length, seed=i).prompt] for i, length in enumerate(lengths)]
    return [GuidedDraw(i, j, text, 1.0, where=f"record {i}", reward_prompt=text) for i, text in enumerate(texts)
            for j in range(number)]


@torch.no_grad()
def reward_of(both: GuidedModels, text: list[int]) -> float:
    """By a whole forward pass: the head at the last token."""
    hidden = both.reward.core.base_model(input_ids=torch.tensor([text]), use_cache=False).last_hidden_state
    return both.reward.core.score(hidden)[0, -1, 0].item()


def decode_all(both: GuidedModels, draws: list[GuidedDraw], search: Search) -> list[GuidedDraw]:
    done = list((token_by_token if search.by_token else best_segments).decode(both, draws, search))
    assert sorted(map(id, done)) == sorted(map(id, draws))
    return draws


# -- al-args ---------------------------------------------------------------------------------------------------


def guided(records, *more, lm=None, rm=None) -> list[dict]:
    done = run("al-args", lm or folders().policy, rm or folders().reward, *M, *more, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def refused(*more, lm=None, rm=None, code=2, stdin=b'{"prompt": "Hi"}\n') -> str:
    done = run("al-args", lm or folders().policy, rm or folders().reward, *more, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return one_line(done.stderr)


@functools.cache
def ending() -> str:
    """The policy with more tokens that end a text: every sixteenth, by its generation config."""
    folder = folders().without(folders().policy)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [*range(0, 500, 16)]}))
    return str(folder)
