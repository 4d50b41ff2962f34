"""al-pref2rw, and on it what every filter promises: real processes, real pipes, real kills."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import orjson
import pytest

from helpers.process import call, command, environment

PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}
REWARDED = {"prompt": "p", "completions": ["a", "b", "c"], "rewards": [1, 3.5, -2]}


def lines(*records: dict) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def convert(record: dict, *args: str) -> dict:
    done = call("al-pref2rw", *args, stdin=lines(record))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- what it makes -------------------------------------------------------------------------------------


def test_the_originals_reward_data(fixtures):
    case = json.loads((fixtures / "exact-optimization" / "preproc_tldr_and_pref_to_rw.json").read_text())["pref_to_rw"]
    done = call("al-pref2rw", stdin=lines(*case["input"]))
    made = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(record.items()) for record in made] == [list(record.items()) for record in case["output"]]


def test_other_fields_stay_and_keep_their_order():
    record = {"id": "7", "rejected": "bad", "messages": [{"role": "user", "content": "hi"}], "mine": {"x": [None]},
              "chosen": "", "domain": "d"}
    assert list(convert(record).items()) == [
        ("id", "7"), ("completions", ["", "bad"]), ("rewards", [1, 0]), ("messages", record["messages"]),
        ("mine", {"x": [None]}), ("domain", "d"),
    ]


def test_best_and_worst():
    record = {"id": "7", **REWARDED, "finish_reasons": ["stop"] * 3, "logps": [-1, -2, -3], "logps_temperature": 0.7,
              "completion_ids": [[1], [2], [3]], "mine": [1, 2, 3], "chosen": "the old one"}
    assert list(convert(record, "--to", "pref").items()) == [
        ("id", "7"), ("prompt", "p"), ("chosen", "b"), ("rejected", "c"), ("mine", [1, 2, 3]),
    ]
    assert list(convert(record, "--to", "sft").items()) == [
        ("id", "7"), ("prompt", "p"), ("chosen", "b"), ("mine", [1, 2, 3]),
    ]


def test_there_and_back():
    assert convert(convert(PAIR), "--to", "pref") == PAIR


def test_the_first_of_equals_and_they_are_counted():
    record = {"prompt": "p", "completions": list("abcd"), "rewards": [0, 2, 0, 2]}
    done = call("al-pref2rw", "--to", "pref", stdin=lines(record, REWARDED))
    assert [(r["chosen"], r["rejected"]) for r in map(json.loads, done.stdout.splitlines())] == [("b", "a"), ("b", "c")]
    assert ", 1 ties, " in done.stderr
    done = call("al-pref2rw", "--to", "sft", stdin=lines({**record, "rewards": [0.5, 0.5, 0.5, 0]}, REWARDED))
    assert [json.loads(line)["chosen"] for line in done.stdout.splitlines()] == ["a", "b"]
    assert ", 1 ties, " in done.stderr


def test_cut_completions_are_counted():
    reasons = {"finish_reasons": ["stop", "length", "length"]}
    done = call("al-pref2rw", "--to", "pref", stdin=lines({**REWARDED, **reasons}))
    assert ", 2 cut completions, " in done.stderr
    assert ", 1 cut completions, " in call("al-pref2rw", "--to", "sft", stdin=lines({**REWARDED, **reasons})).stderr


@pytest.mark.parametrize("none", [{"rewards": [2, 2, 2]}, {"completions": ["a"], "rewards": [1]}])
def test_no_preference_is_no_pair(none, tmp_path):
    data = lines(REWARDED, {**REWARDED, **none}, REWARDED)
    done = call("al-pref2rw", "--to", "pref", stdin=data)
    assert done.returncode == 65 and "<stdin>:2: rewards: no preference" in done.stderr
    assert len(done.stdout.splitlines()) == 1
    rejects = tmp_path / "ties"
    done = call("al-pref2rw", "--to", "pref", "--ties", "skip", "--rejects", rejects, stdin=data)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2
    assert "2 records, 1 skipped" in done.stderr and rejects.read_bytes() == data.splitlines(keepends=True)[1]
    # Broken lines are another matter.
    assert call("al-pref2rw", "--to", "pref", "--ties", "skip", stdin=data + b"{\n").returncode == 65


def test_reward_data_is_not_taken_for_preferences():
    done = call("al-pref2rw", stdin=lines({**PAIR, **REWARDED}))
    assert done.returncode == 65 and "<stdin>:1: rewards: there already" in done.stderr


# -- bad input -----------------------------------------------------------------------------------------

BAD = [
    ((), b"{broken", "broken JSON"),
    ((), b"[1]", "expected an object, got an array"),
    ((), b'{"prompt": "p", "chosen": "c"}', "rejected: missing"),
    ((), b'{"chosen": "c", "rejected": "r"}', "prompt: missing"),
    ((), b'{"prompt": "p", "chosen": null, "rejected": "r"}', "chosen: expected a string, got null"),
    ((), b'{"prompt": "p", "chosen": "c", "rejected": "\xe9"}', "invalid UTF-8 at byte 45"),
    (("--to", "pref"), b'{"prompt": "p", "completions": ["a"], "rewards": [1, 2]}', "2 entries for 1 completions"),
    (("--to", "pref"), b'{"prompt": "p", "completions": [], "rewards": []}', "completions: empty"),
    (("--to", "sft"), b'{"prompt": "p", "completions": ["a"], "rewards": [NaN]}', "NaN is no number in JSON"),
    (("--to", "sft"), b'{"prompt": "p", "completions": ["a"], "rewards": [1e999]}', "1e999: beyond what"),
    (("--to", "pref"), b'{"prompt": "p", "completions": ["a", 3], "rewards": [1, 2]}', "completions[1]: expected"),
]


@pytest.mark.parametrize(("args", "bad", "words"), BAD)
def test_bad_lines_are_65_with_file_and_line(args, bad, words, tmp_path):
    good = lines(REWARDED if args else PAIR)
    name = tmp_path / "in.jsonl"
    name.write_bytes(good + b"\n" + bad + b"\n" + good)
    done = call("al-pref2rw", *args, name)
    assert done.returncode == 65
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"al-pref2rw: {name}:3: ") and words in message
    assert len(done.stdout.splitlines()) == 1  # what came before it


def test_bad_lines_put_aside_byte_for_byte(tmp_path):
    bad = [b"{broken \xff\r\n", b'  {"prompt": 1,   "chosen": "c"}\n', b"[]\n", b"last without an end"]
    data = bad[0] + lines(PAIR) + bad[1] + b"\n" + bad[2] + lines(PAIR) + bad[3]
    done = call("al-pref2rw", "--on-error", "skip", "--rejects", tmp_path / "bad", stdin=data)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2
    assert (tmp_path / "bad").read_bytes() == b"".join(bad) + b"\n"
    assert "2 records, 4 skipped" in done.stderr
    assert "skipped <stdin>:3: prompt: expected a string, got a number" in done.stderr


def test_many_bad_lines_are_counted_not_listed():
    done = call("al-pref2rw", "--on-error", "skip", stdin=b"bad\n" * 1000)
    assert done.returncode == 0 and done.stdout == "" and len(done.stderr.splitlines()) == 6
    assert "0 records, 1,000 skipped" in done.stderr


def test_taken_in_stride():
    data = b"\xef\xbb\xbf" + lines(PAIR).replace(b"\n", b"\r\n") + b"\r\n\n" + lines({**PAIR, "chosen": ""}).rstrip()
    done = call("al-pref2rw", stdin=data)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["completions"] for line in done.stdout.splitlines()] == [["good", "bad"], ["", "bad"]]


def test_an_empty_file(tmp_path):
    done = call("al-pref2rw", "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, "") and (tmp_path / "out").read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_a_line_of_50_megabytes():
    text = "x" * 25_000_000
    done = call("al-pref2rw", stdin=lines({**PAIR, "chosen": text, "rejected": text}))
    assert done.returncode == 0 and json.loads(done.stdout)["completions"] == [text, text]


# -- usage ---------------------------------------------------------------------------------------------


def one_line_2(done, words: str) -> None:
    assert done.returncode == 2 and done.stdout == "" and words in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_wrong_usage_is_2_in_one_line(tmp_path):
    data = tmp_path / "in.jsonl"
    data.write_bytes(lines(PAIR))
    one_line_2(call("al-pref2rw", tmp_path / "none.jsonl"), "none.jsonl: no such file")
    one_line_2(call("al-pref2rw", tmp_path), "a folder, not a file")
    one_line_2(call("al-pref2rw", data, "--resume"), "--resume goes with --output (see al-pref2rw --help)")
    one_line_2(call("al-pref2rw", data, "--rejects", tmp_path / "bad"), "--rejects needs --on-error skip")
    one_line_2(call("al-pref2rw", data, "--ties", "skip"), "--ties needs --to pref")
    one_line_2(call("al-pref2rw", data, "--to", "nothing"), "nothing")
    one_line_2(call("al-pref2rw", data, "-o", data), "would be overwritten")
    one_line_2(call("al-pref2rw", data, "-o", tmp_path / "no" / "out"), "no such folder")
    both = ("-o", tmp_path / "out", "--on-error", "skip", "--rejects", tmp_path / "out")
    one_line_2(call("al-pref2rw", data, *both), "would be overwritten")
    assert data.read_bytes() == lines(PAIR) and [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_process_substitution_is_a_file():
    done = subprocess.run(
        ["bash", "-c", '"$@" <(printf "%s" "$LINE")', "bash", *command("al-pref2rw")],
        env={**environment(), "LINE": lines(PAIR).decode()}, capture_output=True, check=True,
    )
    assert json.loads(done.stdout)["rewards"] == [1, 0]


# -- pipes ---------------------------------------------------------------------------------------------


def start(*args: object, **settings) -> subprocess.Popen:
    return subprocess.Popen(command("al-pref2rw", *args), env=environment(), **settings)


def test_a_record_arrives_before_the_next_is_sent():
    pipe = subprocess.PIPE
    with start(stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        for number in range(3):
            process.stdin.write(lines({**PAIR, "id": str(number)}))
            process.stdin.flush()
            assert json.loads(os.read(process.stdout.fileno(), 1 << 16))["id"] == str(number)
        process.stdin.close()
        assert process.wait() == 0


def test_head_ends_it_quietly(tmp_path):
    (tmp_path / "in").write_bytes(lines(PAIR) * 50_000)
    with start(tmp_path / "in", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        head = subprocess.run(["head", "-1"], stdin=process.stdout, capture_output=True, check=True)
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)
    assert json.loads(head.stdout)["rewards"] == [1, 0]


def test_help_into_a_closed_pipe_is_quiet():
    with start("--help", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_interrupted_is_130():
    with start(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(lines(PAIR))
        process.stdin.flush()
        assert process.stdout.readline()  # it runs
        process.send_signal(signal.SIGINT)
        assert (process.stderr.read(), process.wait()) == (b"", 130)


@pytest.mark.slow
def test_memory_stays(tmp_path):
    """Thirty times the input takes no more memory, good or bad."""
    measure = "import resource, sys; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"
    code = f"import subprocess, sys; subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL, check=True); {measure}"
    peaks = []
    for times in (1_000, 30_000):
        (tmp_path / "in").write_bytes((lines({**PAIR, "prompt": "p" * 1000}) + b"bad" * 300 + b"\n") * times)
        args = command("al-pref2rw", tmp_path / "in", "-o", tmp_path / "out", "--on-error", "skip")
        done = subprocess.run([sys.executable, "-c", code, *args], env=environment(), capture_output=True, check=True)
        peaks.append(int(done.stderr))
    assert peaks[1] < peaks[0] + 4_000  # KiB; the input grew by 58,000


# -- kill -9 -------------------------------------------------------------------------------------------


def kill_input(records: int) -> bytes:
    """Good lines, ties and broken ones, in a fixed random order."""
    draw = random.Random(5)
    kinds = [lambda n: lines({**REWARDED, "id": str(n), "prompt": "p" * draw.randrange(400)}),
             lambda n: lines({**REWARDED, "id": str(n), "rewards": [1, 1, 1]}),
             lambda n: b"broken %d\n" % n]
    return b"".join(draw.choices(kinds, (8, 1, 1))[0](n) for n in range(records))


@pytest.mark.slow
def test_killed_at_random_and_resumed_gives_the_same_bytes(tmp_path):
    (tmp_path / "in").write_bytes(kill_input(40_000))
    draw, out = random.Random(), tmp_path / "out"

    def args(name: str) -> tuple:
        return (tmp_path / "in", "--to", "pref", "--on-error", "skip", "-o", tmp_path / name, "--rejects",
                tmp_path / f"{name}.bad")

    def size() -> int:
        return out.stat().st_size if out.exists() else 0

    def finish() -> None:
        done = call("al-pref2rw", *args("out"), "--resume")
        assert done.returncode == 0, done.stderr
        for name in ("", ".bad"):
            assert (tmp_path / f"out{name}").read_bytes() == (tmp_path / f"whole{name}").read_bytes()
        assert not (tmp_path / "out.state").exists()

    assert call("al-pref2rw", *args("whole")).returncode == 0
    kills = 0
    while kills < 7:
        goal = size() + draw.randrange(300_000)
        process = start(*args("out"), "--resume", stderr=subprocess.DEVNULL)
        while process.poll() is None and size() < goal:
            time.sleep(0.0005)
        process.kill()
        if process.wait() == 0:  # on a busy machine it may be done before the kill
            finish()
            out.unlink()
        else:
            kills += 1
    finish()


@pytest.mark.slow
def test_killed_while_it_waits_for_a_slow_pipe(tmp_path):
    data = kill_input(60).splitlines(keepends=True)
    settings = ("--to", "pref", "--on-error", "skip", "-o", tmp_path / "out", "--rejects", tmp_path / "bad")

    def written() -> int:
        paths = (tmp_path / "out", tmp_path / "bad")
        return sum(len(path.read_bytes().splitlines()) for path in paths if path.exists())

    for sent in (1, 9, 10, 31, 59):
        with start(*settings, "--resume", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            process.stdin.write(b"".join(data[:sent]))
            process.stdin.flush()
            while process.poll() is None and written() < sent:  # what has been sent is out: it waits for more
                time.sleep(0.005)
            process.kill()
    refused = call("al-pref2rw", *settings, stdin=b"".join(data))
    assert refused.returncode == 2 and "an unfinished run is here" in refused.stderr
    assert call("al-pref2rw", *settings, "--resume", stdin=b"".join(data)).returncode == 0
    whole = call("al-pref2rw", *settings[:4], "--rejects", tmp_path / "whole.bad", stdin=b"".join(data))
    assert (tmp_path / "out").read_text() == whole.stdout
    assert (tmp_path / "bad").read_bytes() == (tmp_path / "whole.bad").read_bytes()


def test_resume_refuses_and_leaves_alone(tmp_path):
    (tmp_path / "in").write_bytes(lines(PAIR, PAIR) + b"bad\n" + lines(PAIR))
    args = (tmp_path / "in", "-o", tmp_path / "out")
    assert call("al-pref2rw", *args).returncode == 65  # an unfinished run: two records are there
    one_line_2(call("al-pref2rw", *args, "--resume", "--on-error", "skip"), "made with other options")
    (tmp_path / "in").write_bytes(lines({**PAIR, "id": "new"}, PAIR, PAIR))
    one_line_2(call("al-pref2rw", *args, "--resume"), "the input has changed")
    (tmp_path / "in").write_bytes(lines(PAIR, PAIR, PAIR))
    assert call("al-pref2rw", *args, "--resume").returncode == 0
    before = (tmp_path / "out").read_bytes()
    assert len(before.splitlines()) == 3
    done = call("al-pref2rw", *args, "--resume")
    assert done.returncode == 0 and "complete: nothing to resume" in done.stderr
    assert (tmp_path / "out").read_bytes() == before


def test_to_chosen_makes_the_chosen_answer_a_completion():
    done = call("al-pref2rw", "--to", "chosen", stdin='{"id": "1", "prompt": "Hi!", "chosen": " Hello.", "x": 2}\n')
    assert done.stdout == '{"id":"1","prompt":"Hi!","completions":[" Hello."],"x":2}\n'
    missing = call("al-pref2rw", "--to", "chosen", stdin='{"prompt": "Hi!"}\n')
    assert (missing.returncode, missing.stderr) == (65, "al-pref2rw: <stdin>:1: chosen: missing\n")


def test_samples_beside_a_pair_are_not_lost():
    record = '{"prompt": "Hi!", "chosen": " Hello.", "rejected": " Go.", "completions": [" a"]}\n'
    done = call("al-pref2rw", stdin=record)
    assert done.returncode == 65 and "<stdin>:1: completions: there already" in done.stderr and done.stdout == ""
