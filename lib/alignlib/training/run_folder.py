"""A training run's folder: it survives a kill, and says what made the model in it."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson
import torch
import transformers
from torch import Tensor

from alignlib import __version__, ranks
from alignlib.cli import exits, options, paths
from alignlib.models import checkpoint, faults, load, precision
from alignlib.models.policy import Model
from alignlib.records.disk import Held, StateError, make_folders, remove_empty, whole, writing
from alignlib.records.jsonl import DataError
from alignlib.records.shown import say, say_skipped
from alignlib.training import adapters
from alignlib.training.engine import Engine, cure
from alignlib.training.recipe import Recipe

# What may differ when a run is resumed; a model is told by its files.
FREE = ("resume", "on_error", "output", "save_every", "keep", "device", "offload", "model")

EXAMPLES = ".examples"  # where they lie until the end (training/store.py)
# What a run that was killed at once may leave, besides its examples.
BEGINNING = ("log.jsonl", "started.json.partial")
UNFINISHED = (".checkpoint", ".final")  # folders that were being written


class Run:
    """An output folder: what it was asked for, its log, its checkpoints, its end.

    DIR/started.json    the options and the input's checksum, until the end
    DIR/.examples       what is trained on, until the end
    DIR/log.jsonl       one object a step
    DIR/checkpoint-N/   a model folder after N steps; the newest also has trainer.pt (and, of several ranks, deepspeed/)
    DIR/                the final model; run.json comes last, so a folder with it is complete

    Of several ranks the first looks and writes; the others are told.
    """

    def __init__(self, recipe: Recipe, fixed: dict[str, Any]):
        self.recipe, self.folder, self.tokens = recipe, Path(recipe.output), 0
        self.skipped = self._bad = 0  # records left out as the user asked; of them, those that --on-error left out
        self.notes: dict[str, Any] = {}  # what run.json has beside the options, the versions and the final figures
        self.fixed = orjson.loads(orjson.dumps(paths.in_utf8({**fixed, **asdict(recipe)})))
        self.dtype: torch.dtype | None = None  # of the final weights, from `begin` on
        self._log: Held | None = None  # as long as the run lives: of two runs in one folder the second ends
        self._made: list[str] = []  # the folders that were not there before
        self.engine: Engine | None = None  # made by loop.start
        self.beside: dict[str, tuple[Model, Engine]] = {}  # models that train along, by the folders that they get
        self.began: float | None = None  # the time.monotonic() at which all was loaded and read
        self.complete, self.checkpoint = ranks.share(self._look)

    def _look(self) -> tuple[bool, Path | None]:
        """Whether the folder's run is complete, and the checkpoint to go on from. Raises UsageError, StateError."""
        if not self.recipe.resume:
            self._forget_reading()
        options.new_folder(self.recipe.output, self.recipe.resume)
        if (self.folder / "run.json").exists():
            self._same(self.folder / "run.json")
            self._must_be_whole()
            if (self.folder / "started.json").exists():  # killed while it tidied up
                self._tidy()
            say(f"{self.recipe.output} is complete: nothing to resume")
            return True, None
        if (self.folder / "started.json").exists():
            self._same(self.folder / "started.json")
        elif self.folder.exists() and any(path.name not in BEGINNING and not path.name.startswith(EXAMPLES)
                                          for path in self.folder.iterdir()):
            raise click.UsageError(f"{self.recipe.output}: not a run that --resume could go on with")
        checkpoints = [path for path in self.folder.glob("checkpoint-*") if (path / "trainer.pt").exists()]
        return False, max(checkpoints, key=step_of, default=None)

    def _forget_reading(self) -> None:
        """Remove what is left of a run that was killed before its first step: what it had read."""
        left = list(self.folder.iterdir()) if self.folder.is_dir() else []
        if all(path.name.startswith(EXAMPLES) or path.name in BEGINNING and not path.stat().st_size for path in left):
            for path in left:
                held = Held(path / "lock" if path.is_dir() else path, shown=self.folder)  # no run is at it now
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
                held.close()
                remove_empty([str(path)])  # until then NFS keeps the lock in it, under another name

    def reads(self, input_crc: int, eval_crc: int = 0) -> None:
        """Remember what the input was. Raises UsageError if the run began with another."""
        self.fixed |= {"input_crc": input_crc, "eval_crc": eval_crc}
        if ranks.first() and (self.folder / "started.json").exists():
            self._same(self.folder / "started.json")

    def leave_out(self, bad: DataError) -> None:
        """Count a bad record, and name it if it is among the first; or raise, as --on-error says."""
        if self.recipe.on_error == "fail":
            raise bad
        self.skipped, self._bad = self.skipped + 1, self._bad + 1
        say_skipped(bad, self._bad)

    def begin(self) -> None:
        """From here on the folder is this run's: nothing before it failed. Raises StateError, DiskFull."""
        self.began = self.began or time.monotonic()
        if not ranks.first() or self._log is not None:
            return
        self.dtype = self._dtype()
        self._made = make_folders(self.folder)
        self._log = Held(self.folder / "log.jsonl", append=True, shown=self.folder)
        if (self.folder / "run.json").exists() or not (self.recipe.resume or self._log.new):
            raise StateError(f"{self.folder}: another run has been writing it since this one began")
        for name in UNFINISHED:  # by a run that was killed
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for path in self.folder.glob("*.partial"):
            path.unlink()
        replace(self.folder / "started.json", {"options": self.fixed})

    def leave_nothing(self) -> None:
        """After a failure: where this run began the folder, and nothing is in it to go on with, nothing stays."""
        if self._log is not None:
            files = list(self.folder.iterdir())
            if not self._log.new or any(path.name not in (*BEGINNING, "started.json") for path in files) or \
                    os.path.getsize(self._log.path):
                return
            for path in files:
                path.unlink()
            self._log.close()
        remove_empty(self._made)

    def under_way(self) -> bool:
        """Whether there is more to go on with than what has been read: a step, a checkpoint."""
        log = self.folder / "log.jsonl"
        return self.checkpoint is not None or (log.exists() and log.stat().st_size > 0)

    def _dtype(self) -> torch.dtype | None:
        """What the final weights are kept in, by --save-dtype; None: what they are in memory."""
        if self.recipe.save_dtype != "auto":
            return precision.DTYPES[self.recipe.save_dtype]
        model = self.fixed.get("model")
        return checkpoint.stored_dtype(load.adapter_base(model) or model) if model else None

    def _same(self, file: Path) -> None:
        anew = f"{self.folder} cannot be resumed: train anew, into another folder"
        try:
            before = faults.read(file).get("options")
        except click.UsageError as error:
            raise click.UsageError(f"{error.message}; {anew}") from error
        if not isinstance(before, dict):
            raise click.UsageError(f"{file}: options: not what a training writes; {anew}")
        changed = [name.replace("_", " ") for name in self.fixed
                   if name not in FREE and before.get(name) != self.fixed[name]]
        if changed:
            raise click.UsageError(f"{self.folder}: cannot resume: {', '.join(changed)} changed")

    def _must_be_whole(self) -> None:
        """Raises UsageError where the model's weights are not as long as they were at the end."""
        sizes = faults.read(self.folder / "run.json").get("bytes")
        for name, size in sizes.items() if isinstance(sizes, dict) else ():
            file = self.folder / name
            there = file.stat().st_size if file.exists() else 0
            if there != size:
                raise click.UsageError(f"{file}: was finished with {size:,} bytes, and has {there:,} now; removing "
                                       f"{self.folder} trains anew")

    def with_cure(self, said: str) -> str:
        """What was said of a file in the checkpoint, with what to do about it, whoever said it."""
        if self.checkpoint and str(self.checkpoint) in said and "remove" not in said:
            return f"{said}; {cure(self.checkpoint)}"
        return said

    def start(self, model: str) -> str:
        """The model folder to load: the newest checkpoint, or the one the user named; new adapters start from that."""
        return model if self.checkpoint is None or self.recipe.lora else str(self.checkpoint)

    def last_entry(self, step: int) -> dict[str, Any]:
        """Cut the log after `step`, where a resumed run goes on; its last entry, {} if there is none."""
        if not ranks.first():
            return {}
        path = self.folder / "log.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        try:
            kept = [line for line in lines if line.endswith(b"\n") and orjson.loads(line)["step"] <= step]
        except (ValueError, KeyError, TypeError) as error:
            raise click.UsageError(f"{path}: not the log of a training; remove it to resume without") from error
        if lines:  # those that are kept come first
            os.truncate(path, sum(map(len, kept)))
        return orjson.loads(kept[-1]) if kept else {}

    def log(self, entry: dict[str, Any]) -> None:
        """One object a step, to the folder and to stdout, but for a terminal, which has a bar instead.

        Training goes on when nobody reads stdout any more.
        """
        self.tokens += entry["tokens"]
        if not ranks.first():
            return
        line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
        with writing(self.folder), open(self.folder / "log.jsonl", "ab") as handle:
            handle.write(line)
        if sys.stdout.isatty():
            return
        try:
            with writing(None):
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            exits.quiet_pipe()

    def save(self, model: Model, engine: Engine, step: int, **more: Any) -> None:
        """A checkpoint, written beside and renamed; then older ones go, or lose what only --resume needs.

        Where the disk has no space for it the earlier ones stay as they are. Raises DiskFull.
        """
        beside, done = self.folder / ".checkpoint", self.folder / f"checkpoint-{step}"
        weights = engine.weights()
        with self._beside(beside):
            if ranks.first():
                adapters.save(model, beside, self.recipe, weights)
            engine.save(beside, step=step, **more)
            for name, (other, its_engine) in self.beside.items():
                its_weights = its_engine.weights()
                if ranks.first():
                    adapters.save(other, beside / name, its_engine.recipe, its_weights)
                its_engine.save(beside / name, step=step)
        if ranks.first():
            self._rename(beside, done)
        ranks.wait()

    @contextmanager
    def _beside(self, folder: Path) -> Iterator[None]:
        """Around writing a folder that is not there yet: if that fails it goes. Raises DiskFull."""
        try:
            with writing(self.folder):
                yield
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _rename(self, beside: Path, done: Path) -> None:
        if done.exists():
            shutil.rmtree(done)
        os.rename(beside, done)
        older = sorted((path for path in self.folder.glob("checkpoint-*") if path != done), key=step_of)
        keep = len(older) if self.recipe.keep == 0 else self.recipe.keep - 1
        for i, path in enumerate(older):
            if i < len(older) - keep:
                shutil.rmtree(path)
            else:
                light(path)

    def keep(self, name: str, content: bytes) -> None:
        """A file beside the model: whole, or not there."""
        if ranks.first():
            with whole(self.folder / name) as handle:
                handle.write(content)

    def finish(self, model: Model, final: dict[str, Any], weights: dict[str, Tensor] | None) -> None:
        """The model with these weights into DIR itself, run.json last."""
        others = {name: (other, engine.recipe, engine.weights()) for name, (other, engine) in self.beside.items()}
        if not ranks.first():
            return
        beside = self.folder / ".final"
        with self._beside(beside):
            adapters.save(model, beside, self.recipe, weights, self.dtype)
            for name, (other, recipe, its_weights) in others.items():
                adapters.save(other, beside / name, recipe, its_weights, self.dtype)
        for name in others:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        sizes = {str(file.relative_to(beside)): file.stat().st_size for file in sorted(beside.rglob("*.safetensors"))}
        for file in beside.iterdir():
            os.replace(file, self.folder / file.name)
        beside.rmdir()
        versions = {"align-tools": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
        replace(self.folder / "run.json", {"options": self.fixed, "versions": versions, "final": final,
                                           "bytes": sizes, **self.notes})
        self._tidy()

    def _tidy(self) -> None:
        """Remove what only an unfinished run needs."""
        if self.recipe.keep == 1:  # the last checkpoint is the model itself
            for path in self.folder.glob("checkpoint-*"):
                shutil.rmtree(path)
        for path in self.folder.glob("checkpoint-*"):
            light(path)
        for path in (*self.folder.glob("*.pt"), self.folder / "started.json"):  # the model itself is safetensors
            path.unlink(missing_ok=True)
        for path in self.folder.glob(f"{EXAMPLES}*"):
            # Ranks have them open until they end, and NFS keeps what is open, under other names: no fault of the run.
            shutil.rmtree(path, ignore_errors=True)


def light(checkpoint: Path) -> None:
    """Leave of a checkpoint the model alone."""
    for file in checkpoint.rglob("trainer.pt"):
        file.unlink()
    for folder in [folder for name in ("deepspeed", "universal") for folder in checkpoint.rglob(name)]:
        shutil.rmtree(folder)


def step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def replace(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is the old one or the new one, never half of one."""
    with whole(path) as handle:
        handle.write(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
