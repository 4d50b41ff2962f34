"""al-sample --backend openai and a real server, transformers' own, on the toy model: what the built-in one gives."""

import re
import subprocess
import sys
import time

import pytest

from helpers.commands import TEMPLATE, folders, lines, prompts, read, run
from helpers.process import call, environment

pytestmark = pytest.mark.slow

pytest.importorskip("uvicorn", reason="transformers serve needs fastapi and uvicorn: the extra dev has them")
pytest.importorskip("fastapi", reason="transformers serve needs fastapi and uvicorn: the extra dev has them")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The server samples only where the model's settings do, and begins a chat as its template does."""
    import transformers

    folder = folders().without(folders().policy)
    settings = transformers.GenerationConfig.from_pretrained(folder)
    settings.do_sample = True
    settings.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    argv = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--port", "0",
            "--device", "cpu"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with open(log, "wb") as handle:
        server = subprocess.Popen(argv, stdout=handle, stderr=handle,
                                  env={**environment(), "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"})
    while not (found := re.search(r"Uvicorn running on (\S+)", log.read_text())):
        assert server.poll() is None, log.read_text()
        time.sleep(0.05)
    yield str(folder), f"{found[1]}/v1"
    server.terminate()
    server.wait()


def ask(url, records, *args) -> list[dict]:
    model, base = url
    done = call("al-sample", model, "--backend", "openai", "--base-url", base, "-m", 12, *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def draw(records, *args) -> list[dict]:
    return read(run("al-sample", folders().templated(folders().policy), "-m", 12, *args, stdin=lines(*records)).stdout)


def test_greedy_is_what_the_built_in_sampler_gives(url):
    made = ask(url, prompts(8), "--greedy")
    assert made == draw(prompts(8), "--greedy")
    assert {reason for record in made for reason in record["finish_reasons"]} == {"length"}


def test_stop_strings(url):
    """Two letters that greedy completions of these prompts have, so that some are stopped."""
    free = " ".join(text for record in draw(prompts(8), "--greedy") for text in record["completions"])
    stop = max("aeiou", key=free.count)
    made = ask(url, prompts(8), "--greedy", "--stop", stop)
    assert made == draw(prompts(8), "--greedy", "--stop", stop)
    assert "stop" in {reason for record in made for reason in record["finish_reasons"]}


def test_chat_is_what_the_built_in_sampler_gives(url):
    records = [{"messages": [{"role": "user", "content": record["prompt"]}], "id": "7"} for record in prompts(3)]
    assert ask(url, records, "--greedy") == draw(records, "--greedy")


def test_several_are_drawn_one_by_one_where_the_server_gives_one(url):
    """Its seeds are the whole process's: only calls that do not meet repeat."""
    once = ask(url, prompts(4), "-n", 3, "--concurrency", 1)
    assert once == ask(url, prompts(4), "-n", 3, "--concurrency", 1)
    assert once != ask(url, prompts(4), "-n", 3, "--concurrency", 1, "--seed", 1)
    assert all(len(set(record["completions"])) == 3 for record in once)
    assert [record["id"] for record in ask(url, prompts(12), "-n", 2)] == [record["id"] for record in prompts(12)]


@pytest.mark.parametrize("how", [[], ["--structured"]])
def test_a_judge_that_only_babbles_gives_no_verdict(url, how):
    """An untrained model's answers are none; the server takes the requests, one for a schema as well."""
    model, base = url
    pair = {"prompt": "p", "completions": ["a", "b"]}
    (folders().root / "rate").write_text("{prompt} {completion}")
    done = call("al-label-ai", "--judge", model, "--base-url", base, "--mode", "rate", "--max-tokens", 4, "--ask-again",
                1, "--template", folders().root / "rate", *how, stdin=lines(pair))
    (made,) = read(done.stdout)
    assert made["scores"] == [None, None] and len(made["unparsed_each"]) == 2 and "4 calls" in done.stderr
