"""al-sample --backend openai and a server that drops, refuses, babbles, dawdles: nothing invented, nothing lost."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from helpers.commands import lines, one_line, read
from helpers.faulty import CUT, DROP, Server, ok, refuse
from helpers.process import call, command, environment, succeeded
from helpers.servers import FILTERED, REFUSAL, as_server, message

pytestmark = pytest.mark.slow

KEY = "sk-a-secret-that-nobody-may-see"


def questions(count: int) -> list[dict]:
    return [{"prompt": f"q{i}", "id": str(i)} for i in range(count)]


def sample(server: Server, records, *args) -> subprocess.CompletedProcess:
    """Run it to the end; the key shows nowhere."""
    data = records if isinstance(records, bytes) else lines(*records)
    done = call("al-sample", "m", "--backend", "openai", "--base-url", server.url, *args, stdin=data)
    assert KEY not in done.stdout + done.stderr
    return done


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def times(server: Server) -> list[int]:
    """How often each prompt was asked for."""
    return [server.counts[name] for name in sorted(server.counts)]


# -- what is asked, what is written ----------------------------------------------------------------------------


def test_one_line_in_one_line_out():
    record = {"mine": {"x": [None, 1.5]}, "prompt": "Hi", "completions": ["old"], "rewards": [1], "id": "7"}
    with Server(lambda request, nth: ok(request)) as server:
        done = sample(server, [record], "-n", 2, "-t", 0.5, "-m", 9, "--top-p", 0.9, "--stop", "\n", "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert read(done.stdout) == [{"mine": {"x": [None, 1.5]}, "prompt": "Hi", "id": "7",
                                  "completions": ["Hi/0", "Hi/1"], "finish_reasons": ["stop", "stop"]}]
    assert "1 records, 6 tokens, 2 completions, 7 prompt tokens, 1 calls" in one_line(done.stderr)
    ((path, headers, request),) = server.calls
    assert path == "/v1/completions" and headers["authorization"] == f"Bearer {KEY}"
    seed = request.pop("seed")
    assert 0 <= seed < 2**31
    assert request == {"model": "m", "prompt": "Hi", "n": 2, "temperature": 0.5, "max_tokens": 9, "top_p": 0.9,
                       "stop": ["\n"]}


def test_without_a_key_none_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with Server(lambda request, nth: ok(request)) as server:
        assert sample(server, questions(1)).returncode == 0
    assert "authorization" not in server.calls[0][1]


def test_every_record_and_temperature_has_a_seed_of_its_own():
    with Server(lambda request, nth: ok(request)) as server:
        one = sample(server, questions(3), "-t", 0, "-t", 1, "-n", 2)
        seeds = {(request["prompt"], request["temperature"]): request["seed"] for _, _, request in server.calls}
        server.calls.clear()
        assert sample(server, questions(3), "-t", 1, "-t", 0, "-n", 2, "--seed", 1).returncode == 0
    assert len(set(seeds.values())) == 6 == len(server.calls)
    assert not set(seeds.values()) & {request["seed"] for _, _, request in server.calls}
    made = read(one.stdout)[0]
    assert made["temperatures"] == [0, 0, 1, 1] and made["completions"] == ["q0/0", "q0/1"] * 2


def test_messages_go_to_chat_and_prompts_where_they_are_told():
    chat = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}
    with Server(lambda request, nth: ok(request)) as server:
        done = sample(server, [chat, {"prompt": "Yo"}])
        assert [record["completions"] for record in read(done.stdout)] == [["Hi/0"], ["Yo/0"]]
        assert {(path, "messages" in request) for path, _, request in server.calls} == {
            ("/v1/chat/completions", True), ("/v1/completions", False)}
        server.calls.clear()
        sample(server, [{"prompt": "Yo"}], "--api", "chat", "--condition", "Oh ")
        assert server.calls[0][2]["messages"] == [{"role": "user", "content": "Oh Yo"}]
        done = sample(server, [chat], "--api", "completions")
        assert done.returncode == 65 and "<stdin>:1: messages: " in one_line(done.stderr)
        sample(server, [chat], "--condition", "Oh ")
        assert server.calls[1][2]["messages"] == [chat["messages"][0], {"role": "user", "content": "Oh Hi"}]
    assert len(server.calls) == 2


def test_cut_completions_and_stop_strings_that_a_server_forgot():
    def script(request, nth):
        return ok(request, ["one END two"], "length") if subject_is(request, "q0") else ok(request, ["x"], "length")

    with Server(script) as server:
        done = sample(server, questions(2), "--stop", "END")
    assert [(record["completions"], record["finish_reasons"]) for record in read(done.stdout)] == [
        (["one "], ["stop"]), (["x"], ["length"])]


def subject_is(request: dict, name: str) -> bool:
    return request["prompt"] == name


def test_a_server_that_gives_fewer_than_asked_is_asked_again():
    with Server(lambda request, nth: ok(request, [f"answer {nth}"])) as server:
        done = sample(server, questions(1), "-n", 3)
    assert read(done.stdout)[0]["completions"] == ["answer 0", "answer 1", "answer 2"]
    assert [request.get("n") for _, _, request in server.calls] == [3, 2, None]
    assert len({request["seed"] for _, _, request in server.calls}) == 3


def test_a_server_that_refuses_several_at_once_is_asked_one_by_one():
    def script(request, nth):
        return refuse(422, "n: extra fields not permitted") if "n" in request else ok(request, [f"answer {nth}"])

    with Server(script) as server:
        done = sample(server, questions(2), "-n", 2, "--window", 1)
    assert [record["completions"] for record in read(done.stdout)] == [["answer 1", "answer 2"],
                                                                       ["answer 0", "answer 1"]]
    assert len(server.calls) == 5  # it was refused once


@pytest.mark.parametrize(("refuses", "asked"), [
    (lambda request: "n" in request, [3, *[None] * 12]),
    (lambda request: subject_is(request, "q2"), [3, 3, 3, None, 3]),
], ids=["several", "a prompt"])
def test_what_a_server_refuses_is_told_apart_and_a_resumed_run_is_the_run(refuses, asked, tmp_path):
    """It was their number if one is given then; else it was the prompt, and the others are asked as before."""
    (tmp_path / "in").write_bytes(lines(*questions(4)))
    broken = threading.Event()

    def script(request, nth):
        if refuses(request):
            return refuse(400, "too much")
        if subject_is(request, "q3") and broken.is_set():
            return refuse(401)
        return ok(request, [f"{request['seed']}/{i}" for i in range(request.get("n", 1))])

    def made(server: Server, name: str, *args: object) -> tuple[int, bytes]:
        done = call("al-sample", "m", tmp_path / "in", "--backend", "openai", "--base-url", server.url, "-n", 3,
                    "--window", 1, "--on-error", "skip", "-o", tmp_path / name, *args)
        return done.returncode, (tmp_path / name).read_bytes()

    with Server(script) as server:
        code, whole = made(server, "whole")
        assert code == 0 and [request.get("n") for _, _, request in server.calls] == asked
        broken.set()
        code, part = made(server, "part")
        assert code == 1 and part and part != whole
        broken.clear()
        assert made(server, "part", "--resume") == (0, whole)


# -- faults ----------------------------------------------------------------------------------------------------

FAULTS = {
    "drop": DROP,
    "cut short": CUT,
    "429": refuse(429, "slow down", Retry_After="0"),
    "500": refuse(500, "oops"),
    "503, no JSON": (503, {"Content-Type": "text/html"}, b"<html>busy</html>"),
    "garbage": (200, {}, b"\x00\xffgarbage"),
    "half JSON": (200, {}, b'{"choices": [{"text": "a'),
    "text": (200, {"Content-Type": "text/plain"}, b"hello"),
    "an array": (200, {}, b"[1, 2]"),
    "no choices": (200, {}, b'{"choices": []}'),
    "no text": (200, {}, b'{"choices": [{"index": 0, "finish_reason": "stop", "text": null}]}'),
    "an error under 200": (200, {}, b'{"error": {"message": "overloaded", "code": 500}}'),
    "aborted": (200, {}, b'{"choices": [{"index": 0, "finish_reason": "abort", "text": "a"}]}'),
}


def test_faults_that_pass_leave_no_trace_in_the_records():
    """Every record meets another fault once; all are answered, in order, with one call more each."""
    faults = list(FAULTS.values())
    records = questions(len(faults))

    def script(request, nth):
        return ok(request) if nth else faults[int(request["prompt"][1:])]

    with Server(script) as server:
        done = sample(server, records)
    assert done.returncode == 0, done.stderr
    assert read(done.stdout) == [{**record, "completions": [f"{record['prompt']}/0"], "finish_reasons": ["stop"]}
                                 for record in records]
    assert times(server) == [2] * len(faults)
    assert f"{2 * len(faults)} calls, {len(faults)} retried" in one_line(done.stderr)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_stay_end_the_run_by_name(fault):
    """After the retries; what came before has left, and nothing is made up for the rest."""
    with Server(lambda request, nth: FAULTS[fault] if request["prompt"] == "q1" else ok(request)) as server:
        done = sample(server, questions(2), "--retries", 1)
    assert done.returncode == 1 and [record["id"] for record in read(done.stdout)] == ["0"]
    message = one_line(done.stderr)
    assert message.startswith("al-sample: <stdin>:2: ") and message.endswith("(2 tries)")
    assert times(server) == [1, 2]


def test_a_server_that_dawdles_is_given_up_on():
    slow = threading.Event()

    def script(request, nth):
        if request["prompt"] == "q0" and nth == 0:
            slow.wait()  # until the call has been made again
        slow.set()
        return ok(request, [f"answer {nth}"])

    with Server(script) as server:
        done = sample(server, questions(1), "--timeout", 0.5)
        assert read(done.stdout)[0]["completions"] == ["answer 1"] and times(server) == [2]
    with Server(lambda request, nth: server.over.wait() and ok(request)) as server:
        done = sample(server, questions(1), "--timeout", 0.2, "--retries", 1)
    assert done.returncode == 1 and "<stdin>:1: no answer within 0.2 s (2 tries)" in one_line(done.stderr)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_will_not_pass_is_not_asked_again(status):
    """The server quotes the key; we do not."""
    with Server(lambda request, nth: refuse(status, f"bad key {KEY} for model m")) as server:
        done = sample(server, questions(5), "--concurrency", 1, "-v")
    assert done.returncode == 1 and done.stdout == "" and server.counts["q0"] == 1
    assert f"<stdin>:1: the server says {status}: bad key *** for model m" in done.stderr


def test_spent_money_does_not_come_back():
    body = json.dumps({"error": {"message": "no credit", "code": "insufficient_quota"}}).encode()
    with Server(lambda request, nth: (429, {}, body)) as server:
        done = sample(server, questions(2), "--concurrency", 1, "--on-error", "skip")
    assert done.returncode == 1 and "429: no credit" in one_line(done.stderr) and server.counts["q0"] == 1


def test_who_is_told_to_wait_for_hours_does_not():
    with Server(lambda request, nth: refuse(429, "later", Retry_After="7200")) as server:
        done = sample(server, questions(1))
    assert done.returncode == 1 and "the server says 429: later" in one_line(done.stderr) and len(server.calls) == 1


def test_no_server():
    with Server(ok) as server:
        pass
    done = sample(server, questions(1), "--retries", 1)
    assert done.returncode == 1 and "<stdin>:1: no connection, or a broken one: " in one_line(done.stderr)


# -- servers as they are ---------------------------------------------------------------------------------------


def answered_by(name: str, *args: object) -> tuple[subprocess.CompletedProcess, Server]:
    """One prompt as a chat, asked again once where that is of use."""
    with Server(as_server(name)) as server:
        return sample(server, questions(1), "--api", "chat", "--retries", 1, *args), server


@pytest.mark.parametrize(("name", "text"), [
    *((name, "A") for name in ("eos_token", "end_turn", "STOP", "stop_sequence", "eos", "", "nofinish",
                               "no finish_reason", "parts")), ("more parts", "A.")])
def test_a_whole_answer_is_a_stop_however_it_is_wrapped(name, text):
    done, server = answered_by(name)
    (record,) = succeeded(done)
    assert (record["completions"], record["finish_reasons"]) == ([text], ["stop"]) and len(server.calls) == 1


@pytest.mark.parametrize(("reason", "ours"), [("MAX_TOKENS", "length"), ("eos_token", "stop"), (None, "stop")])
def test_a_plain_completion_ends_in_the_same_words(reason, ours):
    with Server(lambda request, nth: ok(request, ["x"], reason)) as server:
        (record,) = succeeded(sample(server, questions(1)))
    assert record["finish_reasons"] == [ours]


def test_a_prompt_may_be_gone_on_with_by_nothing():
    """The end came first, or a stop string did."""
    with Server(lambda request, nth: ok(request, [""])) as server:
        (record,) = succeeded(sample(server, questions(1)))
    assert (record["completions"], record["finish_reasons"]) == ([""], ["stop"])


@pytest.mark.parametrize(("name", "says"), [
    ("refusal", f"choices[0].message.refusal: {REFUSAL}"),
    ("refusal in parts", f"choices[0].message.refusal: {REFUSAL}"),
    ("filter", "choices[0].finish_reason: content_filter"), ("SAFETY", "choices[0].finish_reason: SAFETY"),
    ("filter, half of it there", "choices[0].finish_reason: content_filter: A, bec"),
    ("azure", f"the server says 400: {FILTERED}"), ("filter200", f"status 200, application/json, an error: {FILTERED}"),
    ("tool_calls", "choices[0].finish_reason: tool_calls"), ("unknown", "choices[0].finish_reason: tired"),
    ("empty", "choices[0]: an empty answer"), ("reasoning", "choices[0]: nothing but reasoning"),
    ("reasoning, cut", "choices[0]: nothing but reasoning, cut: --max-new-tokens counts reasoning in"),
    ("err200b", "status 200, application/json, an error: The model `m` does not exist."),
])
def test_an_answer_that_is_none_is_asked_for_once_and_becomes_no_completion(name, says):
    done, server = answered_by(name)
    assert (done.returncode, done.stdout, len(server.calls)) == (1, "", 1)
    assert one_line(done.stderr) == f"al-sample: <stdin>:1: {says}"


@pytest.mark.parametrize(("name", "says"), [
    ("err200", "status 200, application/json, an error: The model is overloaded, try later (2 tries)"),
    ("html200", "an answer that is none: status 200, text/html, no JSON: <!doctype html><html><title>Sign in</title>"
                "<body> [31mLog in to the proxy</body></html> (2 tries)"),
    ("stream", 'an answer that is none: status 200, text/event-stream, no JSON: data: {"choices":[{"delta":'),
    ("nochoices", 'an answer that is none: status 200, application/json, no choices: {"id": "x"'),
])
def test_a_body_that_is_no_answer_is_named(name, says):
    done, server = answered_by(name)
    assert (done.returncode, done.stdout, len(server.calls)) == (1, "", 2)
    assert one_line(done.stderr).startswith(f"al-sample: <stdin>:1: {says}") and done.stderr[:-1].isprintable()


@pytest.mark.parametrize(("content_type", "body", "says"), [
    ("text/html", f"<p>Bad key {KEY}", "no JSON: <p>Bad key ***"),
    ("application/json", json.dumps({"error": f"bad key {KEY}"}), "an error: bad key ***"),
    ("application/json", json.dumps(message(None, refusal=f"No, {KEY}\x1b[2J")), "message.refusal: No, *** [2J"),
])
def test_an_answer_that_quotes_the_key_is_named_without_it(content_type, body, says):
    with Server(lambda request, nth: (200, {"Content-Type": content_type}, body.encode())) as server:
        done = sample(server, questions(1), "--api", "chat", "--retries", 0)
    assert done.returncode == 1 and one_line(done.stderr).endswith(says)


def test_refusals_are_put_aside_with_the_bad_lines(tmp_path):
    """And not gone after: neither again, nor one by one. The whole record goes where one of its completions does."""
    records = [lines(record) for record in questions(4)]

    def script(request, nth):
        if request["prompt"] == "q1":
            return as_server("azure")(request, nth)
        answer = ok(request, ["a", "b"])
        if request["prompt"] == "q2":
            body = json.loads(answer[2])
            body["choices"][1]["finish_reason"] = "content_filter"
            return 200, {}, json.dumps(body).encode()
        return answer

    with Server(script) as server:
        done = sample(server, b"".join(records), "-n", 2, "--on-error", "skip", "--rejects", tmp_path / "rejects")
    assert [record["id"] for record in succeeded(done)] == ["0", "3"] and times(server) == [1, 1, 1, 1]
    assert (tmp_path / "rejects").read_bytes() == records[1] + records[2]
    assert f"skipped <stdin>:2: the server says 400: {FILTERED}" in done.stderr
    assert "skipped <stdin>:3: choices[1].finish_reason: content_filter: b" in done.stderr


def test_a_server_that_is_particular_gets_what_it_takes():
    done, _ = answered_by("o1s")
    assert done.returncode == 1 and "Unsupported parameter: 'max_tokens'" in one_line(done.stderr)
    done, server = answered_by("o1s", "--parameters",
                               '{"max_tokens": null, "seed": null, "temperature": null, "max_completion_tokens": 99}')
    assert succeeded(done)[0]["completions"] == ["A"]
    assert server.calls[0][2].keys() == {"model", "messages", "max_completion_tokens"}


def test_parameters_of_ones_own():
    with Server(lambda request, nth: ok(request)) as server:
        done = sample(server, questions(1), "-n", 2, "--parameters", '{"min_p": 0.1, "seed": 5}')
    assert succeeded(done)[0]["completions"] == ["q0/0", "q0/1"]
    request = server.calls[0][2]
    assert (request["min_p"], request["seed"], request["max_tokens"], request["n"]) == (0.1, 5, 128, 2)


@pytest.mark.parametrize(("args", "words"), [
    (["--parameters", "{"], "--parameters: broken JSON"), (["--parameters", "[]"], "--parameters: expected an object"),
    (["--parameters", '{"n": 2}'], "--parameters: n is this command's to say"),
    (["--parameters", '{"temperature": 1}', "-t", 0, "-t", 1], "--parameters: temperature goes with one --temperature"),
])
def test_parameters_that_cannot_be(args, words):
    with Server(lambda request, nth: ok(request)) as server:
        done = sample(server, questions(1), *args)
    assert done.returncode == 2 and words in one_line(done.stderr) and server.calls == []


def test_failed_calls_are_put_aside_with_the_bad_lines(tmp_path):
    """In the order of the input, byte for byte, whatever comes first."""
    records = [lines(record) for record in questions(8)]
    records[3] = b'{"prompt": 3}\n'

    def script(request, nth):
        return refuse(400, "too long") if request["prompt"] in ("q2", "q4", "q7") else ok(request)

    with Server(script) as server:
        done = sample(server, b"".join(records), "--on-error", "skip", "--rejects", tmp_path / "rejects",
                      "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rejects").read_bytes() == b"".join(records[i] for i in (2, 3, 4, 7))
    assert [record["id"] for record in read((tmp_path / "out").read_text())] == ["0", "1", "5", "6"]
    assert "skipped <stdin>:3: the server says 400: too long" in done.stderr and "4 records, 4 skipped" in done.stderr


# -- streams ---------------------------------------------------------------------------------------------------


def test_order_is_kept_and_read_ahead_bounded():
    """The first is answered last of those read ahead, which are as many as --window says and no more."""
    ahead = 6
    others = threading.Barrier(ahead)

    def script(request, nth):
        if int(request["prompt"][1:]) < ahead:
            others.wait()  # all of them have been asked
        return ok(request)

    with Server(script) as server:
        done = sample(server, questions(20), "--window", ahead)
        assert [record["id"] for record in read(done.stdout)] == [str(i) for i in range(20)]
    loose, early = threading.Event(), []

    def first_is_stuck(request, nth):
        early.extend([] if loose.is_set() else [request["prompt"]])
        return (request["prompt"] != "q0" or loose.wait()) and ok(request)

    with Server(first_is_stuck) as server:
        process = start(server, "--window", ahead)
        process.stdin.write(lines(*questions(20)))
        process.stdin.close()
        wait_until(lambda: len(server.calls) >= ahead, process)
        loose.set()
        assert [json.loads(line)["id"] for line in process.stdout] == [str(i) for i in range(20)]
    assert sorted(early) == [f"q{i}" for i in range(ahead)]


def wait_until(so: Callable[[], bool], process: subprocess.Popen) -> None:
    while not so():
        assert process.poll() is None
        time.sleep(0.005)


def start(server: Server, *args: object) -> subprocess.Popen:
    argv = command("al-sample", "m", "--backend", "openai", "--base-url", server.url, *args)
    return subprocess.Popen(argv, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_concurrency_is_a_limit():
    """Two at a time is what it comes to, and no third comes in while two are waited for."""
    pair, now, most, lock = threading.Barrier(2), set(), set(), threading.Lock()

    def script(request, nth):
        with lock:
            now.add(request["prompt"])
            most.add(len(now))
        pair.wait()
        with lock:
            now.remove(request["prompt"])
        return ok(request)

    with Server(script) as server:
        assert sample(server, questions(30), "--concurrency", 2).returncode == 0
    assert max(most) == 2


def test_records_leave_as_soon_as_they_are_done():
    """The second prompt comes only after the first record has left."""
    with Server(lambda request, nth: ok(request)) as server:
        process = start(server)
        for record in questions(3):
            process.stdin.write(lines(record))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == record["id"]
        process.stdin.close()
        assert process.stdout.read() == b"" and process.wait() == 0


def test_head_ends_it_quietly(tmp_path):
    (tmp_path / "in").write_bytes(lines(*({**record, "pad": "x" * 9000} for record in questions(100))))
    with Server(lambda request, nth: ok(request)) as server:
        argv = command("al-sample", "m", str(tmp_path / "in"), "--backend", "openai", "--base-url", server.url)
        done = subprocess.run(["bash", "-c", '"$@" | head -1; echo ${PIPESTATUS[0]}', "-", *argv], env=environment(),
                              capture_output=True, text=True)
    first, code = done.stdout.splitlines()
    assert json.loads(first)["id"] == "0" and code == "0" and done.stderr == ""


@pytest.mark.parametrize("after", [1, 5, 12])
def test_a_killed_run_loses_nothing_and_asks_again_for_what_was_in_hand_only(tmp_path, after):
    records, out, window = questions(20), tmp_path / "out", 4
    (tmp_path / "in").write_bytes(lines(*records))
    hang = [True]

    def script(request, nth):
        if hang[0] and int(request["prompt"][1:]) >= after:
            server.over.wait()  # until it is killed
            return DROP
        return ok(request)

    with Server(script) as server:
        argv = command("al-sample", "m", str(tmp_path / "in"), "--backend", "openai", "--base-url", server.url,
                       "--window", window, "-o", str(out))
        process = subprocess.Popen(argv, env=environment())
        wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") == after
                   and len(server.calls) >= after + window, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(server.calls) == after + window
        hang[0] = False
        done = subprocess.run([*argv, "--resume", "--concurrency", "3"], env=environment(), capture_output=True)
        assert done.returncode == 0, done.stderr
    assert [record["completions"] for record in read(out.read_text())] == [[f"{r['prompt']}/0"] for r in records]
    assert all(server.counts[f"q{i}"] == (2 if after <= i < after + window else 1) for i in range(20))


def test_a_failed_run_can_be_gone_on_with(tmp_path):
    (tmp_path / "in").write_bytes(lines(*questions(6)))
    broken = [True]

    def script(request, nth):
        return refuse(500) if broken[0] and request["prompt"] == "q3" else ok(request)

    with Server(script) as server:
        args = ("al-sample", "m", tmp_path / "in", "--backend", "openai", "--base-url", server.url,
                "-o", tmp_path / "out", "--concurrency", 1)
        done = call(*args, "--retries", 0)
        assert done.returncode == 1 and f"{tmp_path / 'in'}:4: " in one_line(done.stderr)
        broken[0] = False
        assert call(*args, "--retries", 2, "--resume").returncode == 0
    assert [record["id"] for record in read((tmp_path / "out").read_text())] == [str(i) for i in range(6)]
    assert all(server.counts[f"q{i}"] == 1 for i in range(3))


# -- what it cannot do -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("--logps",), ("--ids",), ("--top-k", 5), ("--max-prompt", 9), ("--dtype", "bf16"),
                                  ("--on-long", "skip"), ("--batch-tokens", 9), ("--tensor-parallel", 2)])
def test_options_that_would_do_nothing_are_refused_before_anything_is_asked(args):
    with Server(lambda request, nth: ok(request)) as server:
        done = sample(server, questions(1), *args)
    assert done.returncode == 2 and f"{args[0]} is not for --backend openai" in one_line(done.stderr)
    assert server.calls == []


def test_a_server_that_is_none(monkeypatch):
    done = call("al-sample", "m", "--backend", "openai", "--base-url", "localhost:8000", stdin=lines(*questions(1)))
    assert done.returncode == 2 and "--base-url localhost:8000: expected http" in one_line(done.stderr)
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    done = call("al-sample", "m", "--backend", "openai", stdin=lines(*questions(1)))
    assert done.returncode == 2 and "OPENAI_BASE_URL localhost:8000: expected http" in one_line(done.stderr)


def test_a_placeholder_for_a_key_is_cut_out_of_no_word(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "e")
    with Server(lambda request, nth: refuse(400, "the messages are too long")) as server:
        done = sample(server, questions(1))
    assert done.returncode == 1 and "the server says 400: the messages are too long" in one_line(done.stderr)


def test_a_key_that_is_none(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\u00e9")
    with Server(lambda request, nth: ok(request)) as server:
        done = sample(server, questions(1))
    assert done.returncode == 2 and "OPENAI_API_KEY" in one_line(done.stderr) and server.calls == []
