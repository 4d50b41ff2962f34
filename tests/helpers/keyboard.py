"""A shell at a terminal, and someone who types: for what a shell does while a line is typed."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.process import COMMANDS, environment

PROMPT = "READY>"  # what the shells below ask with
# How each is started with the line that sets it up, and that line: {name} of the command whose completion it has,
# which prints its words instead of running.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"],
             """eval "$(_{variable}_COMPLETE=bash_source {name})"; {name}() {{ printf '[%s]' "$@" END; }}; """
             """bind 'set enable-bracketed-paste off'; PS1='READY''> '"""),
    "zsh": (["zsh", "-f", "-i"],
            """autoload -Uz compinit; compinit -D -u; eval "$(_{variable}_COMPLETE=zsh_source {name})"; """
            """{name}() {{ printf '[%s]' "$@" END; }}; unsetopt zle_bracketed_paste; PROMPT='READY''> '"""),
    "fish": (["fish", "--no-config", "-i"],
             """_{variable}_COMPLETE=fish_source {name} | source; function {name}; printf '[%s]' $argv END; end; """
             """function fish_prompt; echo -n 'READY''> '; end"""),
}


def scripts(folder: Path) -> Path:
    """A folder for PATH with every command of this checkout."""
    folder.mkdir()
    for name in COMMANDS:
        script = folder / name
        script.write_text(f"#!/bin/sh\nexec {sys.executable} -m alignlib.cli.start {name.replace('-', '_')} \"$@\"\n")
        script.chmod(0o755)
    return folder


def words_typed(shell: str, name: str, keys: str, folder: Path, commands: Path) -> list[str]:
    """The words that the command `name` gets when `keys` and then Return are typed in `folder`, at the shell's prompt.

    commands: the folder that `scripts` has filled
    """
    start, setup = SHELLS[shell]
    if not shutil.which(start[0]):
        pytest.skip(f"{shell} is not installed here; .ci/run installs it")
    mine, theirs = pty.openpty()
    env = {**environment(), "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb", "HOME": str(folder)}
    process = subprocess.Popen(["setsid", "--ctty", *start], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
                               env=env)
    os.close(theirs)
    try:
        write(mine, setup.format(name=name, variable=name.replace("-", "_").upper()) + "\r")
        read_until(mine, PROMPT)
        write(mine, keys + "\r")
        shown = read_until(mine, "[END]")
    finally:
        os.close(mine)  # it hangs up
        process.kill()
        process.wait()
    return [word.partition("[")[2] for word in shown.rpartition("\n")[2].split("]")[:-2]]


def write(terminal: int, text: str) -> None:
    os.write(terminal, text.encode())


def read_until(terminal: int, end: str) -> str:
    """What is shown up to there; raises OSError where the shell ends before."""
    shown = ""
    while end not in shown:
        shown += os.read(terminal, 1 << 16).decode(errors="replace")
    return shown
