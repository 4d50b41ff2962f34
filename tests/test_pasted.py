"""The lines that an experiment's page begins with, pasted one after the other: they run, with tens of records."""

import re
import subprocess
from pathlib import Path

import pytest

from helpers import forks
from helpers.process import ROOT, environment

NAMES = sorted(path.parent.name for path in ROOT.glob("examples/*/README.md"))
# So that a run takes seconds.
SMALLER = [(r"--limit \d+", "--limit 24"), (r"--steps \d+", "--steps 2"), (r"--epochs \d+", "--steps 2"),
           (r"-n (20|25) ", "-n 6 "), (r"head -n \d+", "head -n 12"), (r"tail -n \+\d+", "tail -n +13"),
           (r"sed -n 1,\d+p", "sed -n 1,12p"), (r"sed -n \d\d+,\d+p", "sed -n 13,24p"), ("-m (48|64)", "-m 12"),
           ("--batch-size (16|32|8)", "--batch-size 8"), (r"--resample \d+", "--resample 16")]


def pasted(name: str) -> str:
    """The first block of code of its page, right behind the title."""
    page = (ROOT / "examples" / name / "README.md").read_text()
    begun = re.match(r"# .+\n\n((?: {4}.+\n)+)\n", page)
    assert begun, f"examples/{name}/README.md does not begin with its commands"
    return re.sub("^    ", "", begun[1], flags=re.MULTILINE)


def smaller(script: str) -> str:
    for long, short in SMALLER:
        script = re.sub(long, short, script)
    return script


@pytest.mark.parametrize("name", NAMES)
def test_a_page_begins_with_its_commands_as_plain_lines(name):
    script = pasted(name)
    first, *rest = script.splitlines()
    assert re.fullmatch(rf"mkdir -p runs/plain/{name}(/\w+)? && cd runs/plain/{name}", first)
    assert any(line.startswith("al-") for line in rest) and "make" not in script
    if (ROOT / "examples" / name / "experiment.mk").exists():
        assert f"\n    make {name}" in (ROOT / "examples" / name / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.experiment
@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_its_lines_run_to_their_table(name, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with forks.scripts() as venv:
        environ = environment()
        environ["PATH"] = f"{venv / 'bin'}:{environ['PATH']}"
        done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", smaller(pasted(name))], cwd=tmp_path, env=environ,
                              capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") >= (3 if name != "scale" else 1), done.stdout
    assert Path(tmp_path / "runs" / "plain" / name).is_dir()
