"""Where a training step happens: `Single` is one device in plain torch, `Sharded` several (or one) under DeepSpeed.

Both offer the same few methods:

    ask(work)            run a forward pass: what `work` returns
    backward(loss, last) of one pass; `last` of the step's
    step()               clip, step, clear: {"grad_norm", "lr"}
    weights()            what a model folder holds; None on all ranks but the first
    save(folder, ...)    what a resumed run needs beside the weights
    load(folder)         take it back
"""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import orjson
import torch
from torch import Tensor, nn
from transformers import get_scheduler

from alignlib import models, ranks
from alignlib.packed import Packed, dealt_out
from alignlib.recipe import Recipe

BUCKET = 500_000_000  # elements that DeepSpeed reduces at once, at most


class Single:
    """Backward passes, the optimizer and its schedule on one device.

    `total` is the number of steps of the whole run, which the schedule needs.
    """

    def __init__(self, model: Packed, recipe: Recipe, total: int):
        self.model, self.clip = model, recipe.clip
        self.trained = [weight for weight in model.model.parameters() if weight.requires_grad]
        self.optimizer = optimizer_of(self.trained, recipe)
        self.schedule = schedule_of(self.optimizer, recipe, total)
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=model.autocast == torch.float16)

    def ask(self, work: Callable[[], Any]) -> Any:
        return work()

    def backward(self, loss: Tensor, last: bool) -> None:
        self.scaler.scale(loss).backward()

    def step(self) -> dict[str, float | None]:
        """The gradient's norm before clipping (None where fp16 overflowed and no step was taken), the rate used."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.trained, self.clip or float("inf"))
        rate = self.schedule.get_last_lr()[0]
        overflow = self.scaler.is_enabled() and not norm.isfinite()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not overflow:
            self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": None if overflow else norm.item(), "lr": rate}

    def weights(self) -> dict[str, Tensor]:
        return models.merged_weights(self.model)

    def save(self, folder: Path, **more) -> None:
        state = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
                 "scaler": self.scaler.state_dict(), "random": torch.get_rng_state(),
                 "adapters": adapters(self.model), "ranks": 0, **more}
        torch.save(state, folder / "trainer.pt")

    def load(self, folder: Path) -> dict:
        """Take back what `save` wrote; returns its `more`."""
        state = torch.load(folder / "trainer.pt", map_location="cpu", weights_only=True)
        if made_by := state.pop("ranks"):
            raise click.UsageError(f"{folder}: made under DeepSpeed by {made_by} processes: give --zero or --launch")
        self.optimizer.load_state_dict(state.pop("optimizer"))
        self.schedule.load_state_dict(state.pop("schedule"))
        self.scaler.load_state_dict(state.pop("scaler"))
        torch.set_rng_state(state.pop("random"))
        self.model.model.load_state_dict(state.pop("adapters"), strict=False)
        return state


class Asked(nn.Module):
    """A model that DeepSpeed sees as one module, whatever is asked of it: its forward pass is the `work` given."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


