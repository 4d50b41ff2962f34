"""Decode completions of prompts under the guidance of reward models: ARGS, GenARM, best-of-n, best segments.

in    {"prompt": "Human: hi\\n\\nAssistant:"}
out   {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!"], "finish_reasons": ["stop"], "rewards": [1.3]}
pipe  al-args sft rm prompts.jsonl --weight 1.5 | al-score toy:overall | al-eval reward
"""

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from al_args import settings
from alignlib.cli import model_options, options, shells
from alignlib.cli.sections import named, stack
from alignlib.records import fields
from alignlib.records.jsonl import Line, Record
from alignlib.rewards import programs
from alignlib.rewards.reward import split_weight

if TYPE_CHECKING:
    from al_args.by_program import ProgramDecoder
    from al_args.decoder import Decoder
    from al_args.next_decoder import NextDecoder
    from al_args.token_by_token import GuidedDraw
    from alignlib.decoding.draws import Sampling

SETTINGS = tuple(name for name in settings.CHECKS if name != "weights")  # those that have an option of their own

# What is looked for, and how; a grid's lines have the same names.
search_options = stack(
    click.option("--method", type=click.Choice([*settings.USES]), default="greedy",
                 help="Token by token, or whole texts or segments by the language model, kept by their reward."),
    click.option("--reward", "rewards", multiple=True, metavar="WEIGHT:RM",
                 help="A reward model of al-train-rm --loss next-token, or any policy: its log-probabilities, so many "
                      "times, beside the language model's; may be repeated (next-token, without RM)."),
    click.option("-w", "--weight", type=options.Finite(), default=1.0,
                 help="Of the reward, beside the logit (greedy, stochastic)."),
    click.option("-k", "--topk", type=click.IntRange(min=1),
                 help="Candidates a token: the most likely ones (greedy, stochastic), of all models together "
                      "(next-token).  [default: 10; next-token: all]"),
    click.option("--top-p", type=options.Finite(0, 1, min_open=True), default=1.0,
                 help="Nucleus sampling (next-token)."),
    click.option("-t", "--temperature", type=options.Finite(min=0), default=1.0,
                 help="Of draws: of candidates (stochastic), of all models together (next-token), of the language "
                      "model (best-of-n, segment); 0 takes the likeliest."),
    click.option("--margin", type=options.Finite(min=0),
                 help="Leave out candidates whose logit trails the best one's by more; the reward model is not asked "
                      "where one is left. From weight * (largest - smallest reward) on, greedy stays exact."),
    click.option("--best-of", type=click.IntRange(min=1), default=8,
                 help="Texts that are drawn for the one that is kept (best-of-n, segment)."),
    click.option("--segment", type=click.IntRange(min=1), default=16, help="Tokens of a segment (segment)."),
    click.option("--grid", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
                 help="Settings, a JSON object a line: {\"method\": .., \"weight\": ..}; one record for each."),
)


@options.command(reads=("prompt",), writes=("completions", "finish_reasons", "rewards", "completion_ids", "end_ids",
                                            "seconds", "search"))
@named("Completions", "number", "max_new_tokens", "stop", "ids", "timed", "seed")
@named(model_options.DEVICE, "window", "batch_tokens", "lm_device", "rm_device", "lm_dtype", "rm_dtype")
@click.argument("lm", shell_complete=shells.files)
@click.argument("rm", required=False, shell_complete=shells.files)
@options.filter_options
@search_options
@click.option("-n", "number", type=click.IntRange(min=1), default=1, help="Completions a prompt.")
@model_options.max_new_tokens
@click.option("--stop", multiple=True, help="A text that ends a completion and is left out of it; may be repeated.")
@click.option("--score-end", type=click.Choice(["token", "text"]),
              help="How a candidate that ends the text is scored: as any token, or as the text that it ends.  "
                   "[default: text for reward models that al-train-rm trained without --rm-eos]")
@click.option("--end", type=click.Choice(["token", "none"]), help="As al-score's, of a text that is done.")
@click.option("--ids", is_flag=True, help="Also the completions' token ids.")
@click.option("--time", "timed", is_flag=True, help="Also seconds: each completion's share of the clock.")
@click.option("--seed", type=options.Seed(), default=0, help="Of the draws.")
@model_options.prompt_options("what the shorter context leaves")
@model_options.chat_options
@click.option("--window", type=click.IntRange(min=1), default=64, help="Records batched together.")
@click.option("--batch-tokens", type=click.IntRange(min=1), default=16384,
              help="Tokens that a model holds at once; the --best-of texts of one completion stay together.")
@click.option("--lm-device", default="auto", help="cpu, cuda, cuda:1, ...; auto: the GPU if there is one.")
@click.option("--rm-device", default="auto", help="The same for the reward model.")
@click.option("--lm-dtype", type=model_options.DTYPE, default="auto", help="As al-sample's --dtype.")
@click.option("--rm-dtype", type=model_options.DTYPE, default="auto", help="The same for the reward model.")
@click.option("--timeout", cls=options.Beside, type=options.Finite(0, min_open=True), default=programs.TIMEOUT,
              help="Where RM is cmd:PROGRAM: seconds without a number.")
