"""Commands as real processes, from this checkout."""

import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from helpers import forks

ROOT = forks.ROOT
COMMANDS = sorted(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])
# Of an environment what is read while libraries are imported. (These write there, too: torch, say, where it compiles.)
EARLY = ("CUDA_", "DATASETS_", "HF_", "HTTP", "OMP_", "PYTHON", "TMPDIR", "TRANSFORMERS_", "http")


def command(name: str, *args: object) -> list[str]:
    """The argument list that runs `al-NAME` in a process of its own, from this checkout."""
    module = name.replace("-", "_")
    return [sys.executable, "-c", f"import sys; from {module} import main; main(prog_name={name!r})",
            *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": forks.python_path("lib", "tools")}


def imports_alike() -> bool:
    """Whether libraries would read from the environment what they did when the tests began."""
    return not any(name.startswith(EARLY) for name, _ in forks.environment_then() ^ set(os.environ.items()))


def call(name: str, *args: object, stdin: bytes | str = b"", **settings) -> subprocess.CompletedProcess:
    """Run a command to its end: .returncode, .stdout, .stderr (text).

    It is forked from a process that has imported torch, unless the environment says what is read before that.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    argv = [str(forks.folder() / "bin" / name), *map(str, args)] if imports_alike() else command(name, *args)
    done = subprocess.run(argv, input=data, capture_output=True, env=environment(), **settings)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


def watched(name: str, *args: object, stdin: bytes = b"") -> tuple[subprocess.CompletedProcess, int]:
    """As `call`, with the most memory that the process had, in bytes; as it stood some milliseconds before the end."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(command(name, *args), env=environment(), stdin=given, stdout=out, stderr=errors)
        most, status = 0, Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    most = max(most, int(line.split()[1]) * 1024)
            time.sleep(0.005)
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode())
        return subprocess.CompletedProcess(process.args, process.returncode, *texts), most


def succeeded(done: subprocess.CompletedProcess) -> list[dict]:
    """The records that a command wrote, which must have succeeded."""
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
