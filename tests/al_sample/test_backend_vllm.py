"""al-sample --backend vllm: every call held against the released package's signatures, and driven over a stand-in.

The stand-in (standin/vllm) takes what vllm_facts.json says the release takes, runs a small model, and finishes the
latest request first. What vLLM itself computes on a GPU is not tested here.
"""

import ast
import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import vllm_wheel
from helpers.commands import CONTEXT, SERVER, folders, lines, one_line, prompts, read, run
from helpers.process import ROOT, command, environment

pytestmark = pytest.mark.slow

M = ("-m", 12)
FACTS = json.loads(vllm_wheel.FACTS.read_text())


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    """Where the stand-in notes what it was called with."""
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def with_vllm() -> dict[str, str]:
    given = environment()
    return {**given, "PYTHONPATH": os.pathsep.join([given["PYTHONPATH"], str(ROOT / "tests" / "helpers" / "standin")]),
            "DS_ACCELERATOR": "cpu"}


@functools.cache
def forks() -> subprocess.Popen:
    """As `commands.run`, in an environment that has the stand-in."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env=with_vllm())
    atexit.register(process.communicate)
    return process


def vllm(records, *args, model=None, alone=False) -> subprocess.CompletedProcess:
    """`alone`: a process that sees the environment of now."""
    given = (model or folders().policy, "--backend", "vllm", *M, *args)
    data = records if isinstance(records, bytes) else lines(*records)
    if not alone:
        return run("al-sample", *given, stdin=data, forks=forks())
    done = subprocess.run(command("al-sample", *given), input=data, capture_output=True, env=with_vllm())
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def sample(records, *args, **how) -> list[dict]:
    done = vllm(records, *args, **how)
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def asked(log: Path, path: str) -> list[dict]:
    """The arguments of every call of it."""
    return [given for name, given in map(json.loads, log.read_text().splitlines()) if name == path]


# -- the contract ----------------------------------------------------------------------------------------------


def test_every_name_is_one_that_the_release_has():
    """Imports and environment variables; arguments are checked call by call, by the stand-in."""
    tree = ast.parse((ROOT / "tools" / "al_sample" / "backend_vllm.py").read_text())
    imported = {f"{node.module}:{alias.name}" for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module.startswith("vllm") for alias in node.names}
    known = {path.partition(".from_")[0] for path in FACTS["parameters"]} | set(FACTS["members"])
    assert imported and imported <= known
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert {word for word in words if word.startswith("VLLM_")} == set(FACTS["environment"])
    modes = {word for word in words if word.endswith("_logprobs")}
    assert modes == {"raw_logprobs", "processed_logprobs"} <= set(FACTS["logprobs_mode"])
    assert {"stop", "length"} <= words & set(FACTS["finish_reasons"])


@pytest.mark.parametrize(("call", "error"), [
    ("SamplingParams(temperatur=1)", "TypeError"), ("AsyncEngineArgs(modell='m')", "TypeError"),
    ("inputs.tokens_input([1], 'text')", "TypeError"), ("inputs.tokens_input()", "TypeError"),
    ("usage.usage_lib.UsageContext.LLM", "AttributeError"),
])
def test_the_stand_in_takes_nothing_else(call, error):
    code = f"import vllm.inputs, vllm.usage.usage_lib; vllm.{call}"
    done = subprocess.run([sys.executable, "-c", code], env=with_vllm(), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(error)


def test_the_project_asks_for_the_release_that_the_facts_are_of():
    assert f'"vllm=={FACTS["version"]}"' in (ROOT / "pyproject.toml").read_text()


def test_the_facts_are_the_wheels():
    wheel = os.environ.get("VLLM_WHEEL")
    if not wheel:
        pytest.skip("reads vLLM's wheel (313 MB), which VLLM_WHEEL names; `make bench` fetches it")
    assert vllm_wheel.Wheel(wheel).facts() == FACTS


def test_all_of_it_is_called_and_with_what(log):
    sample(prompts(1), "-n", 2, "-t", 0.5, "--top-k", 4, "--top-p", 0.9, "--stop", "x", "--tensor-parallel", 2,
           "--data-parallel", 3, "--gpu-memory", 0.5, "--max-model-len", 100, "--dtype", "fp16", alone=True)
    assert {name for name, _ in map(json.loads, log.read_text().splitlines())} == set(FACTS["parameters"])
    (engine,) = asked(log, "vllm:AsyncEngineArgs")
    assert engine == {"model": folders().policy, "dtype": "float16", "tensor_parallel_size": 2, "data_parallel_size": 3,
                      "gpu_memory_utilization": 0.5, "max_model_len": 100, "logprobs_mode": "processed_logprobs",
                      "disable_log_stats": True, "trust_remote_code": False}
    one, other = asked(log, "vllm:SamplingParams")
    assert one.pop("seed") != other.pop("seed")
    assert one == other == {"temperature": 0.5, "top_p": 0.9, "top_k": 4, "max_tokens": 12, "stop": ["x"],
                            "stop_token_ids": [folders().tokenizer.eos_token_id], "detokenize": True, "logprobs": None,
                            "output_kind": "<RequestOutputKind.FINAL_ONLY: 3>"}


# -- the same as the built-in sampler's ------------------------------------------------------------------------


def built_in(records, *args, model=None) -> list[dict]:
    return read(run("al-sample", model or folders().policy, *M, *args, stdin=lines(*records)).stdout)


@pytest.mark.parametrize("more", [(), ("--condition", "Be kind. "), ("--max-prompt", 9), ("--keep-prompt", "start")])
def test_greedy_is_what_the_built_in_sampler_gives(more):
    """Records, ids and texts, of long prompts too: both see the same tokens."""
    records = [*prompts(6), {"prompt": "wash the old door. " * 60, "mine": [1]}]
    made = vllm(records, "--greedy", "--ids", "-n", 2, *more)
    assert read(made.stdout) == built_in(records, "--greedy", "--ids", "-n", 2, *more)
    assert "prompts cut" in made.stderr


def test_stop_strings_and_chats_too():
    free = " ".join(text for record in built_in(prompts(8), "--greedy") for text in record["completions"])
    stop = ("--stop", max("aeiou", key=free.count), "--stop", "\0\0never")
    made = sample(prompts(8), "--greedy", "--ids", *stop)
    assert made == built_in(prompts(8), "--greedy", "--ids", *stop)
    assert "stop" in {reason for record in made for reason in record["finish_reasons"]}
    chat, model = [{"messages": [{"role": "user", "content": "Hi"}]}], folders().templated(folders().policy)
    assert sample(chat, "--greedy", model=model) == built_in(chat, "--greedy", model=model)


def test_ids_decode_to_the_text_and_lengths_agree_with_the_reasons():
    made = sample(prompts(20), "-n", 4, "--ids")
    draws = [draw for record in made for draw in zip(*list(record.values())[-4:-1], strict=True)]
    assert {reason for _, reason, _ in draws} == {"stop", "length"}
    for text, reason, ids in draws:
        assert folders().tokenizer.decode(ids, skip_special_tokens=True) == text
        assert (len(ids) == 12) if reason == "length" else (len(ids) < 12)
        assert folders().tokenizer.eos_token_id not in ids


@pytest.mark.parametrize("args", [(), ("--top-p", 0.5), ("-t", 0.5), ("-t", 0, "-t", 1.5)])
def test_its_logps_are_al_scores(args):
    """Ends of sequence are in them, top-p is not, and one temperature is."""
    made = sample(prompts(6), "-n", 4, "--logps", *args)
    if not args:
        assert {reason for record in made for reason in record["finish_reasons"]} == {"stop", "length"}
    scale = ("--temperature", 0.5) if args == ("-t", 0.5) else ()
    scored = read(run("al-score", folders().policy, "--logps", "--as-field", "ref_logps", *scale,
                      stdin=lines(*made)).stdout)
    for record in scored:
        assert record["logps"] == pytest.approx(record["ref_logps"], abs=1e-3)
        assert record.get("logps_temperature") == record.get("ref_logps_temperature") == (0.5 if scale else None)


def test_draws_depend_on_their_own_name_alone(log):
    four = sample(prompts(5), "-n", 4, alone=True)
    seeds = [given["seed"] for given in asked(log, "vllm:SamplingParams")]
    assert len(set(seeds)) == 20
    assert sample(prompts(5), "-n", 4, "--window", 1) == four
    assert [record["completions"] for record in sample(prompts(3), "-n", 2)] == [
        record["completions"][:2] for record in four[:3]]
    assert all(a["completions"] != b["completions"] for a, b in zip(
        four, sample(prompts(5), "-n", 4, "--seed", 1), strict=True))


# -- streams ---------------------------------------------------------------------------------------------------


def test_order_is_the_inputs_whatever_is_done_first(monkeypatch):
    """The last of all is done first: nothing is done before all have come."""
    monkeypatch.setenv("STANDIN_HOLD", "24")
    made = sample(prompts(12), "-n", 2, alone=True)
    assert [record["id"] for record in made] == [record["id"] for record in prompts(12)]
    assert sample(prompts(12), "-n", 2) == made


def test_records_leave_as_soon_as_they_are_done():
    """The second prompt comes only after the first record has left; nothing but records comes out."""
    process = subprocess.Popen(command("al-sample", folders().policy, "--backend", "vllm", *M), env=with_vllm(),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for record in prompts(3):
        process.stdin.write(lines(record))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == record["id"]
    out, said = process.communicate()
    assert process.returncode == 0 and out == b"" and b"an engine logs to standard output" in said


def test_head_ends_it_quietly(tmp_path):
    (tmp_path / "in").write_bytes(lines(*(dict(record, pad="x" * 9000) for record in prompts(100))))
    argv = command("al-sample", folders().policy, tmp_path / "in", "--backend", "vllm", "-m", 2)
    done = subprocess.run(["bash", "-c", '"$@" | head -1; echo ${PIPESTATUS[0]}', "-", *argv], env=with_vllm(),
                          capture_output=True, text=True)
    first, code = done.stdout.splitlines()
    assert json.loads(first)["id"] == prompts(1)[0]["id"] and code == "0"
    assert "Traceback" not in done.stderr and "al-sample" not in done.stderr


def test_a_bad_line_stops_it_after_all_before_it():
    data = lines(*prompts(4)) + b"{broken\n" + lines(*prompts(2))
    done = vllm(data, "-n", 2)
    assert done.returncode == 65 and len(read(done.stdout)) == 4
    assert "al-sample: <stdin>:5: broken JSON" in done.stderr
    done = vllm(data, "--on-error", "skip")
    assert done.returncode == 0 and len(read(done.stdout)) == 6 and "6 records, 1 skipped" in done.stderr


def test_bad_lines_at_the_end_wait_for_the_good_ones_before(tmp_path):
    data = b"{broken\n" + lines(*prompts(4)) + b"{broken too\n"
    done = vllm(data, "--on-error", "skip", "--rejects", tmp_path / "rejects", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert len(read((tmp_path / "out").read_text())) == 4
    assert (tmp_path / "rejects").read_bytes() == b"{broken\n{broken too\n"


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_where_it_was(tmp_path, sign):
    """Nothing lost, nothing twice; with this engine, whose numbers do not depend on company, the same bytes."""
    data, out = lines(*prompts(12)), tmp_path / "out"
    whole = vllm(data, "-n", 2).stdout
    argv = command("al-sample", folders().policy, "--backend", "vllm", *M, "-n", 2, "-o", out, "--window", 4)
    process = subprocess.Popen(argv, env=with_vllm(), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(lines(*prompts(9)))  # it cannot be done before the others have come
    process.stdin.flush()
    while not out.exists() or out.read_bytes().count(b"\n") < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(sign)
    _, said = process.communicate()
    assert process.returncode == -sign, said
    done = vllm(data, "-n", 2, "-o", out, "--window", 4, "--resume")
    assert done.returncode == 0 and out.read_text() == whole


# -- what it cannot do -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "said"), [
    (("--batch-tokens", 9), "--batch-tokens is not for --backend vllm"),
    (("--device", "cpu"), "--device is not for --backend vllm"),
    (("--base-url", "http://x"), "--base-url is not for --backend vllm"),
    (("-t", 3), "--temperature 3: vLLM takes 0, or 0.01 to 2"),
    (("-t", 0.001), "--temperature 0.001"),
    (("--logps", "--stop", "x"), "--logps with --stop"),
    (("--logps", "--condition", "x"), "--logps with --condition"),
    (("--logps", "-t", 0.5, "--top-p", 0.9), "al-score --logps"),
    (("-m", CONTEXT), f"the model's context is {CONTEXT} tokens"),
    (("--max-model-len", 12), "the model's context is 12 tokens"),
])
def test_what_it_would_do_otherwise_is_refused_before_an_engine_starts(args, said):
    done = vllm(prompts(1), *args)
    assert done.returncode == 2 and said in one_line(done.stderr) and done.stdout == ""


def test_a_model_of_nan_is_1_and_names_the_record():
    done = vllm(prompts(2), "--logps", "--greedy", model=folders().broken(folders().policy))
    assert (done.returncode, done.stdout) == (1, "")
    assert "<stdin>:1: the model's log-probabilities are not finite" in done.stderr


def test_without_vllm_there_is_a_line_that_says_what_to_do():
    if "vllm" in sys.modules or any((Path(place) / "vllm").is_dir() for place in sys.path if "site" in place):
        pytest.skip("vLLM is installed here")
    done = run("al-sample", folders().policy, "--backend", "vllm", stdin=lines(*prompts(1)))
    assert done.returncode == 2
    assert one_line(done.stderr) == "al-sample: --backend vllm needs vLLM: pip install 'align-tools[vllm]'"
