"""Where a training step happens. `Single` is one device in plain torch; others offer the same few methods."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import get_scheduler

from alignlib.recipe import Recipe


class Single:
    """Backward passes, the optimizer and its schedule on one device.

    `total` is the number of steps of the whole run, which the schedule needs.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, total: int):
        self.trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.clip = recipe.clip
        self.optimizer = optimizer_of(self.trained, recipe)
        warmup = recipe.warmup if recipe.warmup >= 1 else round(recipe.warmup * total)
        name = "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule
        self.schedule = get_scheduler(name, self.optimizer, num_warmup_steps=int(warmup),
                                      num_training_steps=total)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> dict[str, float]:
        """Clip, step, clear. Returns the gradient's norm before clipping and the learning rate used."""
        norm = nn.utils.clip_grad_norm_(self.trained, self.clip or float("inf"))
        rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": norm.item(), "lr": rate}

    def save(self, folder: Path, **more) -> None:
        """What a resumed run needs beside the weights."""
        state = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
                 "random": torch.get_rng_state(), **more}
        torch.save(state, folder / "trainer.pt")

    def load(self, folder: Path) -> dict:
        """Take back what `save` wrote; returns its `more`."""
        state = torch.load(folder / "trainer.pt", map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(state.pop("optimizer"))
        self.schedule.load_state_dict(state.pop("schedule"))
        torch.set_rng_state(state.pop("random"))
        return state


def optimizer_of(weights: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, or RMSprop as the RLAIF study has it."""
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(weights, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(weights, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
