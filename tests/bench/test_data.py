"""100 million tokens of SFT data, about 0.5 GB: what al-sft keeps of them, and how long it takes to its first step.

Against the same data read and tokenised by the same Encoder, of which nothing is kept. DATA_TOKENS: other sizes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.anonymous import watched, write_texts
from helpers.process import command, environment

TOKENS = int(float(os.environ.get("DATA_TOKENS", 1e8)))
WORDS_EACH = 198  # words, which are tokens, a record; with a beginning and an end 200

ALONE = """
import sys
from al_sft import Likelihood
from alignlib.models import load
from alignlib.training.session import Input

class Run:
    skipped = 0

objective = Likelihood("token")
encoder = load.build_encoder(load.load_config(sys.argv[1]), load.load_tokenizer(sys.argv[1]), max_length=None)
tokens = 0
for example in Input(Run, [sys.argv[2]], lambda record: objective.example(encoder, record)):
    tokens += example.length
print(tokens)
"""


def model(folder: Path, small: Path) -> Path:
    """A tiny model, whose tokenizer has a token for each of the words."""
    subprocess.run(command("al-data", "new-model", folder, small, "--size", "1m", "--vocab-size", 400), check=True,
                   env=environment(), capture_output=True)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_million_tokens(tmp_path):
    few = write_texts(tmp_path / "few.jsonl", 200, WORDS_EACH)
    texts = write_texts(tmp_path / "texts.jsonl", TOKENS // (WORDS_EACH + 2), WORDS_EACH)
    base = model(tmp_path / "base", few)
    options = ("--steps", 1, "--batch-size", 8, "--device", "cpu", "-o")
    beside, _, _ = watched(command("al-sft", base, few, *options, tmp_path / "few"))
    _, alone, tokens = watched([sys.executable, "-c", ALONE, str(base), str(texts)])
    on_disk = []

    def look() -> None:
        files = [file for file in (tmp_path / "run" / ".examples").glob("*") if file.exists()]
        on_disk.append(sum(file.stat().st_size for file in files))

    most, seconds, log = watched(command("al-sft", base, texts, *options, tmp_path / "run"), look)
    tokens = int(tokens)
    print(f"\n{tokens:,} tokens, {texts.stat().st_size / 1e6:.0f} MB: {max(on_disk) / tokens:.2f} bytes each on disk; "
          f"anonymous memory {most:.0f} MB at its peak, {beside:.0f} with 200 records; {seconds:.1f} s to the end of "
          f"the first step, {alone:.1f} s to read and tokenise alone: {seconds / alone:.2f}")
    assert json.loads(log)["step"] == 1
    assert max(on_disk) <= 5 * tokens and most - beside < 1000 and (most - beside) * 2**20 < tokens
    assert seconds < 1.3 * alone
