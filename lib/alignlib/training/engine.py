"""Where a training step happens: `PlainEngine`, one device in plain torch; `ZeroEngine` (zero.py), DeepSpeed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import click
import torch
from torch import Tensor, nn
from transformers import get_scheduler

from alignlib.models import checkpoint, faults
from alignlib.models.policy import Model
from alignlib.training.adapters import folder_weights, trained_weights
from alignlib.training.recipe import Recipe

TRAINER = "trainer.pt"  # of a checkpoint: all but the model


class Engine(Protocol):
    """What a trainer asks for, on every rank alike."""

    model: Model
    recipe: Recipe

    def ask(self, work: Callable[[], Any]) -> Any:
        """Make a forward pass: what `work` returns."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """The backward pass of a part of the step's loss; `last` of its parts."""

    def step(self) -> dict[str, float | None]:
        """Clip, step, clear: the gradient's norm before clipping, the learning rate used.

        The norm is None where fp16 overflowed and no step was taken.
        """

    def weights(self) -> dict[str, Tensor] | None:
        """What a model folder holds; None on all ranks but the first."""

    def save(self, folder: Path, **more: Any) -> None:
        """What a resumed run needs beside the weights."""

    def load(self, folder: Path) -> dict[str, Any]:
        """Take back what `save` wrote; returns its `more`. Raises UsageError for another engine's."""


class PlainEngine:
    """Backward passes, the optimizer and its schedule on one device.

    `total` is the number of steps of the whole run, which the schedule needs.
    """

    def __init__(self, model: Model, recipe: Recipe, total: int):
        self.model, self.recipe, self.clip = model, recipe, recipe.clip
        self.trained = [weight for weight in model.model.parameters() if weight.requires_grad]
        self.optimizer = optimizer_of(model.model, recipe, fused=model.device.type == "cuda")
        self.schedule = schedule_of(self.optimizer, recipe, total)
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=model.autocast == torch.float16)

    def ask(self, work: Callable[[], Any]) -> Any:
        return work()

    def backward(self, loss: Tensor, last: bool) -> None:
        self.scaler.scale(loss).backward()

    def step(self) -> dict[str, float | None]:
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.trained, self.clip or float("inf"))
        rate = float(self.schedule.get_last_lr()[0])
        overflow = self.scaler.is_enabled() and not norm.isfinite()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not overflow:
            self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": None if overflow else norm.item(), "lr": rate}

    def weights(self) -> dict[str, Tensor]:
        return folder_weights(self.model, self.recipe)

    def save(self, folder: Path, **more: Any) -> None:
        state = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
                 "scaler": self.scaler.state_dict(), "random": torch.get_rng_state(),
                 "adapters": trained_weights(self.model), "ranks": 0, **more}
        with open(folder / TRAINER, "wb") as handle:  # torch's own writer does not say why it fails
            torch.save(state, handle)

    def load(self, folder: Path) -> dict[str, Any]:
        state = trainer_state(folder)
        if makers := state.pop("ranks"):
            raise click.UsageError(f"{folder}: made under DeepSpeed by {makers} processes: give --launch or --zero")
        try:
            self.optimizer.load_state_dict(state.pop("optimizer"))
            self.schedule.load_state_dict(state.pop("schedule"))
            self.scaler.load_state_dict(state.pop("scaler"))
            torch.set_rng_state(state.pop("random"))
            self.model.model.load_state_dict(state.pop("adapters"), strict=False)
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            said = f"{folder / TRAINER}: not what this run left there ({faults.words(error)}); {cure(folder)}"
            raise click.UsageError(said) from error
        return state


def trainer_state(folder: Path) -> dict[str, Any]:
    """What a checkpoint says besides its model. Raises UsageError for a damaged one, and for what is none."""
    state = checkpoint.unpickled(folder / TRAINER, "no state of a training", cure(folder))
    if not isinstance(state, dict) or not all(isinstance(state.get(name), int) for name in ("ranks", "step")):
        raise click.UsageError(f"{folder / TRAINER}: not the state of a training; {cure(folder)}")
    return state


def cure(folder: Path) -> str:
    """What is left to do where a checkpoint is damaged: older ones keep no state of the training."""
    beside, above = (place.name.startswith("checkpoint-") for place in (folder, folder.parent))
    whole = folder.parent if above and not beside else folder  # a critic's stands in the policy's
    return f"remove {whole}, and --resume begins anew"


class AskingEngine:
    """A model that is only asked."""

    def __init__(self, model: Model):
        self.model = model

    def ask(self, work: Callable[[], Any]) -> Any:
        return work()


def optimizer_of(model: nn.Module, recipe: Recipe, *, fused: bool = False) -> torch.optim.Optimizer:
    """AdamW, or RMSprop as the RLAIF study has it, of what trains; with --lora-lr adapters are a group of their own.

    fused: AdamW in one kernel, which reads and writes all weights once; on a CPU it gains nothing.
    """
    weights: Any = [weight for weight in model.parameters() if weight.requires_grad]
    if recipe.lora_lr is not None:
        named = [(".lora_" in name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        weights = [{"params": [weight for is_adapter, weight in named if not is_adapter]},
                   {"params": [weight for is_adapter, weight in named if is_adapter], "lr": recipe.lora_lr}]
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(weights, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(weights, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=fused)


def schedule_of(optimizer: torch.optim.Optimizer, recipe: Recipe, total: int) -> torch.optim.lr_scheduler.LRScheduler:
    warmup = recipe.warmup if recipe.warmup >= 1 else round(recipe.warmup * total)
    name = "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule
    return get_scheduler(name, optimizer, num_warmup_steps=int(warmup), num_training_steps=total)
