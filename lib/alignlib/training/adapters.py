"""Adapters: what --lora trains, and what of it a checkpoint holds."""

import torch
from torch import Tensor

from alignlib.models.policy import Model
from alignlib.training.recipe import Recipe


def add_adapters(model: Model, recipe: Recipe) -> None:
    """With --lora, freeze the model and put adapters on all its linear layers but the head."""
    if not recipe.lora:
        return
    import peft

    torch.manual_seed(recipe.seed)
    head = ["score"] if hasattr(model.core, "score") else None
    config = peft.LoraConfig(r=recipe.lora, lora_alpha=2 * recipe.lora, target_modules="all-linear",
                             modules_to_save=head)
    model.model = peft.get_peft_model(model.core, config)
    model.core = model.model.get_base_model()


def trained_weights(model: Model) -> dict[str, Tensor]:
    """What trains, where that is not the whole model: for a checkpoint, whose folder holds the merged weights."""
    if model.model is model.core:
        return {}
    return {name: weight.detach().cpu() for name, weight in model.model.named_parameters() if weight.requires_grad}
