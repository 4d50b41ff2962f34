"""The sampler of --backend vllm: vLLM's engine, asked completion by completion.

Prompts go in as the ids that the built-in sampler would see, and texts are made from the ids that come out, as it does.
Each completion has a seed of its own, so that no draw depends on its company.

Log-probabilities are the engine's own. In its mode "raw_logprobs" they are those of the model before temperature, top-k
and top-p; in "processed_logprobs", those of what was drawn from: with a temperature and nothing cut off, softmax(logits
/ temperature), what al-score computes. What ended a completion is counted in, whichever of the model's ends it was.

An adapter goes in as a LoRA request to an engine of its base. An engine that compiles its model first is quicker a
token but begins later (half a minute or more): where files ask for little it starts without (`asks_little`).
"""

import asyncio
import importlib.util
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import closing, redirect_stdout
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click
import torch

from al_sample import engine_guard
from alignlib import waits
from alignlib.decoding.conditions import Condition
from alignlib.decoding.draws import Draw, Sampling, encoder_limits, finish_text, prompt_ids, seed_for, stopping_ids
from alignlib.model_names import parts
from alignlib.models import adapters, load, sources, tokenizer_files
from alignlib.models.adapters import Adapter
from alignlib.models.policy import context_length
from alignlib.models.precision import dtype_for
from alignlib.models.token_rewards import NextTokenReward
from alignlib.records.jsonl import Line, Record, count_ahead
from alignlib.records.stream import Stream
from alignlib.server.ahead import in_order

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

SEED_BITS = 63  # the engine's are signed 64-bit integers, and -1 is none
COOLEST, WARMEST = 0.01, 2.0  # it takes nothing warmer, and makes this of anything cooler
LITTLE = 1 << 15  # new tokens that are drawn sooner than a model is compiled
# What peft's LoRA may do beside adding A and B at one rank and one scale. The engine passes over some of it in silence.
MORE_THAN_LORA = ("use_dora", "use_qalora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias",
                  "trainable_token_indices", "target_parameters", "layer_replication", "alora_invocation_tokens",
                  "arrow_config", "use_bdlora")
CHANGE_BASES = ("pissa", "olora", "corda", "loftq")  # beginnings that take something out of the base's weights
T = TypeVar("T")


class Sampler:
    """Draws from the policy at `model`, on as many GPUs as `tensor_parallel` times `data_parallel`.

    It lives as long as the command: the engine ends with click's context. eager: without compiling; None: where `files`
    ask for little.
    """

    def __init__(self, model: str, how: Sampling, *, condition: Condition | None, logps: bool, window: int, dtype: str,
                 files: Sequence[str], eager: bool | None, tensor_parallel: int, data_parallel: int,
                 gpu_memory: float | None, max_model_len: int | None, **prompts: Any):
        must_do(how, condition, logps)
        adapter = adapters.find(model)
        base = adapter.base if adapter else model
        if parts(base).folder != base:
            raise click.UsageError(f"{model}: --backend vllm takes folders; `al-data model {base} DIR` makes one")
        config = load.load_config(model)
        if load.is_classifier(model):
            raise click.UsageError(f"{model}: a reward model (sequence classifier); a policy is needed here")
        if load.token_reward(model) not in (None, NextTokenReward):
            raise click.UsageError(f"{model}: a reward model (of the values of next tokens); a policy is needed here")
        rank = lora_rank(adapter) if adapter else None
        max_model_len = engine_context(config, max_model_len)
        context = min(context_length(config), max_model_len or sys.maxsize)
        ends = load.generation_ends(sources.generation_config(base))
        tokenizer = tokenizer_files.load_tokenizer(model)
        self.encoder = load.build_encoder(config, tokenizer, ends=ends, **encoder_limits(context, how, **prompts))
        self.how, self.condition, self.with_logps, self.window = how, condition, logps, window
        self.tokens = 0
        if importlib.util.find_spec("vllm") is None:
            raise click.UsageError("--backend vllm needs vLLM: pip install 'align-tools[vllm]'")
        device = load.device_for("auto")
        computed = dtype_for(dtype, device, config)
        must_adapt(rank, computed, device)
        given = {"max_model_len": max_model_len, "gpu_memory_utilization": gpu_memory}
        self.engine = start(
            asks_little(files, how) if eager is None else eager, rank,
            model=base, tokenizer=tokenizer_folder(adapter, tokenizer) if adapter else base,
            dtype=str(computed)[6:],
            tensor_parallel_size=tensor_parallel, data_parallel_size=data_parallel,
            logprobs_mode="raw_logprobs" if how.logps_temperature == 1 else "processed_logprobs",
            **{name: value for name, value in given.items() if value})
        click.get_current_context().call_on_close(self.engine.shutdown)
        self.adapter = adapter_request(adapter) if adapter else None

    def prepare(self, record: Record) -> list[int]:
        return prompt_ids(self.encoder, record, self.condition)

    def draws(self, stream: Stream) -> Generator[tuple[Line, list[Draw]], None, None]:
        ahead = in_order(stream.ahead(), self.sample, self.window)
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
        async for output in self.engine.generate(prompt, self.parameters(draw), name, lora_request=self.adapter):
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


