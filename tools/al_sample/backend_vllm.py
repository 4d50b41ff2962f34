"""The sampler of --backend vllm: vLLM's engine, asked completion by completion.

Prompts go in as the ids that the built-in sampler would see, and texts are made from the ids that come out, as it does.
Each completion has a seed of its own, so that no draw depends on its company.

Log-probabilities are the engine's own. In its mode "raw_logprobs" they are those of the model before temperature, top-k
and top-p; in "processed_logprobs", those of what was drawn from: with a temperature and nothing cut off, softmax(logits
/ temperature), what al-score computes. What ended a completion is counted in, whichever of the model's ends it was.
"""

import asyncio
import importlib.util
import math
import os
import signal
import sys
from collections.abc import Generator
from contextlib import closing, redirect_stdout
from typing import TYPE_CHECKING, Any, NoReturn

import click

from alignlib.cli.exits import Terminated
from alignlib.decoding.conditions import Condition
from alignlib.decoding.draws import Draw, Sampling, encoder_limits, finish_text, prompt_ids, seed_for, stopping_ids
from alignlib.model_names import parts
from alignlib.models import load
from alignlib.models.policy import context_length
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream
from alignlib.server.ahead import in_order

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

SEED_BITS = 63  # the engine's are signed 64-bit integers, and -1 is none
DTYPES = {"auto": "bfloat16", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}  # auto: the built-in one's
COOLEST, WARMEST = 0.01, 2.0  # it takes nothing warmer, and makes this of anything cooler


class Sampler:
    """Draws from the policy at `model`, on as many GPUs as `tensor_parallel` times `data_parallel`."""

    def __init__(self, model: str, how: Sampling, *, condition: Condition | None, logps: bool, window: int, dtype: str,
                 tensor_parallel: int, data_parallel: int, gpu_memory: float | None, max_model_len: int | None,
                 **prompts: Any):
        must_do(how, condition, logps)
        if importlib.util.find_spec("vllm") is None:
            raise click.UsageError("--backend vllm needs vLLM: pip install 'align-tools[vllm]'")
        if load.adapter_base(model):
            raise click.UsageError(f"{model}: an adapter; --backend vllm needs a whole model")
        if parts(model).folder != model:
            raise click.UsageError(f"{model}: --backend vllm takes folders; `al-data model {model} DIR` makes one")
        config, tokenizer = load.load_config(model), load.load_tokenizer(model)
        if load.is_classifier(model):
            raise click.UsageError(f"{model}: a reward model (sequence classifier); a policy is needed here")
        context = min(context_length(config), max_model_len or sys.maxsize)
        ends = load.generation_ends(load.generation_config(model))
        self.encoder = load.build_encoder(config, tokenizer, ends=ends, **encoder_limits(context, how, **prompts))
        self.how, self.condition, self.with_logps, self.window = how, condition, logps, window
        self.tokens = 0
        given = {"max_model_len": max_model_len, "gpu_memory_utilization": gpu_memory}
        self.engine = start(
            model=model, dtype=DTYPES[dtype], tensor_parallel_size=tensor_parallel, data_parallel_size=data_parallel,
            logprobs_mode="raw_logprobs" if how.logps_temperature == 1 else "processed_logprobs",
            disable_log_stats=True, **{name: value for name, value in given.items() if value})
        signal.signal(signal.SIGTERM, self.terminate)  # the engine's processes must not outlive this one

    def terminate(self, number: int, frame: object) -> None:
        """End the engine, then this process as the signal would have. An exception could be lost on its way out."""
        self.engine.shutdown()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def prepare(self, record: Record) -> list[int]:
        return prompt_ids(self.encoder, record, self.condition)

    def draws(self, stream: Stream) -> Generator[tuple[Line, list[Draw]], None, None]:
        ahead = in_order(stream.ahead(), self.sample, self.window, self.close)
        with closing(ahead) as done, redirect_stdout(sys.stderr):  # the stream has its own way out by now
            for line, future in done:
                if error := future.exception():
                    raise RuntimeError(f"{line.where}: {error}") from error
                yield line, future.result()
        stream.finish()

    async def sample(self, line: Line) -> list[Draw]:
        draws = [Draw(line.index, i, line.data, t, where=line.where) for i, t in enumerate(self.how.temperatures)]
        await asyncio.gather(*map(self.fill, draws))
        return draws

    async def fill(self, draw: Draw) -> None:
        from vllm.inputs import tokens_input

        prompt, name = tokens_input(draw.prompt), f"{draw.record}-{draw.number}"
        async for output in self.engine.generate(prompt, self.parameters(draw), name):
            (completion,) = output.outputs
        if completion.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"the engine ended it with {completion.finish_reason}")
        draw.ids, draw.reason = list(completion.token_ids), completion.finish_reason
        self.tokens += len(draw.ids)
        if completion.finish_reason == "stop" and not isinstance(completion.stop_reason, str):
            draw.end = draw.ids.pop()  # the token that ended it; a string that did is cut off below
        finish_text(draw, self.encoder, self.how.stop)
        if self.with_logps:
            if not math.isfinite(completion.cumulative_logprob):
                raise FloatingPointError("the model's log-probabilities are not finite")
            draw.logp = completion.cumulative_logprob

    def parameters(self, draw: Draw) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        how, control = self.how, self.encoder.tokens.control
        strings = [text for text in how.stop if text not in control]
        return SamplingParams(
            temperature=draw.temperature, top_p=how.top_p, top_k=how.top_k, max_tokens=how.max_new_tokens,
            seed=seed_for(how.seed, draw.record, draw.number, SEED_BITS), stop=strings,
            stop_token_ids=sorted(stopping_ids(self.encoder, how.stop)), detokenize=bool(strings),
            logprobs=0 if self.with_logps else None,
            output_kind=RequestOutputKind.FINAL_ONLY)

    def counts(self) -> dict[str, int]:
        return {"tokens": self.tokens, **self.encoder.cut}

    async def close(self) -> None:
        self.engine.shutdown()


