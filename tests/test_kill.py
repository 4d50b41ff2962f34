"""SIGKILL, SIGTERM and Ctrl-C at any moment: what is resumed, or begun again, ends as if nothing had been."""

import os
import signal
import subprocess

import pytest

from helpers.commands import lines, rewarded
from helpers.faulty import Server
from helpers.judging import right
from helpers.kills import SERIES, sample_job, score_job, series, survive, training_job
from helpers.process import command, environment

pytestmark = pytest.mark.slow

KILLS = 5


@pytest.mark.long
def test_al_sample_with_bad_lines_put_aside(tmp_path):
    survive(sample_job(tmp_path, skip=True), KILLS, seed=1)


@pytest.mark.long
def test_al_score_reading_a_pipe(tmp_path):
    survive(score_job(tmp_path, stdin=True), KILLS, seed=2)


@pytest.mark.long
def test_al_sft(tmp_path):
    survive(training_job(tmp_path, "al-sft"), KILLS, seed=3)


@pytest.mark.long
def test_al_train_exo_reading_a_pipe(tmp_path):
    survive(training_job(tmp_path, "al-train-exo", stdin=True), KILLS, seed=4)


@pytest.mark.long
def test_sigterm(tmp_path):
    """A filter needs no time to save anything: the signal itself ends it, which a shell calls 143 (trainers save first:
    test_al_sft.py)."""
    survive(sample_job(tmp_path, 12, stdin=True), 1, 5, signal.SIGTERM, (-signal.SIGTERM,))


@pytest.mark.long
def test_control_c(tmp_path):
    for job in (score_job(tmp_path, 200, skip=True, stdin=True), training_job(tmp_path, "al-train-exo")):
        expected = job.finish()
        job.clear()
        process = job.start_stuck()
        job.wait_until_begun(process)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1].decode()
        assert process.returncode == 130 and "Traceback" not in said
        assert job.finish("--resume") == expected
        job.clear()


# -- at moments of their writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERIES)
def test_a_series_of_kills(name, tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    assert series(SERIES[name](folder, 3), 3, seed=7) > 3


def test_al_eval_pays_once_for_a_judge_that_was_killed_with_it(tmp_path):
    """Killed when a call is under way, three times: what was answered is in the cache, the verdicts are whole."""
    records = [{**record, "completions": record["completions"][:1]} for record in rewarded(12, 2)]
    teacher = [{**record, "completions": record["completions"][1:]} for record in rewarded(12, 2)]
    (tmp_path / "sft").write_bytes(lines(*records)), (tmp_path / "teacher").write_bytes(lines(*teacher))
    deadly = []

    def judge(request, nth):
        if len(server.calls) in deadly:
            os.killpg(process.pid, signal.SIGKILL)
        return right(request)

    with Server(judge) as server:
        argv = command("al-eval", "winrate", tmp_path / "sft", "--against", tmp_path / "teacher", "--judge",
                       f"overall --base-url {server.url} --concurrency 1")

        def start():
            return subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    start_new_session=True)

        process = start()
        whole, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
        calls = len(server.calls)
        for path in tmp_path.glob("sft.*"):
            path.unlink()
        deadly += [calls + kill * calls // 4 for kill in (1, 2, 3)]
        for code in (-signal.SIGKILL, -signal.SIGKILL, -signal.SIGKILL, 0):
            process = start()
            figures, errors = process.communicate()
            assert process.returncode == code, errors.decode()
        assert figures == whole and len(server.calls) == 2 * calls + 3  # one was under way at each kill