def tokenizer_folder(adapter: Adapter, tokenizer: "PreTrainedTokenizerBase") -> str:
    """Whose words the engine reads: the base's where they are the adapter's too, whose folder has no configuration, so
    that the engine looks for one again and again, and says so.
    """
    own = (adapter.folder / "tokenizer_config.json").is_file()  # it may come without
    same = not own or tokenizer_files.load_tokenizer(adapter.base).get_vocab() == tokenizer.get_vocab()
    return adapter.base if same else str(adapter.folder)


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


def engine_context(config: "PreTrainedConfig", asked: int | None) -> int | None:
    """The engine's context; None: what it takes by itself. Raises UsageError where it would be another model's then.

    LongRoPE has other factors for long texts. Where its context reaches these the engine reads all texts by them.
    """
    context, positions = context_length(config), getattr(config.get_text_config(), "max_position_embeddings", None)
    if context == (positions or context):
        return asked
    if asked and asked > context:
        raise click.UsageError(f"--max-model-len {asked}: beyond {context} tokens vLLM reads all texts, short ones "
                               "too, by LongRoPE's factors for long ones, as neither --backend hf nor al-score does")
    return asked or context


def asks_little(files: Sequence[str], how: Sampling) -> bool:
    """Whether at most LITTLE new tokens are wanted of `files`. Of pipes and standard input nobody knows."""
    records = count_ahead(files)
    return records is not None and records * len(how.temperatures) * how.max_new_tokens <= LITTLE


def lora_rank(adapter: Adapter) -> int:
    """Its rank. Raises UsageError for what is more than LoRA."""
    config = adapter.config
    more = [name for name in MORE_THAN_LORA if getattr(config, name, None)]
    more += ["bias"] if getattr(config, "bias", "none") != "none" else []
    begun = str(getattr(config, "init_lora_weights", "")).lower()
    more += ["init_lora_weights"] if begun.startswith(CHANGE_BASES) else []
    if (kind := config.peft_type) != "LORA" or more:
        what = f"LoRA with {more[0]}" if kind == "LORA" else kind.value
        raise click.UsageError(f"{adapter.path}: an adapter by {what}, which vLLM does not take; --backend hf does")
    return int(config.r)


def must_adapt(rank: int | None, dtype: torch.dtype, device: torch.device) -> None:
    """Raises UsageError for an adapter in float32 on a GPU: vLLM's kernels there end in an AssertionError."""
    if rank and device.type != "cpu" and dtype == torch.float32:
        raise click.UsageError("--dtype fp32: on a GPU vLLM computes adapters in bf16 or fp16 alone")


def adapter_request(adapter: Adapter) -> "LoRARequest":
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, str(adapter.folder))


def start(eager: bool, rank: int | None, **arguments: Any) -> "AsyncLLM":
    """vLLM's engine; data parallelism takes the asynchronous one, the only that balances several itself.

    eager: without compiling the model; rank: of the adapters that it is to take. Raises UsageError for a model that
    vLLM does not know, or an argument that does not fit it.

    It logs to standard output, which is for records: from here on all but the records goes to stderr.
    """
    sys.stdout.flush()
    records = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for its processes, and libraries that know no Python
    sys.stdout = os.fdopen(records, "w")
    verbose = (click.get_current_context().find_object(dict) or {}).get("verbose")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO" if verbose else "ERROR")
    os.environ.setdefault("PYTHONWARNINGS", "default" if verbose else "ignore")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # A fork would hold on to the records' way out, whose reader then never sees its end.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    # A process that names itself writes over its environment, and with it over the mark, without this.
    os.environ["SPT_NOENV"] = "1"
    engine_guard.start()

    with redirect_stdout(sys.stderr), waits.doing(f"starting vLLM{'' if eager else ', which compiles the model'}"):
        from vllm import AsyncEngineArgs
        from vllm.config.lora import MaxLoRARanks
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        if current_platform.is_cpu():
            # A prompt in parts and a seed together end the engine: "CPU Generator does not use offset".
            arguments["enable_chunked_prefill"] = False
            if eager:  # there it compiles single operations as well
                os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        if rank:
            largest = max(get_args(MaxLoRARanks))
            if rank > largest:
                raise click.UsageError(f"an adapter of rank {rank}: vLLM takes up to {largest}; --backend hf takes it")
            arguments |= {"enable_lora": True, "max_lora_rank": min(r for r in get_args(MaxLoRARanks) if r >= rank)}
        engine = AsyncEngineArgs(trust_remote_code=False, enforce_eager=eager, use_tqdm_on_load=False,
                                 disable_log_stats=True, **arguments)
        context = UsageContext.LLM_CLASS  # its defaults for offline work: larger batches than a server's
        try:
            config = engine.create_engine_config(context)
        except ValueError as error:
            raise click.UsageError(f"{arguments['model']}: vLLM does not take it: {error}") from error
        return deaf(lambda: AsyncLLM.from_vllm_config(config, usage_context=context, disable_log_stats=True))


def deaf(start: Callable[[], T]) -> T:
    """`start()`, where the processes that it starts never hear Control-C, but this one does.

    A terminal sends it to all of them. Ending the others is this one's: they would end in tracebacks. A process is born
    with those signals blocked that the thread has blocked that starts it, and so a thread of its own starts them.
    """
    outcome: Future[T] = Future()

    def call() -> None:
        resource_tracker.ensure_running()  # the first process of all: what starts it unblocks SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            outcome.set_result(start())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return outcome.result()
