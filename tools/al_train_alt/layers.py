"""What changes which layers a policy has and trains: quark's new tokens, --train-layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AddedToken

from alignlib.models.packs import Pack
from alignlib.models.policy import Policy
from alignlib.training.batches import part_of


class Unadapted(Policy):
    """The policy without the adapters that it gets: a reference that is no second model."""

    def __init__(self, policy: Policy):
        vars(self).update(vars(policy))
        self.policy = policy

    def hidden(self, batch: Pack) -> Tensor:
        """The last hidden states of the base: [B * L, H]. No adapter is on the head."""
        with self.policy.model.disable_adapter():
            return super().hidden(batch)


def add_tokens(model: Policy, words: Sequence[str], seed: int = 0) -> int:
    """Teach policy and tokenizer these tokens, with new rows for those they lack; the first one's id.

    The other rows stay as they are. The new ones are drawn (from `seed`) about the mean of the old.
    """
    known = len(model.tokenizer)
    model.tokenizer.add_tokens([AddedToken(word, special=True, normalized=False) for word in words])
    wanted, core = len(model.tokenizer), model.core
    if wanted > known and wanted > core.get_input_embeddings().weight.shape[0]:
        torch.manual_seed(seed)
        core.resize_token_embeddings(wanted)
    return min(model.tokenizer.convert_tokens_to_ids(words))


def train_top(model: Policy, share: float, *, embeddings: bool = False) -> None:
    """Leave to train only this share of the layers, the topmost (rounded up), what comes after them, and the head.

    embeddings: the input's too; they train anyway where the head is tied to them.
    """
    core = model.core
    layers = next(module for module in core.base_model.modules()
                  if isinstance(module, nn.ModuleList) and len(module) == core.config.num_hidden_layers)
    core.requires_grad_(False)
    above = next(module for module in core.base_model.modules() if layers in module.children())
    after = [module for module in above.children() if not isinstance(module, nn.Embedding | nn.ModuleList)]
    top = layers[len(layers) - part_of(len(layers), share):]
    for module in (*top, *after, core.get_output_embeddings(), *([core.get_input_embeddings()] if embeddings else [])):
        module.requires_grad_(True)
