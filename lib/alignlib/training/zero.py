"""Training under DeepSpeed: ZeRO 0 to 3, offload, on several ranks or one."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson
import torch
from torch import Tensor, nn

from alignlib import ranks
from alignlib.models import load
from alignlib.models.policy import Model
from alignlib.models.precision import dtype_for
from alignlib.models.shards import is_sharded
from alignlib.training import engine
from alignlib.training.adapters import folder_weights
from alignlib.training.engine import AskingEngine, Engine, PlainEngine
from alignlib.training.recipe import Recipe, wants_deepspeed

OWN = ("ranks", "stage", "files")  # of a checkpoint's state: the engine's, not the run's
BUCKET = 500_000_000  # elements that DeepSpeed reduces at once, at most


class WorkModule(nn.Module):
    """A model that DeepSpeed sees as one module, whatever is asked of it: its forward pass is the `work` given."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


class ZeroEngine:
    """A model's training steps under DeepSpeed, on every rank: one optimizer, whose gradients are summed over ranks.

    total       steps of the whole run, which the schedule needs
    checkpoint  what it will be told to load
    train       False: it is only asked, its weights gathered from the ranks as they are needed
    """

    def __init__(self, model: Model, recipe: Recipe, total: int, checkpoint: Path | None = None, *,
                 train: bool = True):
        deepspeed = import_deepspeed()
        self.model, self.recipe, self.config, self.clip = model, recipe, configuration(recipe), recipe.clip
        self.stage = self.config["zero_optimization"]["stage"]
        self.trained = [weight for weight in model.model.parameters() if weight.requires_grad]
        # What ZeRO has dealt out among so many ranks, others can only take back from a universal checkpoint.
        self.universal = bool(checkpoint and self.stage and made_by(checkpoint)[0] not in (0, ranks.size()))
        self.config["checkpoint"] = {"load_universal": self.universal, **self.config.get("checkpoint", {})}
        count = sum(getattr(weight, "ds_numel", weight.numel()) for weight in self.trained)
        for name in ("reduce_bucket_size", "allgather_bucket_size"):  # buffers; small models need no large ones
            self.config["zero_optimization"].setdefault(name, min(BUCKET, count))
        optimizer = schedule = None
        if not train:
            self.config.pop("optimizer", None), self.config.pop("scheduler", None)
        elif "optimizer" not in self.config:
            optimizer = engine.optimizer_of(model.model, recipe)
        if train and "scheduler" not in self.config:  # of an optimizer that may not be there yet
            schedule = partial(engine.schedule_of, recipe=recipe, total=total)
        self.engine, *_ = deepspeed.initialize(
            model=WorkModule(model.model), optimizer=optimizer, lr_scheduler=schedule, model_parameters=self.trained,
            config=self.config)
        if self.stage == 3:
            self.ask(model.choose_packing)

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
        elif norm is None and not self.engine.fp16_enabled():  # it skips the step in any precision
            norm = float("nan")
        return {"grad_norm": norm, "lr": rate}

    def weights(self) -> dict[str, Tensor] | None:
        weights = folder_weights(self.model, self.recipe)  # every rank helps to gather
        return weights if ranks.first() else None

    def save(self, folder: Path, **more: Any) -> None:
        self.engine.save_checkpoint(str(folder), tag="deepspeed", save_latest=False)
        files = digests(folder / "deepspeed")
        if ranks.first():
            with open(folder / engine.TRAINER, "wb") as handle:
                torch.save({"ranks": ranks.size(), "stage": self.stage, "files": files, **more}, handle)

    def load(self, folder: Path) -> dict[str, Any]:
        makers, stage = made_by(folder)
        if not makers:
            raise click.UsageError(f"{folder}: made by one process without DeepSpeed: leave out --launch and --zero")
        if stage != self.stage:
            raise click.UsageError(f"{folder}: made with --zero {stage}, not {self.stage}")
        must_be_ours(folder)
        if self.universal:
            ranks.share(lambda: make_universal(folder))
        self.engine.load_checkpoint(str(folder), tag="universal" if self.universal else "deepspeed")
        return {name: value for name, value in engine.trainer_state(folder).items() if name not in OWN}


