"""Several texts read by one model at once, each with its own cache and, for a moment, with several next tokens.

    slot 0   The cat sat          on | at | by        three branches: each sees the text and itself
    slot 1   A dog                ran | barked        kept is one of them, the others are forgotten

All tokens of a pass lie in one row without padding; attention alone knows which slot each belongs to. It is registered
with transformers and keeps keys and values itself, in room that was there before: nothing read is ever copied.
"""

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import sdpa_mask

from alignlib.decoding.texts import Reading, Texts
from alignlib.models.attention import causal_strips
from alignlib.models.policy import Model, relative_error

NAME = "branches"


class Tree(Texts):
    """One store of keys and values for all slots, [2 * layers, slots, heads, room, size]; branches lie behind the text.

    room: tokens of the longest text that a slot will hold, and its branches; where that is too little it grows, once.
    """

    def __init__(self, model: Model, slots: int, room: int):
        super().__init__(model, slots)
        self.room = room
        self.parts: list[Part] = []  # of the pass that runs
        self.store = torch.empty(0)  # until the first layer of the first pass shows its heads
        model.core.set_attn_implementation(NAME)

    def _ask(self, readings: Sequence[Reading]) -> Tensor:
        starts = [len(self.read[slot]) for slot, _, _ in readings]
        shapes = {(len(text), len(branches)) for _, text, branches in readings}
        slots = [slot for slot, _, _ in readings]
        if len(shapes) == 1 and slots == list(range(slots[0], slots[0] + len(slots))):
            self.parts = [build_part(readings, starts, self.dtype, self.device)]
        else:
            self.parts = [build_part([reading], [start], self.dtype, self.device)
                          for reading, start in zip(readings, starts, strict=True)]
        self._grow(max(part.width for part in self.parts))
        tokens = [token for _, text, branches in readings for token in (*text, *branches)]
        ids = torch.tensor([tokens], device=self.device)
        places = torch.cat([part.places.flatten() for part in self.parts])
        mask = ids.new_ones(1, 1, 1, 1, dtype=torch.bool)  # not read: with four dimensions transformers makes none
        out = self.model.body(input_ids=ids, position_ids=places[None], attention_mask=mask,
                                         use_cache=False, **{NAME: self})
        if not self.store.numel():
            raise ValueError("its attention cannot be replaced")
        return out.last_hidden_state[0]

    def _grow(self, width: int) -> None:
        """Have room for so many tokens."""
        if width > self.room:
            more, self.room = width - self.room, width
            if self.store.numel():
                self.store = pad(self.store, (0, 0, 0, more))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """[1, heads, N, size] each, keys and values of as many heads or fewer -> [1, N, heads, size]."""
        if not self.store.numel():
            heads, size = key.shape[1], key.shape[-1]
            shape = (2 * self.model.core.config.num_hidden_layers, len(self.read), heads, self.room, size)
            self.store = key.new_zeros(shape)  # what is masked is multiplied by 0: it must be a number
        keys, values, outs, at = self.store[2 * layer], self.store[2 * layer + 1], [], 0
        for part in self.parts:
            end = at + part.count * part.rows
            outs.append(part.attend(query[0, :, at:end], key[0, :, at:end], value[0, :, at:end], keys, values, scale))
            at = end
        return (torch.cat(outs, dim=1) if len(outs) > 1 else outs[0])[None].transpose(1, 2)

    def _keep(self, picks: Sequence[tuple[int, int]]) -> None:
        moved = [(slot, len(self.read[slot]), pick) for slot, pick in picks if pick]  # the first lies there already
        if moved:
            slots, ends, numbers = torch.tensor(moved, device=self.store.device).T
            self.store[:, slots, :, ends] = self.store[:, slots, :, ends + numbers]

    def _crop(self, slot: int, length: int) -> int:
        return length

    def _copy(self, source: int, target: int, start: int) -> None:
        if start < (end := len(self.read[source])):
            self.store[:, target, :, start:end] = self.store[:, source, :, start:end]


