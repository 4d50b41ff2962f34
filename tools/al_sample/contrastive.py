"""Contrastive search (Su et al. 2022, 2202.06417): of the likeliest tokens, one that is unlike all before it.

    score(v) = (1 - alpha) * p(v | text) - alpha * max over the text's tokens j of cosine(h_v, h_j)

v are the top_k most likely tokens, h the model's last hidden states, after its last norm; the prompt counts as text.
The candidates of a step are branches of a text that is read once (alignlib.decoding.branches), and the state of the
chosen one says what comes next: one pass a token.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from alignlib.decoding import branches
from alignlib.decoding.draws import Draw, Sampling
from alignlib.decoding.sampler import finisher
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Policy


class Contrastive:
    """The search in batches; nothing is drawn, so that a completion is its prompt's alone."""

    def __init__(self, policy: Policy, encoder: Encoder, how: Sampling):
        self.policy, self.how, self.kind = policy, how, branches.texts_type(policy)
        self.alpha = how.contrastive or 0.0  # without a share of unlikeness it is greedy decoding
        self.topk: int = min(how.top_k, policy.core.config.vocab_size)
        self.finished = finisher(encoder, how)

    @torch.inference_mode()
    def generate(self, batch: list[Draw]) -> int:
        """Fill in every Draw of the batch; returns how many tokens were chosen. Finished rows leave the batch.

        Raises FloatingPointError, naming the record, where the model gives no numbers.
        """
        alive, count = list(batch), 0
        room = max(len(draw.prompt) for draw in batch) + self.how.max_new_tokens
        texts = self.kind(self.policy, len(batch), room + self.topk)
        hidden = texts.ask([(slot, draw.prompt, []) for slot, draw in enumerate(batch)])
        states = Before(hidden.split([len(draw.prompt) for draw in batch]), room)
        while alive:
            likely = self.likely(states.last[:len(alive)], alive)  # values and ids, [R, k]
            candidates = likely.indices.tolist()
            new = texts.ask([(slot, [], tokens) for slot, tokens in enumerate(candidates)])
            new = new.unflatten(0, (-1, self.topk))  # [R, k, H]
            scores = (1 - self.alpha) * likely.values - self.alpha * states.likeness(new)
            best = scores.argmax(-1)  # [R]
            states.add(new[torch.arange(len(new)), best])
            picks = best.tolist()
            texts.keep(list(enumerate(picks)))
            count += len(alive)
            done = [slot for slot, draw in enumerate(alive) if self.finished(draw, candidates[slot][picks[slot]])]
            for slot in reversed(done):  # the last row takes its place: those at work stay side by side
                texts.copy(len(alive) - 1, slot)
                states.copy(len(alive) - 1, slot)
                alive[slot] = alive[-1]
                alive.pop()
        return count

    def likely(self, hidden: Tensor, alive: list[Draw]) -> torch.return_types.topk:
        """Probabilities and ids of the candidates after states [R, H]: [R, k] each."""
        best = self.policy.logits(hidden).float().softmax(-1).topk(self.topk)
        if not best.values.isfinite().all():
            bad = int(best.values.isfinite().all(-1).logical_not().nonzero()[0])
            raise FloatingPointError(f"{alive[bad].where}: the model's logits are not finite")
        return best


class Before:
    """The hidden states of texts, a row each: what candidates are compared with."""

    def __init__(self, read: tuple[Tensor, ...], room: int):
        """read: [L, H] of each text; room: tokens of the longest that is to be."""
        self.last = torch.stack([states[-1] for states in read])  # [R, H]
        self.lengths = torch.tensor([len(states) for states in read], device=self.last.device)
        self.units = self.last.new_zeros((len(read), room, self.last.shape[-1]), dtype=torch.float32)  # of length 1
        for row, states in zip(self.units, read, strict=True):
            row[:len(states)] = normalize(states.float(), dim=-1)

    def likeness(self, new: Tensor) -> Tensor:
        """The greatest cosine of states [R, k, H], of the first R rows, with those of their texts: [R, k]."""
        lengths = self.lengths[:len(new)]
        width = int(lengths.max())
        cosines = normalize(new.float(), dim=-1) @ self.units[:len(new), :width].transpose(1, 2)  # [R, k, width]
        beyond = torch.arange(width, device=new.device) >= lengths[:, None, None]
        return cosines.masked_fill(beyond, -torch.inf).amax(-1)

    def add(self, new: Tensor) -> None:
        """One state more, [R, H], in each of the first R rows."""
        rows = torch.arange(len(new), device=new.device)
        self.units[rows, self.lengths[:len(new)]] = normalize(new.float(), dim=-1)
        self.last[:len(new)] = new
        self.lengths[:len(new)] += 1

    def copy(self, source: int, target: int) -> None:
        for rows in (self.last, self.lengths, self.units):
            rows[target] = rows[source]