class Sharded:
    """The same under DeepSpeed, on every rank; gradients are summed over ranks."""

    def __init__(self, model: Packed, recipe: Recipe, total: int, *, train: bool = True):
        deepspeed = imported()
        self.model, self.config, self.clip = model, configuration(recipe), recipe.clip
        self.stage = self.config["zero_optimization"]["stage"]
        self.trained = [weight for weight in model.model.parameters() if weight.requires_grad]
        count = sum(getattr(weight, "ds_numel", weight.numel()) for weight in self.trained)
        for name in ("reduce_bucket_size", "allgather_bucket_size"):  # buffers; small models need no large ones
            self.config["zero_optimization"].setdefault(name, min(BUCKET, count))
        optimizer = schedule = None
        if not train:
            self.config.pop("optimizer", None), self.config.pop("scheduler", None)
        elif "optimizer" not in self.config:
            optimizer = optimizer_of(self.trained, recipe)
            if "scheduler" not in self.config:
                schedule = schedule_of(optimizer, recipe, total)
        self.engine, *_ = deepspeed.initialize(model=Asked(model.model), optimizer=optimizer, lr_scheduler=schedule,
                                               model_parameters=self.trained, config=self.config)
        if self.stage == 3:
            self.ask(model.settle)

    def ask(self, work: Callable[[], Any]) -> Any:
        return self.engine(work)

    def backward(self, loss: Tensor, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * ranks.size())  # DeepSpeed takes the mean over ranks

    def step(self) -> dict[str, float | None]:
        norm = None
        if not self.engine.zero_optimization() and not self.engine.fp16_enabled():  # DeepSpeed would clip, not tell
            norm = nn.utils.clip_grad_norm_(self.trained, self.clip or float("inf")).item()
        rate = self.engine.get_lr()[0]
        self.engine.step()
        if norm is None and self.engine.was_step_applied():
            norm = float(self.engine.get_global_grad_norm())
        return {"grad_norm": norm, "lr": rate}

    def weights(self) -> dict[str, Tensor] | None:
        found = models.merged_weights(self.model)  # every rank helps to gather
        return found if ranks.first() else None

    def save(self, folder: Path, **more) -> None:
        self.engine.save_checkpoint(str(folder), tag="deepspeed", save_latest=False,
                                    client_state={"random": torch.get_rng_state()})
        if ranks.first():
            torch.save({"ranks": ranks.size(), "stage": self.stage, **more}, folder / "trainer.pt")

    def load(self, folder: Path) -> dict:
        state = torch.load(folder / "trainer.pt", map_location="cpu", weights_only=True)
        made_by, stage = state.pop("ranks"), state.pop("stage", None)
        if not made_by:
            raise click.UsageError(f"{folder}: made by one process without DeepSpeed: leave out --launch and --zero")
        if stage != self.stage:
            raise click.UsageError(f"{folder}: made with --zero {stage}, not {self.stage}")
        self.engine.load_checkpoint(str(folder), tag="deepspeed")
        return state


def of(model: Packed, recipe: Recipe, total: int) -> Single | Sharded:
    """The engine that the recipe asks for."""
    return (Sharded if sharded(recipe) else Single)(model, recipe, total)


class Asking:
    """A model that is only asked."""

    def __init__(self, model: Packed):
        self.model = model

    def ask(self, work: Callable[[], Any]) -> Any:
        return work()


def asking(model: Packed, recipe: Recipe) -> Asking | Sharded:
    """The engine of a model that does not train; one that ZeRO 3 has dealt out must be gathered as it is asked."""
    return Sharded(model, recipe, 0, train=False) if dealt_out(model.model) else Asking(model)


def sharded(recipe: Recipe) -> bool:
    return ranks.size() > 1 or recipe.zero is not None or recipe.offload != "none" or recipe.deepspeed is not None


