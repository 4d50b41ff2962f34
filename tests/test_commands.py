"""What every command promises before it does anything: help, version, schema, and all of it at once."""

import ast
import json
import re
import resource
import subprocess
import sys
import tomllib

import pytest

from helpers.process import ROOT, call, command, environment

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
MODULES = {name: target.split(":")[1] for name, target in SCRIPTS.items()}
FILES = {name: next((path for path in (ROOT / "tools" / f"{module}.py", ROOT / "tools" / module / "__init__.py")
                     if path.exists()), None) for name, module in MODULES.items()}
COMMANDS = sorted(name for name, file in FILES.items() if file)
HEAVY = {"torch", "transformers", "deepspeed", "vllm", "openai", "datasets", "numpy", "matplotlib"}

every = pytest.mark.parametrize("name", COMMANDS)


def docstring(name: str) -> str:
    return ast.get_docstring(ast.parse(FILES[name].read_text())) or ""


def parts(name: str) -> list[list[str]]:
    """The command, or each of its subcommands, as arguments."""
    code = f"import {MODULES[name]} as m; print(*getattr(m.main, 'commands', []))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    return [[], *([part] for part in done.stdout.split())]


def test_there_are_commands():
    """Twelve commands, and each file or folder of tools/ is one."""
    print(f"{len(COMMANDS)} commands: {', '.join(COMMANDS)}")
    there = {path.stem.replace("_", "-") for path in (ROOT / "tools").glob("al_*")}
    assert len(COMMANDS) == 12 and there == set(COMMANDS)


@every
@pytest.mark.slow
def test_help_says_how_it_reads(name):
    texts = []
    for part in parts(name):
        done = call(name, *part, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: {' '.join([name, *part])} ")
        texts.append(" ".join(done.stdout.split()))
    says = [re.search(r"\b([Ss]tream|[Rr]eads all\b)", text) is not None for text in texts]
    assert says[0] or (len(says) > 1 and all(says[1:])), "help says neither that it streams nor that it reads all first"


@every
def test_every_command_and_option_has_help(name):
    code = (
        f"import click, {MODULES[name]} as m\n"
        "for c in [m.main, *getattr(m.main, 'commands', {}).values()]:\n"
        "    print(c.name, bool(c.help), *[p.name for p in c.params if isinstance(p, click.Option) and not p.help])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        command_name, has_help, *silent = line.split()
        assert has_help == "True" and not silent, f"{command_name}: {silent}"


@pytest.mark.slow
@every
def test_python_m_runs_it(name):
    done = subprocess.run([sys.executable, "-m", MODULES[name], "--version"], env=environment(), capture_output=True,
                          text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"{name} ")


@every
def test_version(name):
    done = call(name, "--version")
    assert done.returncode == 0 and done.stdout.startswith(f"{name} ") and done.stderr == ""


@pytest.mark.slow
@every
def test_schema_is_json(name):
    for part in parts(name):
        done = call(name, *part, "--schema")
        assert done.returncode == 0 and done.stderr == ""
        assert json.loads(done.stdout)["$schema"].startswith("https://json-schema.org/")


@every
def test_the_file_begins_with_an_input_line_an_output_line_and_a_pipe(name):
    text = docstring(name)
    lines = [line.strip() for line in text.splitlines()]
    assert any(line.startswith("in") and "{" in line for line in lines) or "reads nothing" in text
    assert any(line.startswith("out") for line in lines)
    assert any("al-" in line and (" | " in line or " > " in line) for line in lines)


@every
def test_help_loads_nothing_heavy(name):
    code = (
        f"import sys, {MODULES[name]} as m\n"
        "try:\n    m.main(['--help'])\nexcept SystemExit:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "alignlib.cli.options" in loaded and not loaded & HEAVY


def times_of_click(words: list[str], **environ: str) -> float:
    """How many times the processor time of `import click` a process takes that must succeed: in turn, best of three."""
    def took(words: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, env={**environment(), **environ}, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    rounds = [(took(words), took([sys.executable, "-c", "import click"])) for _ in range(3)]
    mine, clicks = map(min, zip(*rounds, strict=True))
    return mine / clicks


@pytest.mark.slow
@every
def test_help_comes_at_once(name):
    """By what any command of click's takes on this machine, busy as it is; torch alone is tens of times that."""
    assert times_of_click(command(name, "--help")) < 6


@pytest.mark.slow
@every
def test_a_completion_script_comes_at_once(name):
    assert times_of_click(command(name), **{f"_{name.replace('-', '_').upper()}_COMPLETE": "bash_source"}) < 6


@every
def test_an_unknown_option_is_2_in_one_line(name):
    done = call(name, "--no-such-option")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "--no-such-option" in done.stderr and done.stderr.endswith(f" (see {name} --help)\n")


@pytest.mark.parametrize(("name", "needed"), [
    ("al-sft", ["chosen"]), ("al-train-rm", []), ("al-train-exo", []), ("al-train-ppo", []),
    ("al-score", ["completions"]), ("al-pref2rw", []), ("al-sample", []), ("al-args", []),
])
def test_the_schema_asks_for_what_is_always_needed(name, needed):
    schema = json.loads(call(name, "--schema").stdout)
    assert schema["input"]["required"] == needed
    trains = name == "al-sft" or name.startswith("al-train-")
    assert ("one entry a step" in schema["output"].get("description", "")) == trains
