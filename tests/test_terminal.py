"""Every command at a terminal: a bar while one waits, nothing of it afterwards; no bar where there is no terminal."""

import json
import re
import signal
import subprocess

import pytest

from helpers.commands import folders, lines, pairs, prompts, rewarded
from helpers.process import call, command, environment
from helpers.terminal import Terminal, at_terminal

FILTERS = {
    "al-pref2rw": lambda: (pairs(5), ["al-pref2rw"]),
    "al-score toy:overall": lambda: (rewarded(5), ["al-score", "toy:overall"]),
    "al-score": lambda: (rewarded(5), ["al-score", folders().reward]),
    "al-sample": lambda: (prompts(5), ["al-sample", folders().policy, "-m", 4]),
    "al-args": lambda: (prompts(5), ["al-args", folders().policy, folders().reward, "-m", 4]),
    "al-label-ai": lambda: (rewarded(5, 2), ["al-label-ai", "--judge-rm", folders().reward]),
}
QUICK = ("al-pref2rw", "al-score toy:overall")  # no model to load
every_filter = pytest.mark.parametrize("kind", [
    kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in FILTERS])
SUMMARY = r"{name}: {count} records, .*\d+\.\d s( \+ \d+\.\d s loading)?, [\d,]+ (records|tokens)/s"


def is_summary(line: str, name: str, count: int = 5) -> bool:
    return re.fullmatch(SUMMARY.format(name=name, count=count), line) is not None


@every_filter
def test_a_filter_shows_how_far_it_is_and_then_its_summary_alone(kind, tmp_path):
    """Of files it counts the records first; the bar goes, and no library leaves a word."""
    records, (name, *args) = FILTERS[kind]()
    (tmp_path / "in").write_bytes(lines(*records))
    done = at_terminal(name, *args, tmp_path / "in", TQDM_MININTERVAL="0")
    assert done.returncode == 0, done.written
    for count in (0, 5):
        assert f"| {count}/5 [" in done.written
    assert len(done.screen) == 2, done.written
    summary, prompt = done.screen
    assert is_summary(summary, name) and prompt == ""
    assert len(done.stdout.splitlines()) == 5


@pytest.mark.parametrize("kind", QUICK)
def test_of_a_pipe_it_shows_the_count_so_far(kind):
    records, (name, *args) = FILTERS[kind]()
    done = at_terminal(name, *args, stdin=lines(*records), TQDM_MININTERVAL="0")
    assert done.returncode == 0 and "/5 [" not in done.written and f"{name}: 5 records [" in done.written
    assert is_summary(done.screen[0], name) and done.screen[1:] == [""]


@pytest.mark.parametrize("kind", QUICK)
def test_no_terminal_no_bar(kind, tmp_path):
    records, (name, *args) = FILTERS[kind]()
    (tmp_path / "in").write_bytes(lines(*records))
    done = call(name, *args, tmp_path / "in")
    (summary,) = done.stderr.splitlines()
    assert done.returncode == 0 and is_summary(summary, name) and "\r" not in done.stderr


def test_al_data_shows_how_far_it_is():
    done = at_terminal("al-data", "toy", "--limit", 5, TQDM_MININTERVAL="0")
    assert done.returncode == 0 and "| 0/5 [" in done.written and "| 5/5 [" in done.written
    assert is_summary(done.screen[0], "al-data toy") and done.screen[1:] == [""]


def test_records_on_the_terminal_itself_stay_whole(tmp_path):
    """And ring no bell: a control stands there as its name."""
    (tmp_path / "in").write_bytes(lines(*({"prompt": "p", "chosen": f"{i}\a", "rejected": "r"} for i in range(5))))
    done = at_terminal("al-pref2rw", tmp_path / "in", streams=("stdout", "stderr"))
    assert done.returncode == 0 and "| 0/5 [" in done.written
    *records, summary, prompt = done.screen
    assert [json.loads(record)["completions"][0] for record in records] == ["0\a", "1\a", "2\a", "3\a", "4\a"]
    assert "\a" not in done.written and r"0\u0007" in done.written
    assert is_summary(summary, "al-pref2rw") and prompt == ""
    toy = at_terminal("al-data", "toy", "--limit", 3, "--only", "prompts", streams=("stdout", "stderr"))
    assert [json.loads(record)["prompt"] for record in toy.screen[:3]] == [record["prompt"] for record in pairs(3)]


def test_warnings_do_not_tear_it(tmp_path):
    (tmp_path / "in").write_bytes(b"{broken\n".join(lines(record) for record in pairs(3)))
    done = at_terminal("al-pref2rw", tmp_path / "in", "--on-error", "skip", TQDM_MININTERVAL="0")
    first, second, summary, prompt = done.screen
    assert done.returncode == 0 and "| 5/5 [" in done.written  # what was put aside is done too
    assert first.startswith(f"skipped {tmp_path}/in:2: broken JSON") and f"{tmp_path}/in:4" in second
    assert summary.startswith("al-pref2rw: 3 records, 2 skipped, ") and prompt == ""