def made_by(checkpoint: Path) -> tuple[int, int | None]:
    """How many ranks, and which stage of ZeRO, wrote the checkpoint; (0, None): one process without DeepSpeed."""
    state = engine.trainer_state(checkpoint)
    return state["ranks"], state.get("stage")


def digests(folder: Path) -> dict[str, str]:
    """A hash of each file in a folder, by its name there; every rank must call it, and reads a part of them."""
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    mine = {}
    for name in names[ranks.rank()::ranks.size()]:
        with open(folder / name, "rb") as handle:
            mine[name] = hashlib.file_digest(handle, "blake2b").hexdigest()
    return dict(ChainMap(*ranks.gather(mine)))


def must_be_ours(checkpoint: Path) -> None:
    """Raises UsageError for files that are not those that `save` has had DeepSpeed write: it unpickles what it loads,
    and so runs what others may have put there. Every rank must call it.
    """
    kept, there = engine.trainer_state(checkpoint).get("files"), digests(checkpoint / "deepspeed")
    kept = kept if isinstance(kept, dict) else {}
    wrong = sorted(name for name in {*kept, *there} if kept.get(name) != there.get(name))
    if wrong or not kept:
        file = checkpoint / "deepspeed" / (wrong or [""])[0]
        raise click.UsageError(f"{file}: not what this run left there; {engine.cure(checkpoint)}")


def make_universal(checkpoint: Path) -> None:
    """Write checkpoint/universal from checkpoint/deepspeed, by DeepSpeed's own converter."""
    shutil.rmtree(checkpoint / "universal", ignore_errors=True)  # of a run that was killed over it
    folders = ["--input_folder", str(checkpoint / "deepspeed"), "--output_folder", str(checkpoint / "universal")]
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", *folders, "--inject_missing_state"]
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    done = subprocess.run(command, capture_output=True, text=True, env=alone)
    if done.returncode:
        raise click.ClickException(f"{checkpoint}: made by {made_by(checkpoint)[0]} processes, and not to be taken "
                                   f"over by {ranks.size()}: {done.stderr.strip().splitlines()[-1]}")


