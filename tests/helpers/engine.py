"""vLLM's engine in tests: models that it takes on CPUs, and commands whose processes can be told from all others."""

import functools
import json
import os
import secrets
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from helpers.commands import TEMPLATE, folders, lines, prompts, read, run
from helpers.process import command, environment

OURS = "TESTED_ENGINE"  # a variable that all processes of a command inherit
PATIENCE = 120  # seconds for processes to end, after which they never will
TOKENS = ("-m", 12)


def on_a_cpu() -> dict[str, str]:
    """The environment of a command that runs the engine here."""
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
    return {**environment(), **own, OURS: secrets.token_hex(8)}


@functools.cache
def policy() -> str:
    """A policy with a chat template and heads of 32, the narrowest that the engine has attention for on CPUs.

    Its generation configuration names a second end: a token of many greedy completions.
    """
    import torch
    import transformers

    folder = folders().without(folders().policy)
    torch.manual_seed(0)
    config = transformers.LlamaConfig.from_pretrained(folder, head_dim=32)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    free = read(run("al-sample", folder, "--greedy", "--ids", *TOKENS, stdin=lines(*prompts(8))).stdout)
    counts = Counter(token for record in free for token in set(record["completion_ids"][0][4:]))
    settings = transformers.GenerationConfig.from_pretrained(folder)
    settings.eos_token_id = [config.eos_token_id, max(counts, key=lambda token: (counts[token], token))]
    settings.save_pretrained(folder)
    return str(folder)


@functools.cache
def adapter() -> str:
    """A LoRA adapter over it, of rank 4, that changes what it says."""
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(policy())
    torch.manual_seed(1)
    lora = peft.LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, lora)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    folder = folders().new("adapter")
    adapted.save_pretrained(folder)
    return str(folder)


def start(*args: object, env: dict[str, str], model: str | None = None, **settings) -> subprocess.Popen:
    """al-sample with the engine, in a session of its own."""
    given = (model or policy(), "--backend", "vllm", *TOKENS, *args)
    return subprocess.Popen(command("al-sample", *given), env=env, start_new_session=True, stderr=subprocess.PIPE,
                            **settings)


def sample(records: list[dict] | bytes, *args: object, model: str | None = None) -> subprocess.CompletedProcess:
    """al-sample with the engine to its end, text as `commands.run` gives it; its processes have ended too."""
    env = on_a_cpu()
    process = start(*args, env=env, model=model, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, err = process.communicate(records if isinstance(records, bytes) else lines(*records))
    must_be_gone(env)
    return subprocess.CompletedProcess(process.args, process.returncode, out.decode(), err.decode())


def processes(env: dict[str, str]) -> dict[int, str]:
    """The processes that run in this environment, and their command lines."""
    entry, commands = f"{OURS}={env[OURS]}".encode(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:  # it has just ended
            continue
    return {number: words for number, words in commands.items() if words}  # without words: ended, not yet waited for


def must_be_gone(env: dict[str, str]) -> None:
    """Wait until none of a command's processes is left."""
    deadline = time.monotonic() + PATIENCE
    while left := processes(env):
        assert time.monotonic() < deadline, f"still there: {json.dumps(left)}"
        time.sleep(0.05)


def wait_for_lines(process: subprocess.Popen, path: Path, count: int) -> None:
    """Until the output has so many."""
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.02)


def interrupt(process: subprocess.Popen, sign: int) -> None:
    """As a terminal does: a signal for all of the session's foreground."""
    os.killpg(process.pid, sign)


def interrupt_engine(process: subprocess.Popen, env: dict[str, str]) -> None:
    """The same for all but the command itself."""
    running = processes(env)
    assert [words for words in running.values() if words.startswith("VLLM::")], running
    for number in running:
        if number != process.pid and os.getpgid(number) == process.pid:
            os.kill(number, signal.SIGINT)