def test_a_shard_and_a_resumed_run_show_their_own_records(tmp_path):
    """The second of two blocks of six records, which a broken line ends after two of its three; mended, it goes on.

    Both were made at once and left in one write, of which a resumed run knows the first.
    """
    good = [lines(record) for record in pairs(6)]
    (tmp_path / "in").write_bytes(b"".join([*good[:5], b"{broken\n"]))
    args = ("al-pref2rw", tmp_path / "in", "-o", tmp_path / "out", "--shard", "2/2")
    broken = at_terminal(*args, TQDM_MININTERVAL="0")
    assert broken.returncode == 65 and "| 0/3 [" in broken.written and "| 2/3 [" in broken.written
    message, prompt = broken.screen
    assert message.startswith(f"al-pref2rw: {tmp_path}/in:6: broken JSON") and prompt == ""
    (tmp_path / "in").write_bytes(b"".join(good))
    done = at_terminal(*args, "--resume", TQDM_MININTERVAL="0")
    counts = re.findall(r"\| (\d)/3 \[", done.written)
    assert done.returncode == 0 and (counts[0], counts[-1]) == ("1", "3")


def test_head_and_control_c_leave_the_terminal_clean(tmp_path):
    big = lines(*(dict(record, pad="x" * 9000) for record in pairs(300)))
    (tmp_path / "in").write_bytes(big)
    for stop in ("head", "control-C"):
        terminal = Terminal()
        process = subprocess.Popen(command("al-pref2rw", *([tmp_path / "in"] if stop == "head" else [])),
                                   env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=terminal.theirs)
        if stop == "head":
            process.stdout.readline(), process.stdout.close()
        else:
            process.stdin.write(lines(*pairs(1)))
            process.stdin.flush()
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
        assert process.wait() == {"head": 0, "control-C": 130}[stop]
        process.stdin.close()
        terminal.close()
        assert " records [" in terminal.written or "| 0/300 [" in terminal.written
        assert terminal.screen == [""], stop


# -- trainers --------------------------------------------------------------------------------------------------

TRAIN = ("--batch-size", 2, "--eval-every", 1, "--save-every", 1, "--keep", 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "pairs").write_bytes(lines(*pairs(4)))
    (folder / "rewarded").write_bytes(lines(*rewarded(4)))
    (folder / "prompts").write_bytes(lines(*prompts(4)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name, start, file", [("al-sft", "policy", "pairs"), ("al-train-rm", "policy", "pairs"),
                                               ("al-train-exo", "policy", "rewarded"),
                                               ("al-train-alt", "policy", "rewarded"),
                                               ("al-train-ppo", "policy", "prompts")])
def test_a_trainer_shows_loss_evaluations_and_saving_instead_of_its_log(name, start, file, data, tmp_path):
    model = getattr(folders(), start)
    more = {"al-sft": ("--lora", 2), "al-train-alt": ("--quantiles", 2, "--tags", "Good.", "--tags", "Bad."),
            "al-train-ppo": ("--reward", "length", "-n", 2, "-m", 4, "--prompts", 2)}
    figure, under_way = ("eval_reward", "on 4 prompts") if name == "al-train-ppo" else ("eval_loss", "0 of ")
    done = at_terminal(name, model, data / file, "--eval", data / file, "-o", tmp_path / "out", *TRAIN,
                       *more.get(name, ()), streams=("stdout", "stderr"), TQDM_MININTERVAL="0")
    assert done.returncode == 0, done.written
    entries = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    total = len(entries)
    *evaluations, bar, summary, prompt = done.screen
    assert [line.split(":")[0] for line in evaluations] == [f"step {entry['step']}" for entry in entries]
    assert f"{figure} {entries[0][figure]:.4g}" in evaluations[0]
    assert bar.startswith(f"{name}: 100%|") and f"| {total}/{total} [" in bar
    assert bar.endswith(f", loss={entries[-1]['loss']:.4g}]")
    assert re.match(rf"{name}: \d records, ", summary) and " s loading, " in summary and prompt == ""
    for shown in ("reading: ", "| 0/4 [", f"evaluating {under_way}", "saving checkpoint-1]", "saving the model]"):
        assert shown in done.written
    assert ("reference: " in done.written) == (name == "al-train-exo")
    assert "{" not in done.written


@pytest.mark.long
@pytest.mark.slow
def test_a_log_in_a_file_or_a_pipe_is_the_log(data, tmp_path):
    """With a bar on stderr or without, its bytes are those of the folder's."""
    for place in ("terminal", "pipe"):
        args = ("al-sft", folders().policy, data / "pairs", "-o", tmp_path / place, "--batch-size", 2)
        done = at_terminal(*args) if place == "terminal" else call(*args)
        assert done.returncode == 0 and done.stdout == (tmp_path / place / "log.jsonl").read_text()
        assert place == "terminal" or "\r" not in done.stderr and is_summary(done.stderr.strip(), "al-sft", 4)
        assert place == "pipe" or "al-sft:   0%|" in done.written and "| 0/2 [" in done.written


@pytest.mark.long
@pytest.mark.slow
def test_the_bar_is_on_standard_output_where_that_alone_is_a_terminal(data, tmp_path):
    done = at_terminal("al-sft", folders().policy, data / "pairs", "-o", tmp_path / "out", streams=("stdout",))
    assert done.returncode == 0 and "al-sft: 100%|" in done.screen[0] and done.screen[1:] == [""]
    assert is_summary(done.stderr.strip(), "al-sft", 4)


@pytest.mark.long
@pytest.mark.slow
def test_of_several_ranks_the_first_alone_shows_a_bar(data, tmp_path):
    done = at_terminal("al-sft", folders().policy, data / "pairs", "-o", tmp_path / "out", "--batch-size", 2,
                       "--launch", 2, streams=("stdout", "stderr"), TQDM_MININTERVAL="0")
    assert done.returncode == 0, done.written
    bar, summary, prompt = done.screen
    assert bar.startswith("al-sft: 100%|") and is_summary(summary, "al-sft", 4) and prompt == ""
