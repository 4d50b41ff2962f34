"""al-sample --backend vllm beside vLLM's own `LLM.generate`: the same 200 prompts, model and engine, on a CPU.

Both start an engine that compiles nothing, draw 64 tokens a prompt, and write them; the raw engine gets the prompts as
texts, draws without seeds of their own, and writes texts alone. The engine takes most of the time in either.
"""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import torch
import transformers

from alignlib.models import tokenizer_files
from helpers import engine, tiny
from helpers.process import ROOT, call, command

PROMPTS, TOKENS, ROUNDS = 200, 64, 2
AIM, SLACK = 1.05, 1.15  # other work on the machine must not fail the bench
RAW = """
import json, sys, time
from vllm import LLM, SamplingParams
model, source, out, tokens = sys.argv[1:]
llm = LLM(model, dtype="float32", enforce_eager=True, disable_log_stats=True)
prompts = [json.loads(line)["prompt"] for line in open(source)]
start = time.perf_counter()
outputs = llm.generate(prompts, SamplingParams(temperature=1, max_tokens=int(tokens)), use_tqdm=False)
with open(out, "w") as handle:
    for output in outputs:
        handle.write(json.dumps({"completions": [output.outputs[0].text]}) + "\\n")
print("WORK", sum(len(output.outputs[0].token_ids) for output in outputs), time.perf_counter() - start)
"""


@pytest.fixture(scope="module")
def python() -> str:
    subprocess.run(["make", "-C", str(ROOT), ".venv-vllm/.ready"], check=True)
    return str(ROOT / ".venv-vllm" / "bin" / "python")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, str]:
    """An untrained Llama of 26M parameters with the toy's tokenizer, and toy prompts."""
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "in").write_text(call("al-data", "toy", "--limit", PROMPTS, "--only", "prompts").stdout)
    (folder / "corpus").write_text(call("al-data", "toy", "--limit", 500).stdout)
    assert call("al-data", "new-model", "--size", "2m", folder / "small", folder / "corpus").returncode == 0
    words = tokenizer_files.load_tokenizer(str(folder / "small"))
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=1344,
        max_position_embeddings=1024, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id, tie_word_embeddings=True)
    torch.manual_seed(0)
    tiny.save(transformers.LlamaForCausalLM(config), folder / "model", words)
    return {name: str(folder / name) for name in ("in", "model", "ours", "raw")}


def environ() -> dict[str, str]:
    """For either the same; the raw engine is not to compile single operations, as ours does not."""
    own = {"TORCH_COMPILE_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR",
           "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(os.cpu_count())}
    return {**engine.on_a_cpu(), **own}


def timed(argv: list[str], out: str) -> tuple[float, str]:
    """Seconds of the whole process, and what it said."""
    start = time.perf_counter()
    done = subprocess.run(argv, env=environ(), capture_output=True, text=True)
    took = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in Path(out).read_text().splitlines()]
    assert len(records) == PROMPTS and all(len(record["completions"]) == 1 for record in records)
    return took, done.stdout + done.stderr


def test_al_sample_costs_little_more_than_the_raw_engine(python, world):
    ours = [python, *command("al-sample", world["model"], world["in"], "--backend", "vllm", "--eager", "-m", TOKENS,
                             "--dtype", "fp32", "-o", world["ours"])[1:]]
    raw = [python, "-c", RAW, world["model"], world["in"], world["raw"], str(TOKENS)]
    rows = []
    for _ in range(ROUNDS):
        Path(world["ours"]).unlink(missing_ok=True)
        whole, said = timed(ours, world["ours"])
        tokens, work = re.search(r"([\d,]+) tokens, .*?([\d.]+) s \+", said).groups()
        raw_whole, raw_said = timed(raw, world["raw"])
        raw_tokens, raw_work = re.search(r"WORK (\d+) ([\d.]+)", raw_said).groups()
        rows.append((whole, raw_whole, float(work), float(raw_work)))
        print(f"\nal-sample {whole:.1f} s, of it {work} s drawing {tokens} tokens; the raw engine {raw_whole:.1f} s, "
              f"{float(raw_work):.1f} s drawing {raw_tokens}", end="")
    ratio = min(row[0] for row in rows) / min(row[1] for row in rows)
    alone = min(row[2] for row in rows) / min(row[3] for row in rows)
    print(f"\nquickest rounds: {ratio:.2f} times the raw engine's time (drawing alone {alone:.2f}; aim {AIM})")
    assert ratio <= AIM * SLACK
