"""A training run's folder: it survives a kill, and says what made the model in it."""

import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import click
import orjson
import torch
import transformers

from alignlib import __version__, models, options
from alignlib.engine import Single
from alignlib.packed import Packed
from alignlib.recipe import Recipe

FREE = ("resume", "output", "save_every", "keep", "device", "model")  # what may differ; a model is told by its files


class Run:
    """An output folder: what it was asked for, its log, its checkpoints, its end.

    DIR/started.json    the options and the input's checksum, until the end
    DIR/log.jsonl       one object a step
    DIR/checkpoint-N/   a model folder after N steps; the newest also has trainer.pt
    DIR/                the final model; run.json comes last, so a folder with it is complete
    """

    def __init__(self, recipe: Recipe, asked: dict):
        self.recipe, self.folder, self.tokens = recipe, options.new_folder(recipe.output, recipe.resume), 0
        self.skipped = 0  # records left out as the user asked
        self.asked = orjson.loads(orjson.dumps({**asked, **asdict(recipe)}))
        self.complete = (self.folder / "run.json").exists()
        self.checkpoint: Path | None = None
        if self.complete:
            self._same(self.folder / "run.json")
            if (self.folder / "started.json").exists():  # killed while it tidied up
                self._tidy()
            print(f"{recipe.output} is complete: nothing to resume", file=sys.stderr)
            return
        if (self.folder / "started.json").exists():
            self._same(self.folder / "started.json")
        elif self.folder.exists() and any(path.name != "started.tmp" for path in self.folder.iterdir()):
            raise click.UsageError(f"{recipe.output}: not a run that --resume could go on with")
        found = [path for path in self.folder.glob("checkpoint-*") if (path / "trainer.pt").exists()]
        self.checkpoint = max(found, key=step_of, default=None)

    def reads(self, input_crc: int, eval_crc: int = 0) -> None:
        """Remember what the input was. Raises UsageError if the run began with another."""
        self.asked |= {"input_crc": input_crc, "eval_crc": eval_crc}
        if (self.folder / "started.json").exists():
            self._same(self.folder / "started.json")

    def begin(self) -> None:
        """From here on the folder is this run's: nothing before it failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace(self.folder / "started.json", {"options": self.asked})

    def _same(self, file: Path) -> None:
        before = orjson.loads(file.read_bytes())["options"]
        changed = [name.replace("_", " ") for name in self.asked
                   if name not in FREE and before.get(name) != self.asked[name]]
        if changed:
            raise click.UsageError(f"{self.folder}: cannot resume: {', '.join(changed)} changed")

    def start(self, model: str) -> str:
        """The model folder to load: the newest checkpoint, or the one the user named (adapters start from it too)."""
        return model if self.checkpoint is None or self.recipe.lora else str(self.checkpoint)

    def last_entry(self, step: int) -> dict:
        """Cut the log after `step`, where a resumed run goes on; its last entry, {} if there is none."""
        path = self.folder / "log.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith(b"\n") and orjson.loads(line)["step"] <= step]
        path.write_bytes(b"".join(kept))
        return orjson.loads(kept[-1]) if kept else {}

    def log(self, entry: dict) -> None:
        """One object a step, to stdout and to the folder. Training goes on when nobody reads stdout any more."""
        self.tokens += entry["tokens"]
        line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
        with open(self.folder / "log.jsonl", "ab") as handle:
            handle.write(line)
        try:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            options.quiet_pipe()

    def save(self, model: Packed, engine: Single, step: int, **more) -> None:
        """A checkpoint, written beside and renamed; then older ones go, or lose their trainer.pt."""
        beside, done = self.folder / ".checkpoint", self.folder / f"checkpoint-{step}"
        shutil.rmtree(beside, ignore_errors=True)
        models.save(model, beside)
        engine.save(beside, step=step, **more)
        if done.exists():
            shutil.rmtree(done)
        os.rename(beside, done)
        older = sorted((path for path in self.folder.glob("checkpoint-*") if path != done), key=step_of)
        keep = len(older) if self.recipe.keep == 0 else self.recipe.keep - 1
        for i, path in enumerate(older):
            if i < len(older) - keep:
                shutil.rmtree(path)
            else:
                (path / "trainer.pt").unlink(missing_ok=True)

    def finish(self, model: Packed, final: dict) -> None:
        """The model into DIR itself, run.json last."""
        beside = self.folder / ".final"
        shutil.rmtree(beside, ignore_errors=True)
        models.save(model, beside)
        for file in beside.iterdir():
            os.replace(file, self.folder / file.name)
        beside.rmdir()
        versions = {"align-tools": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
        replace(self.folder / "run.json", {"options": self.asked, "versions": versions, "final": final})
        self._tidy()

    def _tidy(self) -> None:
        """Remove what only an unfinished run needs."""
        if self.recipe.keep == 1:  # the last checkpoint is the model itself
            for path in self.folder.glob("checkpoint-*"):
                shutil.rmtree(path)
        for name in ("ref_logps.pt", "best.pt", "checkpoint-*/trainer.pt", "started.json"):
            for path in self.folder.glob(name):
                path.unlink()


def step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def replace(path: Path, content: dict) -> None:
    """Write JSON so that the file is the old one or the new one, never half of one."""
    beside = path.with_suffix(".tmp")
    beside.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    os.replace(beside, path)