def must_do(how: Sampling, condition: Condition | None, logps: bool) -> None:
    """Refuse what the engine would do otherwise than it is said, or not at all. Raises UsageError."""
    for temperature in how.temperatures:
        if temperature and not COOLEST <= temperature <= WARMEST:
            raise click.UsageError(f"--temperature {temperature:g}: vLLM takes 0, or {COOLEST:g} to {WARMEST:g}")
    if logps and (condition is not None or how.stop):
        option = "--stop" if how.stop else "--condition"
        raise click.UsageError(f"--logps with {option}: vLLM's are of what it drew; pipe to al-score --logps")
    if logps and how.logps_temperature != 1 and (how.top_k or how.top_p < 1):
        raise click.UsageError("--logps: vLLM's at a temperature are cut by top-p and top-k; pipe to al-score --logps")


def start(**arguments: Any) -> "AsyncLLM":
    """vLLM's engine; data parallelism takes the asynchronous one, the only that balances several itself.

    It logs to standard output, which is for records: from here on all but the records goes to stderr.
    """
    sys.stdout.flush()
    records = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for its processes, and libraries that know no Python
    sys.stdout = os.fdopen(records, "w")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # A fork would hold on to the records' way out, whose reader then never sees its end.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    signal.signal(signal.SIGTERM, give_up)  # what has been started by then must not outlive this process

    with redirect_stdout(sys.stderr):
        from vllm import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        # Its defaults for offline work: larger batches than a server's.
        engine = AsyncEngineArgs(trust_remote_code=False, **arguments)
        return AsyncLLM.from_engine_args(engine, usage_context=UsageContext.LLM_CLASS)


def give_up(*_: object) -> NoReturn:
    raise Terminated("terminated")
