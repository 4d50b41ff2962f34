"""Completion: by each shell itself, at a terminal; and what the command answers it."""

import subprocess

import pytest

from helpers.keyboard import SHELLS, scripts, words_typed
from helpers.process import COMMANDS, call, command, environment

every_shell = pytest.mark.parametrize("shell", SHELLS)


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return scripts(tmp_path_factory.mktemp("commands") / "bin")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my-model").mkdir()
    (tmp_path / "prompts.jsonl").write_text("")
    return tmp_path


@pytest.mark.slow
@every_shell
@pytest.mark.parametrize(("name", "keys", "words"), [
    ("al-sample", "m --backe\t", ["m", "--backend"]),
    ("al-sample", "m --backend vl\t", ["m", "--backend", "vllm"]),
    ("al-sample", "my-mo\t", ["my-model"]),
    ("al-sample", "m promp\t", ["m", "prompts.jsonl"]),
    ("al-sample", "m --rejects promp\t", ["m", "--rejects", "prompts.jsonl"]),
    ("al-train-exo", "m --ref my-mo\t", ["m", "--ref", "my-model"]),
    ("al-data", "writ\t", ["writing-prompts"]),
    ("al-data", "toy --only judg\t", ["toy", "--only", "judge"]),
    ("al-sample", "m --template promp\t", ["m", "--template", "prompts.jsonl"]),
    ("al-sample", "m @promp\t", ["m", "@prompts.jsonl"]),
    ("al-sample", "m --backend=vl\t", ["m", "--backend=vllm"]),
    ("al-sample", "m --rejects=promp\t", ["m", "--rejects=prompts.jsonl"]),
    ("al-score", "py:promp\t", ["py:prompts.jsonl"]),
    ("al-train-ppo", "m --reward 0.5:my-mo\t", ["m", "--reward", "0.5:my-model"]),
])
def test_tab_completes(shell, name, keys, words, folder, commands):
    """Options, choices, files, folders (behind which zsh leaves no /), subcommands."""
    typed = words_typed(shell, name, f"{name} {keys}", folder, commands)
    assert [word.removesuffix("/") for word in typed] == words


def ask(name: str, shell: str, *words: str, **environ: str) -> str:
    """What the command says to a shell that completes the last of the words."""
    at = str(len(words)) if shell != "fish" else words[-1]
    env = {**environment(), "COMP_WORDS": " ".join([name, *words]), "COMP_CWORD": at,
           f"_{name.replace('-', '_').upper()}_COMPLETE": f"{shell}_complete", **environ}
    done = subprocess.run(command(name), env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("shell", "said"), [
    ("bash", "plain,--backend\n"), ("fish", "plain,--backend\tWhat runs the model: this command, vLLM, or a server.\n"),
    ("zsh", "plain\n--backend\nWhat runs the model: this command, vLLM, or a server.\n")])
def test_each_shell_is_answered_in_its_own_way(shell, said):
    assert ask("al-sample", shell, "m", "--backe") == said


def test_words_that_end_a_command_do_not_end_an_answer():
    """What --schema and --version print is no completion, nor is a file that is missing yet."""
    assert ask("al-score", "bash", "--schema", "--version", "--negat") == "plain,--negate\n"
    assert ask("al-eval", "bash", "table", "a=none.json", "--markd") == "plain,--markdown\n"


@pytest.mark.parametrize(("name", "shell"), [*((name, "bash") for name in COMMANDS), ("al-sft", "zsh"),
                                             ("al-sft", "fish")])
def test_the_script_is_printed_and_nothing_is_run(name, shell):
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    done = subprocess.run(command(name), env={**environment(), variable: f"{shell}_source"}, capture_output=True,
                          text=True)
    assert done.returncode == 0 and done.stderr == "" and f"{variable}={shell}_complete" in done.stdout


def test_an_unknown_shell_is_a_failure():
    done = subprocess.run(command("al-sft"), env={**environment(), "_AL_SFT_COMPLETE": "none_source"},
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")


def test_without_the_variable_a_command_runs():
    assert call("al-sft", "--version").stdout.startswith("al-sft ")
