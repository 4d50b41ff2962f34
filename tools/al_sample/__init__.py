"""Sample completions of prompts from a policy.

in    {"prompt": "Human: hi\\n\\nAssistant:"}
out   {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Hm"], "finish_reasons": ["stop", "length"]}
pipe  al-sample sft -n 4 prompts.jsonl | al-score rm > scored.jsonl
"""

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from alignlib.cli import model_options, options, rules, shells
from alignlib.cli.sections import named, section
from alignlib.decoding import conditions
from alignlib.records import fields
from alignlib.records.conversations import CONDITION_ROLES
from alignlib.records.jsonl import Line, Record

if TYPE_CHECKING:
    from alignlib.decoding.draws import Draw

VLLM = ("eager", "tensor_parallel", "data_parallel", "gpu_memory", "max_model_len")
SERVER = ("base_url", "api", "parameters", "concurrency", "timeout", "retries", "max_answer")
# Options that only some backends can do anything about.
TAKEN_BY = {
    **dict.fromkeys(("batch_tokens", "device", "timed", "contrastive"), ("hf",)),
    **dict.fromkeys(("top_k", "logps", "ids", "max_prompt", "keep_prompt", "on_long", "dtype", "template",
                     "template_args", "control_tokens"), ("hf", "vllm")),
    **dict.fromkeys(VLLM, ("vllm",)),
    **dict.fromkeys(SERVER, ("openai",)),
}
WINDOWS = {"hf": 64, "vllm": 1024, "openai": 64}

backend_options = section(
    "Backend",
    click.option("--backend", type=click.Choice(["hf", "vllm", "openai"]), default="hf",
                 help="What runs the model: this command, vLLM, or a server."),
    click.option("--window", type=click.IntRange(min=1),
                 help="Records batched together (hf), or read ahead of the one to be written (vllm, openai).  "
                 "[default: 64; vllm: 1024]"),
    click.option("--batch-tokens", type=click.IntRange(min=1), default=16384, help="hf: tokens on the device at once."),
    click.option("--eager/--no-eager", cls=options.Beside, default=None,
                 help="vllm: start without compiling the model: sooner, but slower a token.  [default: where FILES ask "
                 "for at most 32,768 tokens]"),
    click.option("--tensor-parallel", type=click.IntRange(min=1), default=1, help="vllm: GPUs that share one model."),
    click.option("--data-parallel", type=click.IntRange(min=1), default=1, help="vllm: models, each on its own GPUs."),
    click.option("--gpu-memory", type=options.Finite(0, 1, min_open=True),
                 help="vllm: the share of a GPU to take.  [default: vLLM's]"),
    click.option("--max-model-len", type=click.IntRange(min=2),
                 help="vllm: tokens of prompt and completion.  [default: the model's context]"),
    click.option("--base-url", metavar="URL",
                 help="openai: the server.  [default: $OPENAI_BASE_URL, or OpenAI's]"),
    click.option("--api", type=click.Choice(["auto", "completions", "chat"]), default="auto",
                 help="openai: auto is chat for messages, completions for a prompt."),
    click.option("--parameters", metavar="JSON", default="{}",
                 help="openai: more of the requests; null takes one out: {\"max_tokens\": null, \"seed\": null}."),
    click.option("--concurrency", cls=options.Beside, type=click.IntRange(min=1), default=16,
                 help="openai: calls at a time."),
    click.option("--timeout", cls=options.Beside, type=options.Finite(0, min_open=True), default=300.0,
                 help="openai: seconds a call."),
    click.option("--retries", cls=options.Beside, type=click.IntRange(min=0), default=5,
                 help="openai: of a call that was refused in passing, dropped, late or answered with garbage."),
    click.option("--max-answer", cls=options.Beside, type=click.IntRange(min=1), default=16,
                 help="openai: megabytes of a call's answer; a longer one fails."),
)


@options.command(reads=("prompt",), writes=("completions", "finish_reasons", "completion_ids", "end_ids",
                                            "temperatures", "condition", "logps", "logps_temperature", "seconds"))
@rules.one_of("--greedy", "--temperature")
@rules.goes_with("--condition-as", "--condition")
@click.argument("model", shell_complete=shells.files)
@options.filter_options
@click.option("-n", "number", type=click.IntRange(min=1), default=1, help="Completions a prompt (and temperature).")
@click.option("-t", "--temperature", "temperatures", type=options.Finite(min=0), multiple=True, default=(1.0,),
              help="May be given several times; 0 is greedy.")
@click.option("--greedy", is_flag=True, help="The same as --temperature 0.")
@click.option("--top-p", type=options.Finite(0, 1, min_open=True), default=1.0, help="Nucleus sampling.")
@click.option("--top-k", type=click.IntRange(min=0), default=0,
              help="Of the K most likely tokens; 0: of all. Not openai.")
@click.option("--contrastive", type=options.Finite(0, 1), metavar="ALPHA",
              help="Contrastive search, which draws nothing: of --top-k candidates the one with the best (1 - ALPHA) * "
                   "probability - ALPHA * likeness to the text before it. Only hf.")
