"""DPO beside TRL's DPOTrainer, in an environment of its own: tokens of the data a second of processor time, one thread.

Both read the same pairs and model, compute the reference's log-probabilities, train on the same batches and write a
model; imports are not counted. A token of the data is one of a pair's 2 * (prompt + completion), which is what TRL
computes; a pack holds prompt + 2 * completion of them: 1.67 times fewer.
"""

import json
import math
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from alignlib.training.batches import Batches, Shuffled
from helpers import tiny
from helpers.process import ROOT, environment

PINNED = ("torch==2.13.0", "trl==1.16.0", "transformers==5.23.0", "accelerate==1.15.0", "datasets==5.2.0")
PROMPT, COMPLETION, VOCABULARY = 256, 64, 2048
PAIRS, BATCH, RATE, ROUNDS = 16, 4, 1e-4, 3
DATA = PAIRS * 2 * (PROMPT + COMPLETION)  # tokens
AIM, SLACK = 1.8, 0.85  # other work on the machine must not fail the bench


@pytest.fixture(scope="module")
def python() -> str:
    """The Python of TRL's environment, made once."""
    folder = ROOT / ".bench" / "trl"
    python, ready = str(folder / "bin" / "python"), folder / ".ready"
    if not ready.exists() or ready.read_text() != " ".join(PINNED):
        venv.create(folder, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, PINNED[0]], check=True)  # torch first and by its version, as in the Makefile
        subprocess.run([*pip, *PINNED], check=True)
        ready.write_text(" ".join(PINNED))
    return python


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, str]:
    """An untrained Llama of 26M parameters whose words are its tokens, and pairs of exact lengths.

    TRL is given the pairs in the order in which al-train-exo takes them.
    """
    folder = tmp_path_factory.mktemp("trl")
    words = ["<eos>", "<pad>", *(f"w{i}" for i in range(VOCABULARY - 2))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(words[:2])
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=1344,
        max_position_embeddings=1024, bos_token_id=None, eos_token_id=0, pad_token_id=1, tie_word_embeddings=True)
    torch.manual_seed(0)
    tiny.save(transformers.LlamaForCausalLM(config), folder / "model",
              transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>"))
    pairs = [[text(PROMPT), " " + text(COMPLETION - 1), " " + text(COMPLETION - 1)] for _ in range(PAIRS)]  # and <eos>
    recipe = tiny.recipe(folder, batch_size=BATCH)
    batches = Batches(Shuffled(PAIRS), recipe)
    order = [i for step in range(PAIRS // BATCH) for i in batches.at(step)]
    write(folder / "ours", ({"prompt": x, "completions": [y, z], "rewards": [1, 0]} for x, y, z in pairs))
    write(folder / "theirs", ({"prompt": x, "chosen": y, "rejected": z} for x, y, z in (pairs[i] for i in order)))
    return {name: str(folder / name) for name in ("model", "ours", "theirs")}


def text(words: int) -> str:
    return " ".join(f"w{i}" for i in torch.randint(VOCABULARY - 2, (words,)).tolist())


def write(path: Path, records: Iterator[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def start(python: str, side: str) -> subprocess.Popen:
    env = {**environment(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([python, str(Path(__file__).with_name("dpo_worker.py")), side], env=env, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def ask(worker: subprocess.Popen, **job: object) -> tuple[float, list[float]]:
    """Seconds of processor time, and the loss of every step."""
    print(json.dumps({"batch": BATCH, "lr": RATE, **job}), file=worker.stdin, flush=True)
    done = json.loads(worker.stdout.readline())
    return done["seconds"], done["losses"]


@pytest.mark.parametrize(("dtype", "rounding"), [("fp32", 1e-4), ("bf16", 1e-2)])
def test_against_trl(python, world, tmp_path, dtype, rounding):
    ways = {"al-train-exo": ("ours", False), "TRL": ("theirs", False), "TRL, gradient checkpointing": ("theirs", True)}
    workers = {"ours": start(sys.executable, "ours"), "theirs": start(python, "theirs")}
    rates, losses = {name: [] for name in ways}, {}
    for turn in range(ROUNDS + 1):
        for name, (side, checkpointing) in ways.items():
            took, losses[name] = ask(workers[side], model=world["model"], data=world[side], dtype=dtype,
                                     output=str(tmp_path / f"{turn} {name}"), checkpointing=checkpointing)
            if turn:  # the first round warms up
                rates[name].append(DATA / took)
    for worker in workers.values():
        worker.communicate()
    assert losses["TRL"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses["al-train-exo"] == pytest.approx(losses["TRL"], abs=rounding)  # the same work
    gains = {name: [mine / their for mine, their in zip(rates["al-train-exo"], rates[name], strict=True)]
             for name in rates}
    print()
    for name, gain in gains.items():
        print(f"{dtype} {name:27}: {min(rates[name]):4.0f}-{max(rates[name]):4.0f} tokens/s; al-train-exo's are "
              f"{min(gain):.2f}-{max(gain):.2f}x, median {statistics.median(gain):.2f}x (aim {AIM})")
    assert statistics.median(gains["TRL"]) > SLACK * AIM
