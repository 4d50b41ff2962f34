"""The anonymous memory of commands, as the kernel counts it (RssAnon), and made-up data of any size to spend it on."""

import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from helpers.process import environment

WORDS = ("the old door of a red house is not to be washed today in any case and who paints it will know why this was "
         "said by all neighbours twice").split()


def write_texts(path: Path, records: int, words: int = 150) -> Path:
    """Records for al-sft, prompts of a quarter and answers of the rest of so many words, no two alike."""
    draw, line = random.Random(0), '{"prompt": "%s", "chosen": " %s"}\n'
    with open(path, "w") as file:
        for _ in range(records):
            text = draw.choices(WORDS, k=words)
            file.write(line % (" ".join(text[:words // 4]), " ".join(text[words // 4:])))
    return path


def anonymous(process: int) -> float:
    """Megabytes of it that a process has now; 0 for one that has ended."""
    found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1024 if found else 0


def watched(argv: list[str], look: Callable[[], object] = lambda: None) -> tuple[float, float, str]:
    """Run a process to its end: the most megabytes of anonymous memory that it had, its seconds, its stdout."""
    started = time.monotonic()
    process = subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    most = 0.0
    while process.poll() is None:
        most = max(most, anonymous(process.pid))
        look()
        time.sleep(0.02)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return most, time.monotonic() - started, out
