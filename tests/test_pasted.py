"""The lines that an experiment's page begins with, and README's, pasted one after the other: they run, in small."""

import os
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


def run(script: str, folder: Path) -> str:
    """What the lines write to stdout, which must all end well."""
    environ = {**environment(), "PATH": f"{forks.folder() / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", smaller(script)], cwd=folder, env=environ,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.experiment
@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_its_lines_run_to_their_table(name, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    table = run(pasted(name), tmp_path)
    assert table.count("\n") >= 3 or '"activations"' in table, table
    assert list((tmp_path / "runs" / "plain" / name).iterdir())


def readme(heading: str) -> str:
    """README's first block of code under a heading."""
    page = (ROOT / "README.md").read_text()
    return re.sub("^    ", "", re.search(r"\n\n((?: {4}.+\n)+)\n", page[page.index(f"## {heading}"):])[1], flags=re.M)


@pytest.mark.slow
@pytest.mark.experiment
def test_readmes_pipe_runs_to_its_figure(tmp_path):
    """As a newcomer pastes it; al-eval's line has the mean of so many answers."""
    script = readme("A pipe on the toy world")
    assert len(script.splitlines()) == 7
    assert '"reward":{"mean":' in run(script, tmp_path)


def test_readme_is_short_and_its_way_to_scored_samples_too():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    lines = readme("Your own chat model and data").splitlines()
    assert len(lines) < 10 and lines[0].startswith("git clone ") and "al-score" in lines[-1]