def main(lm: str, rm: str | None, files: tuple[str, ...], output: str | None, resume: bool, on_error: str,
         rejects: str | None, shard: tuple[int, int] | None, number: int, max_new_tokens: int, stop: tuple[str, ...],
         ids: bool, timed: bool, seed: int, grid: str | None, timeout: float, rewards: tuple[str, ...],
         **others: Any) -> None:
    """Decode each prompt by the language model LM under the guidance of the reward model RM, of the same tokenizer.

    For --method next-token there is no RM, but --reward. For --method best-of-n RM may be a program, as al-score takes
    it: py:FILE.py:FUNCTION, cmd:PROGRAM, length, ... Streams, a window of records at a time.
    """
    if not all(stop):
        raise click.UsageError("--stop: an empty text would stop everything")
    plain = plain_search(others, rewards)
    searches = settings.read(grid, plain) if grid else [plain]
    rms, files = reward_models(plain, rm, rewards, files)
    if grid:  # a resumed run must have the same settings, from whatever file or pipe
        click.get_current_context().params["grid"] = searches
    must_be_used(searches)
    summary = options.Summary()
    with options.loading():
        from alignlib.decoding.draws import Sampling

        how = Sampling(max_new_tokens, stop=stop, seed=seed, temperatures=(1.0,) * number)
        decoder = decoder_for(lm, rms, how, searches, timeout, others)

    def finish(line: Line, search: settings.Search, draws: Sequence["GuidedDraw"]) -> Record:
        record = fields.without_completions(line.record, "condition")
        record["completions"] = [draw.text for draw in draws]
        record["finish_reasons"] = [draw.reason for draw in draws]
        record["rewards"] = [draw.reward for draw in draws]
        if ids:
            record["completion_ids"] = [draw.ids for draw in draws]
            record["end_ids"] = [draw.end for draw in draws]
        if timed:
            record["seconds"] = [draw.seconds for draw in draws]
        return {**record, "search": search.as_record()} if grid else record

    with options.open_stream(files, output, resume, on_error, rejects, shard, prepare=decoder.prepare,
                             model=(lm, *(file for path in rms for file in programs.files_of(path))),
                             each=len(searches)) as stream:
        with closing(decoder.draws(stream)) as done:
            for line, draws in done:  # a list of them for each of the searches
                stream.write(line, *(finish(line, *pair) for pair in zip(searches, draws, strict=True)))
        counts = {"completions": stream.written * number, **decoder.counts()}
        summary.count(**{name: amount for name, amount in counts.items() if amount or name == "tokens"})
        summary.close(stream)


def plain_search(given: dict[str, Any], rewards: Sequence[str]) -> settings.Search:
    """The settings that the options say, taken out of `given`. Raises UsageError."""
    said = {name: given.pop(name) for name in SETTINGS}
    if said["topk"] is None:
        said["topk"] = 0 if said["method"] == "next-token" else 10
    return settings.Search(**said, weights=tuple(weight for weight, _ in map(split_weight, rewards)))


def reward_models(plain: settings.Search, rm: str | None, rewards: Sequence[str],
                  files: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """The reward models by their names, and the input's: with --reward what stands behind LM is input.

    Raises UsageError.
    """
    if bool(rewards) != (plain.method == "next-token"):
        raise click.UsageError("--method next-token and --reward WEIGHT:RM go together")
    if rewards:
        click.get_current_context().params["rm"] = None  # a resumed run knows its input by its bytes
        return [name for _, name in map(split_weight, rewards)], files if rm is None else (rm, *files)
    if rm is None:
        raise click.MissingParameter(param_hint="'RM'", param_type="argument")
    return [rm], files


def decoder_for(lm: str, rms: list[str], how: "Sampling", searches: Sequence[settings.Search], timeout: float,
                others: dict[str, Any]) -> "Decoder | NextDecoder | ProgramDecoder":
    """By the reward models, or by the program, that are named. Raises UsageError."""
    given, rm = options.given_options(), rms[0]
    if "timeout" in given and not rm.startswith("cmd:"):
        raise click.UsageError("--timeout goes with cmd:PROGRAM")
    if searches[0].method == "next-token":
        if named := next(filter(programs.is_program, rms), None):
            raise click.UsageError(f"--reward {named}: a program judges whole texts, not next tokens")
        return by_next_tokens(lm, rms, how, searches, others)
    if not programs.is_program(rm):
        from al_args.decoder import Decoder
        from alignlib.models import load

        kind = load.token_reward(rm)
        if kind and (kind.kind == "next-token" or not all(search.by_token for search in searches)):
            goes = "--method next-token --reward WEIGHT:RM" if kind.kind == "next-token" else "greedy and stochastic"
            raise click.UsageError(f"{rm}: a {kind.kind} reward model is asked about next tokens: it goes with {goes}")
        return by_next_tokens(lm, rms, how, searches, others) if kind else Decoder(lm, rm, how, searches, **others)
    for name in ("rm_device", "rm_dtype", "score_end", "end"):
        if name in given:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with a reward model, not with {rm}")
        del others[name]
    program = programs.program_for(rm, timeout)
    from al_args.by_program import ProgramDecoder

    return ProgramDecoder(lm, program, how, searches, **others)


def by_next_tokens(lm: str, rms: list[str], how: "Sampling", searches: Sequence[settings.Search],
                   others: dict[str, Any]) -> "NextDecoder":
    """For reward models that say what every next token is worth, ends of texts among them."""
    from al_args.next_decoder import NextDecoder

    if others.pop("score_end"):
        raise click.UsageError(f"--score-end: {rms[0]} scores an end as any next token")
    return NextDecoder(lm, rms, how, searches, **others)


def must_be_used(searches: Sequence[settings.Search]) -> None:
    """Refuse options that would do nothing for any of the searches."""
    given, methods = options.given_options(), {search.method for search in searches}
    used = {"method", "rewards"}.union(*(settings.USES[method] for method in methods))
    if any(search.by_token for search in searches):
        used.add("score_end")
    for name in (*SETTINGS, "score_end"):
        if name in given and name not in used:
            option, named = f"--{name.replace('_', '-')}", ", ".join(sorted(methods))
            raise click.UsageError(f"{option} does nothing for --method {named}")
