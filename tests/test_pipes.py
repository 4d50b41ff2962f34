"""The commands as they are meant to be used: joined in a shell, fed slowly, cut short by head."""

import json
import os
import shlex
import subprocess

import pytest

from helpers.commands import folders, lines, pairs, prompts, read, rewarded, weights
from helpers.process import command, environment

pytestmark = pytest.mark.slow


def shell(script: str, **commands: list[str]) -> subprocess.CompletedProcess:
    """Run a script of bash in which {name} stands for a command."""
    filled = script.format(**{name: shlex.join(argv) for name, argv in commands.items()})
    return subprocess.run(["bash", "-o", "pipefail", "-c", filled], env=environment(), capture_output=True, text=True,
                          cwd=folders().root)


def test_from_prompts_to_an_aligned_policy(tmp_path):
    """The README's pipe, and every command of it says what it did on stderr."""
    (tmp_path / "prompts").write_bytes(lines(*prompts(6)))
    done = shell(
        "{sample} | {oracle} | tee {scored} | {exo} > {log} && {sample} 2> /dev/null | {reward} 2> /dev/null "
        "| {pref} | {rm} > /dev/null",
        sample=command("al-sample", folders().policy, tmp_path / "prompts", "-n", 4, "-m", 8),
        oracle=command("al-score", "toy:overall"),
        reward=command("al-score", folders().reward),
        pref=command("al-pref2rw", "--to", "pref", "--ties", "skip"),
        scored=[str(tmp_path / "scored")], log=[str(tmp_path / "log")],
        exo=command("al-train-exo", folders().policy, "-o", tmp_path / "exo", "--lr", "1e-3"),
        rm=command("al-train-rm", folders().policy, "-o", tmp_path / "rm"),
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "al-sample", "al-score", "al-train-exo", "al-pref2rw", "al-train-rm"]
    scored = read((tmp_path / "scored").read_text())
    assert all(len(record["rewards"]) == 4 for record in scored) and len(scored) == 6
    assert json.loads((tmp_path / "log").read_text())["step"] == 1
    assert weights(tmp_path / "exo") != weights(folders().policy)


@pytest.mark.parametrize("kind", ["sample", "score"])
def test_head_ends_it_quietly(kind, tmp_path):
    """More than a pipe holds, so that the command does meet a closed one."""
    (tmp_path / "in").write_bytes(lines(*(dict(record, pad="x" * 9000) for record in rewarded(300, 2))))
    argv = {"sample": command("al-sample", folders().policy, tmp_path / "in", "-m", 2, "--window", 4),
            "score": command("al-score", folders().reward, tmp_path / "in")}[kind]
    done = shell("{run} | head -1; echo ${{PIPESTATUS[*]}}", run=argv)
    first, codes = done.stdout.splitlines()
    assert codes == "0 0" and done.stderr == ""
    assert json.loads(first)["id"] == "toy-dialogue-train-0-0"


def test_records_leave_as_soon_as_they_are_done():
    """The second record comes only after the first has come out of the far end of the pipe."""
    sample = subprocess.Popen(command("al-sample", folders().policy, "-m", 4, "--window", 1), env=environment(),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    score = subprocess.Popen(command("al-score", "toy:polite"), env=environment(), stdin=sample.stdout,
                             stdout=subprocess.PIPE)
    sample.stdout.close()
    for record in prompts(3):
        sample.stdin.write(lines(record))
        sample.stdin.flush()
        assert json.loads(score.stdout.readline())["id"] == record["id"]
    sample.stdin.close()
    assert score.stdout.read() == b"" and (sample.wait(), score.wait()) == (0, 0)


def test_a_bad_line_stops_the_pipe_and_pipefail_tells(tmp_path):
    (tmp_path / "in").write_bytes(lines(*prompts(2)) + b"{broken\n" + lines(*prompts(3)))
    done = shell("{sample} | {score}; echo ${{PIPESTATUS[*]}}",
                 sample=command("al-sample", folders().policy, "-m", 4, tmp_path / "in"),
                 score=command("al-score", "toy:polite"))
    *made, codes = done.stdout.splitlines()
    assert codes == "65 0" and len(made) == 2
    assert f"al-sample: {tmp_path / 'in'}:3: broken JSON" in done.stderr


def test_the_log_pipes_too(tmp_path):
    (tmp_path / "in").write_bytes(lines(*pairs(8)))
    done = shell("{sft} 2> /dev/null | tail -1",
                 sft=command("al-sft", folders().policy, tmp_path / "in", "-o", tmp_path / "sft", "--batch-size", 2))
    assert json.loads(done.stdout) == json.loads((tmp_path / "sft" / "run.json").read_text())["final"]


def test_a_shell_sees_143(tmp_path):
    """Of a filter, that the signal itself ends, as of a trainer."""
    os.mkfifo(tmp_path / "never")  # an input that does not come: the command waits for it
    done = shell("{score} & exec 3> {fifo}; until [ -e {state} ]; do sleep 0.05; done; kill $!; wait $!; echo $?",
                 score=command("al-score", "toy:polite", tmp_path / "never", "-o", tmp_path / "out"),
                 fifo=[str(tmp_path / "never")], state=[str(tmp_path / "out.state")])
    assert done.stdout == "143\n"