# -- DeepSpeed -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def distributed(recipe: Recipe) -> Iterator[None]:
    """Around a training command's whole body: several ranks meet, and ZeRO 3 deals out models as they are loaded."""
    if not wants_deepspeed(recipe):
        yield
        return
    device = load.device_for(recipe.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # plain "cuda" it does not take
    ranks.connect(device.type, device.index or 0)
    import_deepspeed()
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
    except BaseException:  # the group stays: NCCL would wait for the other ranks before it lets go
        ranks.failed()
        raise
    torch.distributed.destroy_process_group()


@contextlib.contextmanager
def whole_models() -> Iterator[None]:
    """In its body models are loaded whole on every rank, under ZeRO 3 too: they are asked alone, not in step."""
    from transformers.integrations import deepspeed as hooks

    dealing = hooks._hf_deepspeed_config_weak_ref  # there is no public way to put it back
    hooks.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        hooks._hf_deepspeed_config_weak_ref = dealing


def import_deepspeed() -> Any:
    """DeepSpeed, with its log on stderr, where it does not mix with ours."""
    import deepspeed
    from deepspeed.utils.logging import logger, set_log_level_from_string

    for handler in logger.handlers:
        handler.setStream(sys.stderr)
    set_log_level_from_string("error")
    # It would look for compilers, and compile, for a minute, an op for sums over CPUs; gloo sums well enough.
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


def configuration(recipe: Recipe) -> dict[str, Any]:
    """What DeepSpeed is told: the recipe's options under what --deepspeed FILE says. Raises UsageError."""
    stage = recipe.zero if recipe.zero is not None else 3 if recipe.offload == "all" else 2
    theirs = read_configuration(recipe.deepspeed, recipe) if recipe.deepspeed else {}
    stage = theirs.get("zero_optimization", {}).get("stage", stage)
    if recipe.offload != "none" and stage < (3 if recipe.offload == "all" else 1):
        raise click.UsageError(f"--offload {recipe.offload} needs --zero {3 if recipe.offload == 'all' else 1} or more")
    wanted = dtype_for(recipe.dtype, load.device_for(recipe.device))
    zero: dict[str, Any] = {"stage": stage}
    if recipe.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if recipe.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    ours: dict[str, Any] = {
        # One "batch" is one pass over a pack, however many a step needs; `backward` says which is the last.
        "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.clip if stage or wanted == torch.float16 else 0.0,
        "zero_optimization": zero,
        # Without ZeRO, bf16 is autocast over float32 weights, as on one device: DeepSpeed's own strays there.
        "bf16": {"enabled": wanted == torch.bfloat16 and stage > 0},
        "fp16": {"enabled": wanted == torch.float16},
        "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
    }
    if ours["fp16"]["enabled"] and load.device_for(recipe.device).type == "cpu":
        raise click.UsageError("--dtype fp16: DeepSpeed has none on CPUs; bf16 it has")
    config = merged(ours, theirs)
    if config["fp16"].get("enabled") and not stage:
        raise click.UsageError("--dtype fp16 --zero 0: DeepSpeed does not scale the loss there, but takes the "
                               "gradients for scaled ones; use --zero 1, or --dtype bf16")
    return config


def read_configuration(path: str, recipe: Recipe) -> dict[str, Any]:
    """The user's own configuration, less the sizes of batches, which the command line says. Raises UsageError."""
    try:
        theirs = orjson.loads(Path(path).read_bytes())
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"{path}: not JSON ({error})") from error
    if not isinstance(theirs, dict):
        raise click.UsageError(f"{path}: not a JSON object")
    for name, option in {"train_batch_size": f"--batch-size {recipe.batch_size}",
                       "train_micro_batch_size_per_gpu": f"--pack-tokens {recipe.pack_tokens}",
                       "gradient_accumulation_steps": "--batch-size and --pack-tokens"}.items():
        value = theirs.pop(name, "auto")
        if value != "auto" and (name, value) != ("train_batch_size", recipe.batch_size):
            raise click.UsageError(f"{path}: {name} {value}: it is {option} here; leave it out")
    for option, given in {"--lora-lr": recipe.lora_lr is not None,
                          "--optimizer rmsprop": recipe.optimizer == "rmsprop"}.items():
        if given and "optimizer" in theirs:
            raise click.UsageError(f"{path}: its optimizer knows nothing of {option}; leave one of them out")
    chosen = theirs.get("optimizer", {}).get("params", {})
    known = {"lr": recipe.lr, "betas": recipe.betas, "weight_decay": recipe.weight_decay}
    chosen |= {name: value for name, value in known.items() if chosen.get(name) == "auto"}
    if "auto" in theirs.get("scheduler", {}).get("params", {}).values():
        del theirs["scheduler"]  # --schedule, then
    return theirs


def merged(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """`theirs` over `ours`; their "auto" is what we say, or nothing."""
    result = dict(ours)
    for name, value in theirs.items():
        if isinstance(value, dict):
            below = ours.get(name)
            result[name] = merged(below if isinstance(below, dict) else {}, value)
        elif value != "auto":
            result[name] = value
    return result


def engine_for(model: Model, recipe: Recipe, total: int, checkpoint: Path | None = None) -> Engine:
    """The engine that the recipe asks for; `checkpoint` is what it will be told to load."""
    if not wants_deepspeed(recipe):
        return PlainEngine(model, recipe, total)
    return ZeroEngine(model, recipe, total, checkpoint)


def asking_engine_for(model: Model, recipe: Recipe) -> AskingEngine | Engine:
    """The engine of a model that does not train; what ZeRO 3 has dealt out must be gathered as it is asked."""
    if not is_sharded(model.model):
        return AskingEngine(model)
    return ZeroEngine(model, recipe, 0, train=False)
