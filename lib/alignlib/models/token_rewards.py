"""Reward models that say what every next token is worth, in one pass: policies by their shape, rewards by their logits.

next-token  a text is worth log pi_r(y | x), the sum over its tokens: GenARM, Xu et al. 2025 (arXiv 2410.08193)
vocabulary  V(v | x, y_<t) is what the best text is worth that goes on with v, and a text what its last token's entry at
            the position before says: Rashid et al. 2025 (arXiv 2502.04517)

`reward_kind` in config.json says which of them a folder is.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import click
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from alignlib.models import heads, logps
from alignlib.models.packs import Pack
from alignlib.models.policy import Policy
from alignlib.models.shards import is_sharded


class TokenReward(Policy):
    """A reward model whose logits are of every next token."""

    kind: ClassVar[str]

    @abstractmethod
    def scores(self, batch: Pack) -> Tensor:
        """Rewards of texts: [E, K]."""


class NextTokenReward(TokenReward):
    """A policy whose log-probabilities are rewards."""

    kind = "next-token"

    def scores(self, batch: Pack) -> Tensor:
        return self.logps(batch)


class VocabularyReward(TokenReward):
    """A transformer under a head that gives each token of the vocabulary a value, in float32.

    A completion without tokens is worth what the prompt's last token is, and after a prompt of one token what the best
    text is that goes on from there.
    """

    kind = "vocabulary"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **settings: Any):
        head = heads.in_float32(model.get_output_embeddings())
        model.set_output_embeddings(head)
        if not settings.get("train"):  # asked at every token, the weights would be cast each time
            head.weight = nn.Parameter(logps.full_precision(head.weight.detach()), requires_grad=False)
        super().__init__(model, tokenizer, **settings)
        self.head_trains = True

    def scores(self, batch: Pack) -> Tensor:
        with self.precision():
            return self.scores_from(self.hidden(batch), batch)

    def scores_from(self, hidden: Tensor, batch: Pack) -> Tensor:
        """Of the last hidden states [B * L, H]: [E, K]."""
        number = batch.shape[0] * batch.shape[1]
        order = torch.arange(len(batch.owner), device=batch.owner.device)
        final = batch.owner.new_full((number,), -1).scatter_reduce(0, batch.owner, order, "amax")  # of N targets
        empty = final < 0
        before = (batch.last - 1).clamp(min=0)  # within the prompt: only where a completion has no tokens
        places, tokens = before, batch.ids.flatten()[batch.last]
        if len(order):
            places = torch.where(empty, before, batch.sources[final])
            tokens = torch.where(empty, tokens, batch.targets[final])
        lone = torch.tensor([len(prompt) < 2 for prompt, _ in batch.spans], device=empty.device)
        values, best = self.values(hidden[places], tokens)
        return torch.where(empty & lone, best, values).view(batch.shape)

    def values(self, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of states [N, H] the values of these next tokens [N]; and of the best ones, without gradients: [N] each."""

        def chunk(part: Tensor, wanted: Tensor) -> Tensor:
            logits = logps.full_precision(self.logits(part))  # [n, vocabulary]
            return torch.stack([logits.gather(1, wanted[:, None])[:, 0], logits.detach().amax(-1)], 1)

        both = logps.in_chunks(chunk, self.core.config.vocab_size, hidden, tokens, in_step=is_sharded(self.model))
        return both[:, 0], both[:, 1].detach()


KINDS: dict[str, type[TokenReward]] = {kind.kind: kind for kind in (NextTokenReward, VocabularyReward)}


def kind_of(config: PreTrainedConfig, path: str) -> type[TokenReward] | None:
    """What a model of this configuration is read as; None where it is no such reward model. Raises UsageError."""
    name = None if heads.names_classifier(config) else getattr(config, "reward_kind", None)
    if name is None or name in KINDS:
        return KINDS[name] if name else None
    raise click.UsageError(f"{path}: config.json: reward_kind: expected {' or '.join(KINDS)}, got {name!r}")
