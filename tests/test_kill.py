"""SIGKILL, SIGTERM and Ctrl-C at random moments: what is resumed ends as if nothing had been (see kills.py)."""

import signal

import pytest

from helpers.kills import sample_job, score_job, survive, training_job

pytestmark = pytest.mark.slow

KILLS = 5


@pytest.mark.long
def test_al_sample_with_bad_lines_put_aside(tmp_path):
    survive(sample_job(tmp_path, skip=True), KILLS, seed=1)


@pytest.mark.long
def test_al_score_reading_a_pipe(tmp_path):
    survive(score_job(tmp_path, stdin=True), KILLS, seed=2)


def test_al_sft(tmp_path):
    survive(training_job(tmp_path, "al-sft"), KILLS, seed=3)


@pytest.mark.long
def test_al_train_exo_reading_a_pipe(tmp_path):
    survive(training_job(tmp_path, "al-train-exo", stdin=True), KILLS, seed=4)


def test_sigterm(tmp_path):
    """A filter needs no time to save anything: the signal itself ends it, which a shell calls 143 (trainers save first:
    test_al_sft.py)."""
    survive(sample_job(tmp_path, 12, stdin=True), 1, 5, signal.SIGTERM, (-signal.SIGTERM,))


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
