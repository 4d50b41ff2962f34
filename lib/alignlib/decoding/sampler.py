"""Generation with the local model: many prompts at once, each draw a function of its own name alone.

The draw for a token comes from a counter-based stream keyed by (seed, record, completion, token), so that a resumed
run, or one with other options for the rest, draws what it would have drawn. Other models may have a say in it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from alignlib.decoding.draws import Draw, Sampling, finish_text, stopping_ids
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Policy
from alignlib.models.text_part import find_text_part

D = TypeVar("D", bound=Draw)
Row = TypeVar("Row", bound=Draw, contravariant=True)
ROOM = 64  # tokens of space a cache keeps ahead
LIKELY = 256  # tokens that are looked at first for those that hold top_p
COMPACT = 0.75  # when fewer rows than this share are unfinished, the others leave the batch


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers' types are not read
    """A cache layer that writes new tokens into room kept ahead, instead of copying all it has at every step."""

    keys: Tensor  # [rows, heads, read so far, size], as transformers has them: here views of the rooms
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.rooms: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """[rows, heads, new, size] each, appended to what is there."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.rooms is None or self.rooms[0].shape[-2] < end:
            self.rooms = (self._grow(self.keys, key_states, start, end),
                          self._grow(self.values, value_states, start, end))
        for room, new in zip(self.rooms, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        keys, values = self.rooms
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    @staticmethod
    def _grow(old: Tensor, new: Tensor, start: int, end: int) -> Tensor:
        room = new.new_empty(*new.shape[:2], end + ROOM, new.shape[-1])
        if start:
            room[:, :, :start] = old
        return room

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.rooms = None


def new_cache(config: PreTrainedConfig) -> DynamicCache:
    """A cache for the model; layers of other kinds than plain attention stay what the model wants."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def must_drop_rows(path: str, config: PreTrainedConfig) -> None:
    """Raises UsageError for a policy whose cache cannot let finished rows go: linear attention, convolutions."""
    name = (config.architectures or ["ForCausalLM"])[0]
    if not name.endswith(("ForCausalLM", "LMHeadModel")) and not find_text_part(config):
        return  # no policy, which loading it says
    if not all(hasattr(layer, "batch_select_indices") for layer in new_cache(config).layers):
        raise click.UsageError(f"{path}: a {name} has layers without keys and values (linear attention), from which "
                               "the sampler that is built in cannot draw; --backend vllm or openai may")


def uniforms(seed: int, record: int, completion: int, count: int) -> NDArray[np.float64]:
    """The `count` numbers in [0, 1) that decide a completion's tokens: [count], float64."""
    key = np.array([seed % 2**64, record], dtype=np.uint64)  # a plain list would pass through float64
    stream = np.random.Philox(key=key, counter=[0, 0, 0, completion])
    return np.random.Generator(stream).random(count)


def choose(logits: Tensor, numbers: Tensor, temperatures: Tensor, top_k: int, top_p: float) -> Tensor:
    """One token a row by the inverse of its distribution: [R, V], [R] in [0, 1), [R] -> [R].

    The distribution is softmax(logits / temperature), cut to the top_k most likely tokens and then to the fewest that
    hold top_p of what is left (the first that passes it included), each with those as likely as its last.
    Temperature 0 takes the most likely. Logits that are not finite make no distribution: -1.
    """
    certain = temperatures <= 0
    if certain.all():
        return most_likely(logits)
    scaled = logits.float() / temperatures.clamp(1e-6, 1e30)[:, None]
    if top_k:
        least = scaled.topk(min(top_k, scaled.shape[-1]), -1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    probs = scaled.softmax(-1, dtype=torch.float64)
    if top_p < 1:
        probs = probs.masked_fill(probs < least_of(probs, top_p), 0.0)
    total = probs.cumsum(-1)
    # right = True: a number on a border belongs to the next token with a share, never to one without.
    drawn = torch.searchsorted(total, numbers[:, None] * total[:, -1:], right=True)[:, 0]
    if (over := drawn == probs.shape[-1]).any():  # rounding may pass the last share
        drawn[over] -= 1 + probs[over].flip(-1).gt(0).int().argmax(-1)
    chosen = torch.where(total[:, -1].isfinite(), drawn, -1)
    return torch.where(certain, most_likely(logits), chosen) if certain.any() else chosen


def most_likely(logits: Tensor) -> Tensor:
    """[R, V] -> [R]; -1 for what is not finite."""
    best = logits.argmax(-1)
    return torch.where(logits.gather(-1, best[:, None])[:, 0].isfinite(), best, -1)


def least_of(probs: Tensor, share: float) -> Tensor:
    """The share of the last of the fewest tokens that together hold `share`: [R, V] -> [R, 1].

    Looks at LIKELY tokens, at all only in rows where those do not do: sorting a vocabulary takes longer than reading a
    token.
    """
    def last(ordered: Tensor) -> Tensor:
        before = ordered.cumsum(-1) - ordered
        return ordered.masked_fill(before >= share, torch.inf).amin(-1, keepdim=True)

    likely = probs.topk(min(LIKELY, probs.shape[-1]), -1).values
    least, flat = last(likely), likely.cumsum(-1)[:, -1] < share
    if flat.any():
        least[flat] = last(probs[flat].sort(-1, descending=True).values)
    return least


def batches(draws: Sequence[D], tokens: int, max_new_tokens: int) -> Iterator[list[D]]:
    """The draws in batches of at most `tokens` (prompt and new ones), like lengths together, longest first."""
    batch: list[D] = []
    for draw in sorted(draws, key=lambda draw: (-len(draw.prompt), draw.record, draw.number)):
        if batch and (len(batch) + 1) * (len(batch[0].prompt) + max_new_tokens) > tokens:
            yield batch
            batch = []
        batch.append(draw)
    if batch:
        yield batch


class Guidance(Protocol[Row]):
    """Other models' say in what is drawn next; their rows are those of the batch that are there yet."""

    def guide(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        """What to draw by instead of the policy's logits of the next tokens: [R, vocabulary], both."""

    def take(self, tokens: Tensor, rows: Sequence[Row]) -> None:
        """These are next, [R]; a row that has a `reason` was done before."""

    def keep(self, rows: Tensor) -> None:
        """Rows of these numbers stay, the others leave."""


def generate(policy: Policy, encoder: Encoder, batch: list[D], how: Sampling,
             guidance: Guidance[D] | None = None) -> int:
    """Fill in every Draw of the batch; returns how many tokens were drawn.

    Each prompt is computed once, whatever the number of its completions; finished rows leave the batch.
    Raises FloatingPointError, naming the record, where the model gives no numbers.
    """
    with torch.no_grad(), torch.inference_mode(policy.autocast is None):  # in which autocast would keep no casts
        return fill_in(policy, encoder, batch, how, guidance)


def fill_in(policy: Policy, encoder: Encoder, batch: list[D], how: Sampling, guidance: Guidance[D] | None) -> int:
    """`generate`, where gradients are off."""
    texts = Rows(policy, [(draw.record, draw.prompt) for draw in batch])
    numbers = torch.tensor(np.stack([uniforms(how.seed, d.record, d.number, how.max_new_tokens) for d in batch]))
    numbers = numbers.to(policy.device)  # [R, T]
    temperatures = torch.tensor([draw.temperature for draw in batch], device=policy.device)
    finished = finisher(encoder, how)
    alive, count = list(batch), 0
    for step in range(how.max_new_tokens):
        logits = texts.logits() if guidance is None else guidance.guide(texts.logits(), alive)
        tokens = choose(logits, numbers[:, step], temperatures, how.top_k, how.top_p)  # [R]
        if guidance is not None:
            guidance.take(tokens, alive)
        going = []
        for row, (draw, token) in enumerate(zip(alive, tokens.tolist(), strict=True)):
            if not draw.reason:
                if token < 0:
                    raise FloatingPointError(f"{draw.where}: the model's logits are not finite")
                count += 1
                if not finished(draw, token):
                    going.append(row)
        if not going:
            break
        texts.read(tokens)
        if len(going) <= COMPACT * len(alive):
            keep = torch.tensor(going, device=policy.device)
            numbers, temperatures = numbers[keep], temperatures[keep]
            texts.keep(keep)
            if guidance is not None:
                guidance.keep(keep)
            alive = [alive[row] for row in going]
    return count


class Rows:
    """What a policy reads of texts, a row each, all at once: a prompt that several have is computed once.

    prompts  each row's record and its ids

    Tokens are read when the next ones' logits are asked for; where nobody asks, several wait, and are read together.
    """

    def __init__(self, policy: Policy, prompts: Sequence[tuple[int, list[int]]]):
        self.policy, self.prompts = policy, list(prompts)
        self.cache: DynamicCache | None = None  # until the prompts are read
        self.hidden, self.lengths = torch.empty(0), torch.empty(0)  # the last states [R, H]; what was read [R]
        self.mask: Tensor | None = None  # [R, L]; None without padding
        self.waiting: list[Tensor] = []  # [R] each

    def logits(self) -> Tensor:
        """Of the next tokens: [R, vocabulary]."""
        if self.cache is None:
            self._read_prompts()
        if self.waiting:
            self._read_on(torch.stack(self.waiting, 1))
            self.waiting = []
        return self.policy.logits(self.hidden)

    def read(self, tokens: Tensor) -> None:
        """One more token of each row: [R]."""
        self.waiting.append(tokens)

    def keep(self, rows: Tensor) -> None:
        """Rows of these numbers stay, the others leave."""
        self.prompts = [self.prompts[row] for row in rows.tolist()]
        self.waiting = [tokens[rows] for tokens in self.waiting]
        if self.cache is not None:
            self.cache.batch_select_indices(rows)
            self.hidden, self.lengths = self.hidden[rows], self.lengths[rows]
            self.mask = self.mask if self.mask is None else self.mask[rows]

    def _read_prompts(self) -> None:
        """Each of them once, padded on the left."""
        unique = dict(self.prompts)
        places, prompts = {record: row for row, record in enumerate(unique)}, list(unique.values())
        long, device = max(map(len, prompts)), self.policy.device
        ids = torch.tensor([[0] * (long - len(prompt)) + prompt for prompt in prompts], device=device)
        seen = torch.tensor([[0] * (long - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        padded = any(len(prompt) < long for prompt in prompts)
        self.cache = new_cache(self.policy.core.config)
        out = self.policy.body(input_ids=ids, attention_mask=seen if padded else None, past_key_values=self.cache,
                               position_ids=(seen.cumsum(-1) - 1).clamp_min(0), use_cache=True)
        rows = torch.tensor([places[record] for record, _ in self.prompts], device=device)
        self.cache.batch_select_indices(rows)
        self.hidden, self.mask = out.last_hidden_state[rows, -1], seen[rows] if padded else None
        self.lengths = torch.tensor([len(prompt) for _, prompt in self.prompts], device=device)

    def _read_on(self, tokens: Tensor) -> None:
        """[R, new]"""
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(tokens)], dim=1)
        places = self.lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        out = self.policy.body(input_ids=tokens, attention_mask=self.mask, past_key_values=self.cache,
                               position_ids=places, use_cache=True)
        self.hidden, self.lengths = out.last_hidden_state[:, -1], self.lengths + tokens.shape[1]


def finisher(encoder: Encoder, how: Sampling) -> Callable[[Draw, int], bool]:
    """A function that adds a token to a draw and says whether that ended it."""
    ends, tokens = stopping_ids(encoder, how.stop), encoder.tokens
    # A stop string of b bytes lies in the last b tokens that have text; a few more for characters cut at their left.
    tail = max((len(text.encode()) for text in how.stop), default=0) + 8
    textless, control = set(tokens.control.values()), any(map(tokens.named.search, how.stop))

    def last_of(ids: list[int]) -> list[int]:
        last = ids[-tail:]
        return last if textless.isdisjoint(last) else ids

    def finished(draw: Draw, token: int) -> bool:
        if token in ends:
            draw.reason, draw.end = "stop", token
        else:
            draw.ids.append(token)
            if how.stop and any(text in tokens.decode(last_of(draw.ids), control) for text in how.stop):
                draw.reason = "stop"
            elif len(draw.ids) == how.max_new_tokens:
                draw.reason = "length"
        if draw.reason:
            finish_text(draw, encoder, how.stop)
        return bool(draw.reason)

    return finished
