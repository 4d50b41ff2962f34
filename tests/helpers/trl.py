"""TRL in an environment of its own, for benches that set a trainer of ours beside one of theirs; what both are given.

A worker is a script of tests/bench that trains in a process of its own, `ours` or `theirs` (helpers.beside).
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from helpers import tiny
from helpers.process import ROOT, environment

PINNED = ("torch==2.13.0", "trl==1.16.0", "transformers==5.23.0", "accelerate==1.15.0", "datasets==5.2.0")
VOCABULARY = 2048  # tokens of the model


@functools.cache
def python() -> str:
    """The Python of TRL's environment, made once."""
    folder = ROOT / ".bench" / "trl"
    path, ready = str(folder / "bin" / "python"), folder / ".ready"
    if not ready.exists() or ready.read_text() != " ".join(PINNED):
        venv.create(folder, clear=True, with_pip=True)
        pip = [path, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, PINNED[0]], check=True)  # torch first and by its version, as in the Makefile
        subprocess.run([*pip, *PINNED], check=True)
        ready.write_text(" ".join(PINNED))
    return path


def word_model(folder: Path, *, endless: bool = False) -> None:
    """An untrained Llama of 26M parameters whose words, w0 and so on, are its tokens.

    endless: the end is one token more, which the model does not draw: all others have a direction in common.
    """
    words = ["<eos>", "<pad>", *(f"w{i}" for i in range(VOCABULARY - 2))]
    if endless:
        words = [f"w{VOCABULARY - 2}", *words[1:], "<eos>"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<eos>", "<pad>"])
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=1344,
        max_position_embeddings=1024, bos_token_id=None, eos_token_id=words.index("<eos>"),
        pad_token_id=1, tie_word_embeddings=True)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    if endless:
        with torch.no_grad():
            model.get_input_embeddings().weight[:, 0] = 2.0
            model.get_input_embeddings().weight[-1, 0] = -2.0  # 12 nats less than the words
    tiny.save(model, folder,
              transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>"))


def text(words: int) -> str:
    return " ".join(f"w{i}" for i in torch.randint(VOCABULARY - 2, (words,)).tolist())


def write(path: Path, records: Iterable[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


class Worker(subprocess.Popen):
    """The script `name` of tests/bench on one thread: `ours` in this environment, `theirs` in TRL's."""

    def __init__(self, name: str, side: str) -> None:
        env = {**environment(), "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] += f"{os.pathsep}{ROOT / 'tests'}"
        self.errors = tempfile.TemporaryFile("w+")
        super().__init__([sys.executable if side == "ours" else python(), str(ROOT / "tests" / "bench" / name), side],
                         env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)

    def ask(self, **job: object) -> dict[str, Any]:
        """What came of a training. Raises RuntimeError, with what the worker said, where it has ended instead."""
        print(json.dumps(job), file=self.stdin, flush=True)
        if not (line := self.stdout.readline()):
            self.errors.seek(0)
            raise RuntimeError(self.errors.read()[-4000:])
        return json.loads(line)