def optimizer_of(weights: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, or RMSprop as the RLAIF study has it."""
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(weights, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(weights, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)


def schedule_of(optimizer: torch.optim.Optimizer, recipe: Recipe, total: int) -> torch.optim.lr_scheduler.LRScheduler:
    warmup = recipe.warmup if recipe.warmup >= 1 else round(recipe.warmup * total)
    name = "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule
    return get_scheduler(name, optimizer, num_warmup_steps=int(warmup), num_training_steps=total)


def adapters(model: Packed) -> dict[str, Tensor]:
    """What trains, where that is not the whole model: for a checkpoint, whose folder holds the merged weights."""
    if model.model is model.core:
        return {}
    return {name: weight.detach().cpu() for name, weight in model.model.named_parameters() if weight.requires_grad}


# -- DeepSpeed -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def entered(recipe: Recipe) -> Iterator[None]:
    """For a training command's whole body: the ranks meet; under ZeRO 3 models are dealt out as they are loaded."""
    if not sharded(recipe):
        yield
        return
    device = models.device_of(recipe.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    ranks.connect(device.type)
    imported()
    config = configuration(recipe)
    try:
        if config["zero_optimization"]["stage"] == 3:
            from transformers.integrations import HfDeepSpeedConfig

            alive = HfDeepSpeedConfig(config)  # from_pretrained asks whether there is one
            yield
            del alive
        else:
            yield
        ranks.wait()
    finally:
        torch.distributed.destroy_process_group()


def imported():
    """DeepSpeed, with its log on stderr, where it does not mix with ours."""
    import deepspeed
    from deepspeed.utils.logging import logger

    for handler in logger.handlers:
        handler.setStream(sys.stderr)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # DeepSpeed's to mend
    # It would look for compilers, and compile, for a minute, an op for sums over CPUs; gloo sums well enough.
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


def configuration(recipe: Recipe) -> dict:
    """What DeepSpeed is told: the recipe's options under what --deepspeed FILE says. Raises UsageError."""
    stage = recipe.zero if recipe.zero is not None else 3 if recipe.offload == "all" else 2
    theirs = read_configuration(recipe) if recipe.deepspeed else {}
    stage = theirs.get("zero_optimization", {}).get("stage", stage)
    if recipe.offload != "none" and stage < (3 if recipe.offload == "all" else 1):
        raise click.UsageError(f"--offload {recipe.offload} needs --zero {3 if recipe.offload == 'all' else 1} or more")
    wanted = models.dtype_of(recipe.dtype, models.device_of(recipe.device))
    zero = {"stage": stage}
    if recipe.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if recipe.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    ours = {
        # One "batch" is one pass over a pack, however many a step needs; `backward` says which is the last.
        "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.clip if stage or wanted == torch.float16 else 0.0,
        "zero_optimization": zero,
        # Without ZeRO, bf16 is autocast over float32 weights, as on one device: DeepSpeed's own strays there.
        "bf16": {"enabled": wanted == torch.bfloat16 and stage > 0},
        "fp16": {"enabled": wanted == torch.float16},
        "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
    }
    return merged(ours, theirs)


def read_configuration(recipe: Recipe) -> dict:
    """The user's own configuration, less the sizes of batches, which the command line says. Raises UsageError."""
    try:
        theirs = orjson.loads(Path(recipe.deepspeed).read_bytes())
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"{recipe.deepspeed}: not JSON ({error})") from error
    if not isinstance(theirs, dict):
        raise click.UsageError(f"{recipe.deepspeed}: not a JSON object")
    for name, said in {"train_batch_size": f"--batch-size {recipe.batch_size}",
                       "train_micro_batch_size_per_gpu": f"--pack-tokens {recipe.pack_tokens}",
                       "gradient_accumulation_steps": "--batch-size and --pack-tokens"}.items():
        value = theirs.pop(name, "auto")
        if value != "auto" and (name, value) != ("train_batch_size", recipe.batch_size):
            raise click.UsageError(f"{recipe.deepspeed}: {name} {value}: {said} decides that here; leave it out")
    chosen = theirs.get("optimizer", {}).get("params", {})
    known = {"lr": recipe.lr, "betas": recipe.betas, "weight_decay": recipe.weight_decay}
    chosen |= {name: value for name, value in known.items() if chosen.get(name) == "auto"}
    if "auto" in theirs.get("scheduler", {}).get("params", {}).values():
        del theirs["scheduler"]  # --schedule, then
    return theirs


def merged(ours: dict, theirs: dict) -> dict:
    """`theirs` over `ours`; their "auto" is what we say, or nothing."""
    result = dict(ours)
    for name, value in theirs.items():
        if isinstance(value, dict):
            below = ours.get(name)
            result[name] = merged(below if isinstance(below, dict) else {}, value)
        elif value != "auto":
            result[name] = value
    return result
