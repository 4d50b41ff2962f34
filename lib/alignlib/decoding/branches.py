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
from alignlib.models.attention import attend_by_scores, causal_strips, is_special
from alignlib.models.policy import Model
from alignlib.models.probes import FAILURES, is_exact, is_rounding, relative_error
from alignlib.models.windows import Window, layer_windows, small_windows

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
        self.windows = [window for _, window in layer_windows(model.core.config)]
        model.core.set_attn_implementation(NAME)

    def _ask(self, readings: Sequence[Reading]) -> Tensor:
        starts = [len(self.read[slot]) for slot, _, _ in readings]
        shapes = {(len(text), len(branches)) for _, text, branches in readings}
        slots = [slot for slot, _, _ in readings]
        if len(shapes) == 1 and slots == list(range(slots[0], slots[0] + len(slots))):
            self.parts = [build_part(readings, starts, self.windows, self.dtype, self.device)]
        else:
            self.parts = [build_part([reading], [start], self.windows, self.dtype, self.device)
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

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, settings: dict[str, Any]) -> Tensor:
        """[1, heads, N, size] each, keys and values of as many heads or fewer -> [1, N, heads, size]."""
        if not self.store.numel():
            heads, size = key.shape[1], key.shape[-1]
            shape = (2 * self.model.core.config.num_hidden_layers, len(self.read), heads, self.room, size)
            self.store = key.new_zeros(shape)  # what is masked is multiplied by 0: it must be a number
        keys, values, outs, at = self.store[2 * layer], self.store[2 * layer + 1], [], 0
        for part in self.parts:
            end = at + part.count * part.rows
            part.write(key[0, :, at:end], value[0, :, at:end], keys, values)
            outs.append(part.attend(query[0, :, at:end], keys, values, self.windows[layer], settings))
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
    width: int  # columns that are there
    views: dict[Window | None, "View"]  # by the windows of layers

    def write(self, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put [heads, rows * count, size] into a layer's store, [slots, heads, room, size] each."""
        if self.rows == 1:
            start, end = self.width - self.count, self.width
            keys[self.slot, :, start:end], values[self.slot, :, start:end] = key, value
        else:
            for store, new in ((keys, key), (values, value)):
                store.transpose(1, 2)[self.into] = new.unflatten(1, (self.rows, self.count)).permute(1, 2, 0, 3)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, window: Window | None,
               settings: dict[str, Any]) -> Tensor:
        """[heads, rows * count, size] over a layer's store -> [heads, rows * count, size]."""
        heads, few, size, view = len(query), keys.shape[1], query.shape[-1], self.views[window]
        seen = slice(self.slot, self.slot + self.rows), slice(None), slice(view.first, self.width)
        rows = query.unflatten(1, (self.rows, self.count)).transpose(0, 1)  # [rows, heads, count, size]
        scale, mask = settings.get("scaling"), view.mask
        if is_special(settings):
            out = attend_by_scores(rows, keys[seen], values[seen], mask, scale, settings.get("softcap"),
                                   settings.get("s_aux"))
        else:
            # Heads that share keys stand together, as more queries of one head: keys are not repeated.
            grouped = rows.reshape(self.rows, few, heads // few * self.count, size)
            mask = mask if mask is None or heads == few else mask.repeat(1, 1, heads // few, 1)
            out = scaled_dot_product_attention(grouped, keys[seen], values[seen], attn_mask=mask, scale=scale)
        return out.reshape(self.rows, heads, self.count, size).transpose(0, 1).reshape(heads, -1, size)


@dataclass
class View:
    """What layers with one window see of a Part's slots."""

    first: int  # column that is looked at
    mask: Tensor | None  # [rows, 1, count, width - first], added to the scores; None: all is seen


def build_part(readings: Sequence[Reading], starts: list[int], windows: Sequence[Window | None], dtype: torch.dtype,
               device: torch.device) -> Part:
    """The Part of rows that read and look at as many tokens each, in a model whose layers have such windows.

    Token r of a row, its text before its branches, sees what was read before, the text up to itself, and itself.
    """
    slot, text, branches = readings[0]
    count, width = len(text) + len(branches), max(starts) + len(text) + len(branches)
    begins = torch.tensor(starts)[:, None]  # [rows, 1]
    order = torch.arange(count)
    columns = begins + order
    places = begins + order.clamp(max=len(text))
    views: dict[Window | None, View] = {}
    for window in set(windows):
        if window is None and count == 1 and min(starts) == max(starts):
            views[window] = View(0, None)
            continue
        every = torch.arange(width)
        seen = every < places[..., None]  # [rows, count, width]; before any branch a column is its position
        if window:
            seen &= window.sees(places[..., None], every)
        seen |= every == columns[..., None]
        first = int(seen.flatten(0, 1).any(0).int().argmax())
        seen = seen[..., first:]
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)[:, None].to(device)
        views[window] = View(first, None if seen.all() else mask)
    into = torch.arange(slot, slot + len(readings), device=device)[:, None], columns.to(device)
    return Part(slot, len(readings), count, into, places.to(device), width, views)


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
    layer: int = module.layer_idx  # type: ignore[assignment]  # transformers' layers have it, no Module declares it
    return branches.attend(layer, query, key, value, settings), None


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

    Slots of unlike and of like needs, a branch that is not the first, text and branches in one pass; beyond the
    model's windows, which are made small for it.
    """
    tokens = [token % model.core.config.vocab_size for token in range(3, 20)]
    one, other, branches, more = tokens[:6], tokens[6:9], tokens[9:12], tokens[12]
    whole = [[*start, kept, more, token] for start, kept in ((one, branches[1]), (other, branches[2]))
             for token in branches]
    rows = [torch.tensor([text], device=model.device) for text in whole]
    with small_windows(model.core.config, 4):
        plain = torch.stack([model.body(input_ids=row, use_cache=False).last_hidden_state[0, -1] for row in rows])
        if not plain.isfinite().all():
            return ""  # a broken model's numbers say nothing; who uses them names the record
        try:
            texts = kind(model, 2, 16)
            texts.ask([(0, one, branches), (1, other, branches)])
            texts.keep([(0, 1), (1, 2)])
            hidden = texts.ask([(slot, [more], branches) for slot in (0, 1)])
        except FAILURES as failure:
            return f"fail ({str(failure).strip().splitlines()[0]})"
    exact = is_exact(model, plain)
    error = relative_error(hidden[[1, 2, 3, 5, 6, 7]], plain, exact)  # 0 and 4 are of `more`
    return "" if is_rounding(error, exact) else f"differ by {error:.1e} of their length"


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
