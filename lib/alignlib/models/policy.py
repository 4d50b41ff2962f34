"""Models that read Packs: a policy says log-probabilities, a reward model scores."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from alignlib import ranks
from alignlib.models import heads, logps
from alignlib.models.attention import allow_kernels, keep_caps
from alignlib.models.example import Example
from alignlib.models.packs import Mask, Pack, pack, plan
from alignlib.models.precision import float32_products
from alignlib.models.probes import packs_flat, shares_prompts
from alignlib.models.shards import is_sharded
from alignlib.models.windows import model_windows


class Model:
    """A transformer under a head, which reads Packs, and its tokenizer.

    model     as it was loaded, or in peft's wrapper
    core      the plain model; under an adapter its layers carry the adapter themselves
    autocast  what to compute in, where that is not the weights' own type
    train     whether gradients will be needed
    shared    whether one prompt serves several completions; else each has a padded row of its own
    flat      whether packs are one row without padding, for flex_attention
    head_trains  whether what comes after the transformer is learnt, beside adapters too
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *,
                 autocast: torch.dtype | None = None, train: bool = False):
        self.model, self.tokenizer, self.autocast, self.train = model, tokenizer, autocast, train
        self.core: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.shared, self.flat, self.head_trains = True, False, False
        if not is_sharded(model):
            self.choose_packing()

    def choose_packing(self) -> None:
        """Try out which packs the model can read; for one that ZeRO 3 has in parts, once its engine is there."""
        keep_caps(self.core)
        self.shared = self.shared and all(ranks.gather(shares_prompts(self)))  # ranks deal out one kind
        self.flat = self.shared and self.device.type == "cuda" and all(ranks.gather(packs_flat(self)))

    @property
    def device(self) -> torch.device:
        return self.core.device

    @property
    def body(self) -> nn.Module:
        """The transformer before the head: Llama 4's is no `base_model`."""
        body = self.core.base_model
        return getattr(self.core, "model", body) if body is self.core else body

    @property
    def context(self) -> int:
        """Tokens of the longest text."""
        return context_length(self.core.config)

    def checkpoint_activations(self) -> None:
        """Keep little of a forward pass, and make the rest again in the backward one."""
        new = hasattr(self.core, "activation_checkpointing_enable")  # transformers 5.17 has the old name only
        enable = self.core.activation_checkpointing_enable if new else self.core.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def compile_layers(self) -> None:
        """Have each of the transformer's layers compiled when it is first passed, alike ones together.

        Raises UsageError for a model whose layers transformers does not tell.
        """
        layers = [module for module in self.body.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers:
            raise click.UsageError(f"--compile: of a {type(self.core).__name__} the layers are not known here")
        allow_kernels()
        for layer in layers:
            layer.compile()

    def plan(self, examples: Sequence[Example], indices: Sequence[int], tokens: int) -> list[list[int]]:
        """Which of the examples go into one pack, of at most `tokens` tokens: lists of indices."""
        return plan(examples, indices, tokens, shared=self.shared, flat=self.flat)

    def pack(self, examples: Sequence[Example], indices: Sequence[int] | None = None) -> Pack:
        """The examples in one Pack of the kind that the model reads, on its device."""
        return self.pack_as(examples, indices, shared=self.shared, flat=self.flat)

    def pack_as(self, examples: Sequence[Example], indices: Sequence[int] | None = None, **kind: bool) -> Pack:
        """The same of a `kind` that pack() knows, with masks for this model's layers."""
        return pack(examples, indices, windows=model_windows(self.core.config), device=self.device, **kind)

    def precision(self) -> AbstractContextManager[object]:
        """The context to compute in: autocast, or none."""
        return torch.autocast(self.device.type, dtype=self.autocast) if self.autocast else nullcontext()

    def hidden(self, batch: Pack) -> Tensor:
        """The transformer's last hidden states, flattened: [B * L, H]."""
        places = {} if batch.positions is None else {"position_ids": batch.positions}
        mask = batch.mask
        if getattr(self.core.config, "_attn_implementation", None) == "eager" and mask is not None:
            mask = {kind: self.added(one) for kind, one in mask.items()} if isinstance(mask, dict) else self.added(mask)
        out = self.body(input_ids=batch.ids, attention_mask=mask, use_cache=False, **places)
        return out.last_hidden_state.flatten(0, 1)

    def added(self, mask: Mask) -> Mask:
        """A mask of bools as an attention wants it that adds it to its scores."""
        if not isinstance(mask, Tensor):
            return mask
        return torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, torch.finfo(self.core.dtype).min)


