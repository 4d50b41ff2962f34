"""Memory of a training step against the size of the vocabulary: log-probabilities in chunks, beside whole logits.

The model is narrow, so that what grows with the vocabulary by itself (weights and their gradients, 64 bytes a token
each) stays small; 2048 tokens are predicted, whose whole logits would be 1 GB at 128k tokens, several times over.
"""

import subprocess
import sys

import pytest

from helpers.process import environment

STEP = """
import re, sys
from pathlib import Path
import torch, transformers
from al_train_exo.objective import Contrast
from alignlib.models import logps
from alignlib.models.example import Example
from alignlib.models.policy import Policy

vocabulary, way = int(sys.argv[1]), sys.argv[2]
if way == "whole":
    logps.CHUNK = 1 << 60

def peak():  # MB; ru_maxrss would begin with that of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def step(examples, completion):
    data = [Example([1] * 64, [[2] * completion] * 4, {"rewards": [0.0, 1, 2, 3], "ref_logps": [0.0] * 4})] * examples
    objective = Contrast("exo-rw", 0.5, 0.5, 1.0, None, "ref_logps", 0.0, False, False, 0.0, 0.0, 0.1, 0.0, 1.0, 1.0)
    objective(model, model.pack(data))[0].backward()

config = transformers.LlamaConfig(vocab_size=vocabulary, hidden_size=16, num_hidden_layers=2, intermediate_size=32,
                                  num_attention_heads=2, tie_word_embeddings=True)
model = Policy(transformers.AutoModelForCausalLM.from_config(config), tokenizer=None)
step(1, 1)  # weights, gradients and the code itself are there now
before = peak()
step(8, 64)
print(peak() - before)
"""
SIZES = (2_000, 16_000, 64_000, 128_000)
WHOLE = (2_000, 16_000, 64_000)  # as far as 8 GB of memory allow


def megabytes(vocabulary: int, way: str) -> float:
    """What a step takes over weights and gradients, at its peak."""
    done = subprocess.run([sys.executable, "-c", STEP, str(vocabulary), way], env=environment(), check=True,
                          stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_in_the_vocabulary():
    chunks, whole = {}, {}
    print()
    for size in SIZES:
        chunks[size] = megabytes(size, "chunks")
        text = ""
        if size in WHOLE:
            whole[size] = megabytes(size, "whole")
            text = f"; with whole logits {whole[size]:5.0f} MB, {whole[size] / chunks[size]:.1f}x"
        print(f"vocabulary {size:7,}: a step takes {chunks[size]:4.0f} MB{text}")
    # At 2,000 the logits are less than a chunk; from there on what a step takes no longer grows.
    assert max(chunks.values()) < 1.5 * chunks[16_000]
    assert whole[64_000] > 5 * chunks[64_000]
