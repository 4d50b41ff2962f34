"""The anonymous memory of commands, as the kernel counts it (RssAnon), and made-up data of any size to spend it on."""

import random
import re
import subprocess
import sys
import time
from pathlib import Path

from helpers.process import command, environment

WORDS = ["the", "old", "door", "of", "a", "red", "house", "is", "not", "to", "be", "washed", "today", "in", "any", "case",
         "and", "who", "paints", "it", "will", "know", "why", "this", "was", "said", "by", "all", "neighbours", "twice"]


def write_texts(path: Path, records: int, words: int = 150) -> Path:
    """Records for al-sft, prompts of a quarter and answers of the rest of so many words, no two alike."""
    draw, line = random.Random(0), '{"prompt": "%s", "chosen": " %s"}\n'
    with open(path, "w") as file:
        for _ in range(records):
            text = draw.choices(WORDS, k=words)
            file.write(line % (" ".join(text[:words // 4]), " ".join(text[words // 4:])))
    return path


def peak(name: str, *args: object) -> tuple[float, float, str]:
    """Run a command: the most megabytes of anonymous memory that it had, the seconds to its first line, its stderr."""
    process = subprocess.Popen(command(name, *args), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    status, most, started, first = Path(f"/proc/{process.pid}/status"), 0, time.monotonic(), 0.0
    while process.poll() is None:
        found = re.search(r"RssAnon:\s+(\d+)", status.read_text())
        most = max(most, int(found[1]) if found else 0)
        time.sleep(0.02)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return most / 1024, first, err


if __name__ == "__main__":
    print(peak(sys.argv[1], *sys.argv[2:]))