class Policy(Model):
    """A causal language model: log-probabilities of completions."""

    def choose_packing(self) -> None:
        """As for any model. Raises UsageError for one whose logits we would not get right."""
        if not knows_head(self):
            raise click.UsageError(f"{self.core.name_or_path}: a {type(self.core).__name__} does more behind its head "
                                   "than is known here")
        super().choose_packing()

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, H] -> [N, vocabulary], with the caps and scales some families put after their head."""
        return scale_and_cap(self.core.get_output_embeddings()(hidden), self.core.config)

    def token_logps(self, batch: Pack, temperature: float = 1.0) -> Tensor:
        """Log-probability of every completion token, float32: [N]."""
        with self.precision():
            hidden = self.hidden(batch)[batch.sources]
            return logps.token_logps(self.logits, hidden, batch.targets, self.core.config.vocab_size, temperature,
                                     in_step=is_sharded(self.model))

    def logps(self, batch: Pack, temperature: float = 1.0) -> Tensor:
        """Sum log-probability (nats) of every completion given its prompt, float64: [E, K]."""
        return batch.sums(self.token_logps(batch, temperature))


class RewardModel(Model):
    """A sequence classifier, read at a completion's last token, or mean or maximum over its text (`reward_pool`)."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **settings: Any):
        super().__init__(model, tokenizer, **settings)
        self.head_trains = True
        heads.compute_in_float32(self.core)

    def choose_packing(self) -> None:
        """As for any model, but for an encoder, which has no `score`: every completion is its own text."""
        self.shared = hasattr(self.core, "score")
        super().choose_packing()

    @property
    def pooling(self) -> str:
        return getattr(self.core.config, "reward_pool", None) or "last"

    def embeddings(self, batch: Pack) -> Tensor:
        """What the head reads of every completion: [E * K, H]. The text is the prompt and the completion."""
        return self.pooled(self.hidden(batch), batch)

    def pooled(self, hidden: Tensor, batch: Pack) -> Tensor:
        """[B * L, H] -> [E * K, H]"""
        if self.pooling == "last":
            return hidden[batch.last]
        texts = (torch.cat([hidden[part.start:part.stop] for part in span]) for span in batch.spans)
        return torch.stack([text.mean(0) if self.pooling == "mean" else text.amax(0) for text in texts])

    def head(self, embeddings: Tensor) -> Tensor:
        """What the head says of them: [N, H] -> [N, labels], float32. Encoders' heads read more than that."""
        return self.core.score(embeddings).float()

    def logits(self, batch: Pack) -> Tensor:
        """[E * K, labels], float32. Encoders and other classifiers read their rows in their own way."""
        with self.precision():
            if hasattr(self.core, "score"):
                return self.head(self.embeddings(batch))
            if self.shared:
                raise TypeError(f"{type(self.core).__name__}: no `score` head to ask")
            seen = torch.arange(batch.ids.shape[1], device=self.device) <= (batch.last % batch.ids.shape[1])[:, None]
            ids = batch.ids.masked_fill(~seen, self.tokenizer.pad_token_id or 0)
            return self.core(input_ids=ids, attention_mask=seen.long()).logits.float()

    def scores(self, batch: Pack) -> Tensor:
        """Rewards [E, K] of a model with one label."""
        return self.logits(batch).view(batch.shape)


def scale_and_cap(logits: Tensor, config: PreTrainedConfig) -> Tensor:
    """What some families do to logits after their head: scales and caps."""
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    logits = logits if scale == 1 else logits * scale
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * (logits / cap).tanh() if cap else logits


@torch.no_grad()
def knows_head(policy: Policy) -> bool:
    """Whether our logits are the model's own: some families scale or cap theirs; tried once, on load."""
    ids = torch.arange(4, device=policy.device)[None] % policy.core.config.vocab_size
    with float32_products(policy.core):
        own = policy.core(input_ids=ids, use_cache=False).logits[0].float()
        hidden = policy.body(input_ids=ids, use_cache=False).last_hidden_state[0]
    if not own.isfinite().all():
        return True  # a broken model's numbers say nothing; who uses them names the record
    return torch.allclose(policy.logits(hidden).float(), own, rtol=0.02, atol=0.02 * own.std().item())


def context_length(config: PreTrainedConfig) -> int:
    """The longest text that the model was made for, in tokens. A window is none: texts go on beyond it.

    LongRoPE's is where its other factors begin: which of them a text gets depends on the longest beside it there.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    parts = [rope, *(part for part in rope.values() if isinstance(part, dict))]  # of all layers, or by their kind
    borders = [part.get("original_max_position_embeddings") for part in parts if part.get("rope_type") == "longrope"]
    return min(filter(None, (getattr(text, "max_position_embeddings", None), *borders)), default=sys.maxsize)