@model_options.max_new_tokens
@click.option("--stop", multiple=True, help="A text that ends a completion and is left out of it; may be repeated.")
@click.option("--condition", default=None, metavar="TEXT", help="To put before each prompt, for sampling only; of "
              "al-train-alt's models also best, tag:N (1 is the best), or exemplars: one a prompt, drawn.")
@click.option("--condition-as", type=click.Choice(CONDITION_ROLES),
              help="In whose turn of a conversation the condition stands.  [default: as MODEL was trained; user]")
@click.option("--logps", is_flag=True,
              help="Also ids, and the log-probability of each completion given the bare prompt. Not openai.")
@click.option("--ids", is_flag=True, help="Also the completions' token ids. Not openai.")
@click.option("--time", "timed", is_flag=True, help="Also seconds: each completion's share of its batch's. Only hf.")
@click.option("--seed", type=options.Seed(), default=0, help="Of the draws.")
@model_options.prompt_options("what the context leaves", note=" Not openai.")
@model_options.chat_options
@model_options.device_options
@backend_options
@named("Backend vllm", *VLLM)
@named("Backend openai: a server", *SERVER)
def main(model: str, files: tuple[str, ...], output: str | None, resume: bool, on_error: str, rejects: str | None,
         shard: tuple[int, int] | None, number: int, temperatures: tuple[float, ...], greedy: bool, top_p: float,
         top_k: int, contrastive: float | None, max_new_tokens: int, stop: tuple[str, ...], condition: str | None,
         condition_as: str | None, logps: bool, ids: bool, timed: bool, seed: int, backend: str, window: int | None,
         **others: Any) -> None:
    """Sample completions of each prompt from the policy MODEL: a folder, a name on the Hub, or a server's name for it.

    Streams: hf a window of records at a time, vllm and openai each record as it is done.
    """
    must_be_taken(backend)
    if not all(stop):
        raise click.UsageError("--stop: an empty text would stop everything")
    if contrastive is not None:
        must_be_contrastive(number, greedy, logps, top_k)
    summary = options.Summary()
    plan = tuple(t for t in ((0.0,) if greedy else temperatures) for _ in range(number))
    others |= {"files": files, "logps": logps, "window": window or WINDOWS[backend]}
    with options.loading():
        from al_sample.backends import sampler_for
        from alignlib.decoding.draws import Sampling

        how = Sampling(max_new_tokens, top_k, top_p, stop, seed, plan, contrastive)
        chosen = None if condition is None else conditions.condition_for(condition, model, seed, condition_as)
        sampler = sampler_for(backend, model, how, chosen, others)

    def finish(line: Line, draws: list["Draw"]) -> Record:
        record = fields.without_completions(line.record, "condition")
        record["completions"] = [draw.text for draw in draws]
        record["finish_reasons"] = [draw.reason for draw in draws]
        if ids or logps:  # log-probabilities are of these ids: their text may encode to others
            record["completion_ids"] = [draw.ids for draw in draws]
            record["end_ids"] = [draw.end for draw in draws]
        if len(set(plan)) > 1:
            record["temperatures"] = list(plan)
        if timed:
            record["seconds"] = [draw.seconds for draw in draws]
        if chosen:
            record["condition"] = chosen.text_for(record)
        if logps:
            record["logps"] = [draw.logp for draw in draws]
            record |= {"logps_temperature": how.logps_temperature} if how.logps_temperature != 1 else {}
        return record

    with options.open_stream(files, output, resume, on_error, rejects, shard, prepare=sampler.prepare,
                             model=model) as stream:
        with closing(sampler.draws(stream)) as done:
            for line, draws in done:
                stream.write(line, finish(line, draws))
        counts = {"tokens": 0, "completions": stream.written * len(plan), **sampler.counts()}
        summary.count(**{name: amount for name, amount in counts.items() if amount})
        summary.close(stream)


def must_be_taken(backend: str) -> None:
    """Refuse options that would do nothing."""
    given = options.given_options()
    for parameter in click.get_current_context().command.params:
        if parameter.name in given and backend not in TAKEN_BY.get(parameter.name, (backend,)):
            raise click.UsageError(f"{parameter.opts[-1]} is not for --backend {backend}")


def must_be_contrastive(number: int, greedy: bool, logps: bool, top_k: int) -> None:
    """Refuse what contrastive search has no use for, or lacks."""
    given = options.given_options()
    useless = {"--temperature": "temperatures" in given, "--greedy": greedy, "--top-p": "top_p" in given,
               "-n": number > 1}
    for name in filter(useless.get, useless):
        raise click.UsageError(f"{name} does nothing for --contrastive, which draws nothing")
    if not top_k:
        raise click.UsageError("--contrastive needs --top-k: the candidates a token, 5 to 10 say")
    if logps:
        raise click.UsageError("--logps is not for --contrastive: pipe to al-score --logps")