@dataclass
class Part:
    """Rows of one pass that have as many tokens each, in slots that follow each other."""

    slot: int  # the first
    rows: int
    count: int  # tokens a row, branches included
    into: tuple[Tensor, Tensor]  # [rows, 1] slots and [rows, count] columns: where their keys and values go
    places: Tensor  # [rows, count]: positions; branches have one and the same
    width: int  # columns that are looked at
    mask: Tensor | None  # [rows, 1, count, width], added to the scores; None: all is seen

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor,
               scale: float | None) -> Tensor:
        """[heads, rows * count, size], and the layer's store [slots, heads, room, size] -> [heads, rows * count, size].
        """
        heads, few, size = len(query), len(key), query.shape[-1]
        if self.rows == 1:
            start, end = self.width - self.count, self.width
            keys[self.slot, :, start:end], values[self.slot, :, start:end] = key, value
        else:
            for store, new in ((keys, key), (values, value)):
                store.transpose(1, 2)[self.into] = new.unflatten(1, (self.rows, self.count)).permute(1, 2, 0, 3)
        seen = slice(self.slot, self.slot + self.rows), slice(None), slice(self.width)
        # Heads that share keys stand together, as more queries of one head: keys are not repeated.
        grouped = query.unflatten(1, (self.rows, self.count)).transpose(0, 1)  # [rows, heads, count, size]
        grouped = grouped.reshape(self.rows, few, heads // few * self.count, size)
        mask = self.mask if self.mask is None or heads == few else self.mask.repeat(1, 1, heads // few, 1)
        out = scaled_dot_product_attention(grouped, keys[seen], values[seen], attn_mask=mask, scale=scale)
        out = out.reshape(self.rows, heads, self.count, size).transpose(0, 1)
        return out.reshape(heads, self.rows * self.count, size)


def build_part(readings: Sequence[Reading], starts: list[int], dtype: torch.dtype, device: torch.device) -> Part:
    """The Part of rows that read and look at as many tokens each.

    Token r of a row, its text before its branches, sees what was read before, the text up to itself, and itself.
    """
    slot, text, branches = readings[0]
    count, width = len(text) + len(branches), max(starts) + len(text) + len(branches)
    begins = torch.tensor(starts)[:, None]  # [rows, 1]
    order = torch.arange(count)
    columns = begins + order
    places = begins + order.clamp(max=len(text))
    mask = None
    if count > 1 or min(starts) < max(starts):
        every = torch.arange(width)
        seen = (every < places[..., None]) | (every == columns[..., None])  # [rows, count, width]
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)[:, None].to(device)
    into = torch.arange(slot, slot + len(readings), device=device)[:, None], columns.to(device)
    return Part(slot, len(readings), count, into, places.to(device), width, mask)


class Copies(Texts):
    """Texts of any causal model: a cache for every slot, and copies of it for its branches."""

    def __init__(self, model: Model, slots: int, room: int):
        super().__init__(model, slots)
        self.caches: list[DynamicCache | None] = [None] * slots
        self.branch_caches: dict[int, DynamicCache] = {}

    def _ask(self, readings: Sequence[Reading]) -> Tensor:
        hidden = []
        for slot, text, branches in readings:
            if text:
                self.caches[slot] = self.caches[slot] or DynamicCache(config=self.model.core.config)
                hidden.append(self._forward([text], self.caches[slot])[0])
            if branches:
                self.branch_caches[slot] = copy.deepcopy(self.caches[slot])
                self.branch_caches[slot].batch_repeat_interleave(len(branches))
                hidden.append(self._forward([[token] for token in branches], self.branch_caches[slot])[:, 0])
        return torch.cat(hidden)

    def _forward(self, rows: list[list[int]], cache: DynamicCache) -> Tensor:
        ids = torch.tensor(rows, device=self.device)
        return self.model.body(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state

    def _keep(self, picks: Sequence[tuple[int, int]]) -> None:
        for slot, pick in picks:
            cache = self.branch_caches.pop(slot)
            cache.batch_select_indices(torch.tensor([pick], device=self.device))
            self.caches[slot] = cache

    def _crop(self, slot: int, length: int) -> int:
        self.caches[slot] = None  # not every kind of cache can be cut: it starts anew
        return 0

    def _copy(self, source: int, target: int, start: int) -> None:
        self.caches[target] = copy.deepcopy(self.caches[source])


def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
              branches: Tree | None = None, **settings: Any) -> tuple[Tensor, None]:
    """What models with a Tree attend by; in passes that are none of the Tree's, as models on the CPU do."""
    if branches is None:
        return causal_strips(module, query, key, value, mask, **settings)
    if settings.get("softcap"):  # Gemma 2's; it may not show in the few tokens that are tried
        raise ValueError("its attention has a cap")
    layer: int = module.layer_idx  # type: ignore[assignment]  # transformers' layers have it, no Module declares it
    return branches.attend(layer, query, key, value, settings.get("scaling")), None


@torch.inference_mode()
def texts_type(model: Model) -> type[Tree] | type[Copies]:
    """Tree, where it gives this model's numbers; else Copies, with a warning. Tried once, on load.

    Raises UsageError for a model with which copies do not give them either.
    """
    before = model.core.config._attn_implementation
    wrong = find_fault(Tree, model)
    if not wrong:
        return Tree
    model.core.set_attn_implementation(before)
    if failed := find_fault(Copies, model):
        raise click.UsageError(f"{model.core.name_or_path}: a {type(model.core).__name__} cannot be asked about a text "
                               f"that goes on: copies of its cache {failed}")
    print(f"warning: {type(model.core).__name__}: candidates on a shared cache {wrong}; using copies of it",
          file=sys.stderr)
    return Copies


def find_fault(kind: type[Tree] | type[Copies], model: Model) -> str:
    """How its states are not those of whole texts, "" if they are.

    Slots of unlike and of like needs, a branch that is not the first, text and branches in one pass.
    """
    tokens = [token % model.core.config.vocab_size for token in range(3, 20)]
    one, other, branches, more = tokens[:6], tokens[6:9], tokens[9:12], tokens[12]
    whole = [[*start, kept, more, token] for start, kept in ((one, branches[1]), (other, branches[2]))
             for token in branches]
    rows = [torch.tensor([text], device=model.device) for text in whole]
    plain = torch.stack([model.body(input_ids=row, use_cache=False).last_hidden_state[0, -1]
                         for row in rows])
    if not plain.isfinite().all():
        return ""  # a broken model's numbers say nothing; who uses them names the record
    try:
        texts = kind(model, 2, 16)
        texts.ask([(0, one, branches), (1, other, branches)])
        texts.keep([(0, 1), (1, 2)])
        hidden = texts.ask([(slot, [more], branches) for slot in (0, 1)])
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as failure:
        return f"fail ({str(failure).strip().splitlines()[0]})"
    error = relative_error(hidden[[1, 2, 3, 5, 6, 7]], plain)  # 0 and 4 are of `more`
    near = error <= (0.1 if model.core.dtype in (torch.bfloat16, torch.float16) else 1e-3)
    return "" if near else f"differ by {error:.1e} of their length"


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
