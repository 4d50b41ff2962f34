"""Label completions by asking a judge: the better of two, a score, a category, or a review of each.

in    {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Go away."]}
out   {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Go away."], "winner": 0,
       "orders_agree": true, "chosen": " Hello!", "rejected": " Go away."}
pipe  al-sample sft -n 2 prompts.jsonl | al-label-ai --judge NAME --ties drop | al-train-exo sft --loss dpo-pref -o dpo
"""

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from al_label_ai import questions
from al_label_ai.against import Partners
from alignlib import waits
from alignlib.cli import model_options, options, paths, rules, shells
from alignlib.cli.sections import section
from alignlib.model_names import is_here, is_path
from alignlib.records import disk, links
from alignlib.records.conversations import with_completions
from alignlib.records.jsonl import Line, Record, Skip, dumps
from alignlib.records.stream import Stream
from alignlib.rewards.programs import files_of, is_program
from alignlib.rewards.reward import reward_for

if TYPE_CHECKING:  # they load torch or openai, which --help does without
    from al_label_ai.local_judge import PolicyJudge
    from al_label_ai.modes import Answer, Judge, Mode
    from al_label_ai.reward_judge import RewardJudge
    from al_label_ai.server_judge import ServerJudge

MODES = ("pair", "rate", "lmc", "steerlm", "lmu")
TEXTS = ("rubric", "template", "categories")
AT_A_SERVER = ("base_url", "structured", "ask_again", "max_tokens", "parameters", "concurrency", "timeout", "retries",
               "max_answer", "cache", "no_cache", "dry_run", "price_in", "price_out", "budget")
OWN_PARAMETERS = ("model", "messages", "n", "stream", "response_format")
FILE = click.Path(exists=True, dir_okay=False)

judge_options = section(
    "Judge",
    click.option("--judge", metavar="NAME|MODEL", shell_complete=shells.files,
                 help="A server's name of a model, or a model that is here."),
    click.option("--judge-rm", metavar="MODEL|PROGRAM", shell_complete=shells.files,
                 help="A reward model as the judge of --mode pair, or a program as al-score takes it: py:, cmd:, ..."),
    click.option("--base-url", metavar="URL",
                 help="The server, with OpenAI's chat completions.  [default: $OPENAI_BASE_URL, or OpenAI's]"),
    click.option("--structured", is_flag=True, help="Ask for JSON by schema, of a server that can."),
    click.option("--ask-again", type=click.IntRange(min=0), default=2, help="Where an answer cannot be read."),
    click.option("--max-tokens", type=click.IntRange(1, 10**9), default=1024, help="Of an answer, with its reasoning."),
    click.option("--parameters", metavar="JSON", default="{}",
                 help="More of the requests: {\"top_p\": 0.9}; null takes one out, temperature and max_tokens too."),
    click.option("--concurrency", cls=options.Beside, type=click.IntRange(min=1), default=16, help="Calls at a time."),
    click.option("--timeout", cls=options.Beside, type=options.Finite(0, min_open=True), default=300.0,
                 help="Seconds a call; of --judge-rm cmd:PROGRAM: without a number."),
    click.option("--retries", cls=options.Beside, type=click.IntRange(min=0), default=5,
                 help="Of a call that was refused in passing, dropped, late or answered with garbage."),
    click.option("--max-answer", cls=options.Beside, type=click.IntRange(min=1), default=16,
                 help="Megabytes of a call's answer; a longer one fails."),
)
money_options = section(
    "Answers kept, and their price",
    click.option("--cache", cls=options.Beside, type=paths.OutputFile(),
                 help="A file of all answers, each paid for once.  [default: the output's, OUTPUT.cache]"),
    click.option("--no-cache", cls=options.Beside, is_flag=True, help="Keep no answers."),
    click.option("--dry-run", is_flag=True, help="Make no call: print how many, their tokens, the price, the first."),
    click.option("--price-in", cls=options.Beside, type=options.Finite(min=0), default=0.0,
                 help="Of a million tokens of questions."),
    click.option("--price-out", cls=options.Beside, type=options.Finite(min=0), default=0.0,
                 help="Of a million tokens of answers."),
    click.option("--budget", cls=options.Beside, type=options.Finite(0, min_open=True),
                 help="Stop before a run costs more than this."),
)
folder_options = section(
    "How texts are written for the model",
    click.option("--chat-template", type=model_options.TextFile(),
                 help="Of a judge in a folder: a chat template (Jinja) instead of its tokenizer's."),
    model_options.template_args,
)


@options.command(("prompt",), ("winner", "orders_agree", "chosen", "rejected", "feedbacks", "scores", "analyses",
                               "unparsed", "unparsed_each"),
                 may=("completions", "chosen", "rejected", "finish_reasons", "completion_ids", "end_ids"))
@rules.one_of("--judge", "--judge-rm")
@rules.one_of("--cache", "--no-cache")
@rules.one_of("--question", "--rubric")
@options.filter_options
@click.option("--mode", type=click.Choice(MODES), default="pair",
              help="The better of two; a score of 1 to 10; a category, or its attributes; a review of each.")
@click.option("--question", type=click.Choice(questions.QUESTIONS), default="general",
              help="What counts.")
@click.option("--rubric", type=FILE, help="A text that says what counts instead.")
@click.option("--template", type=FILE,
              help="A text to ask with instead of the command's own, with its {places}; --dry-run shows it filled.")
@click.option("--categories", type=FILE,
              help="lmc, steerlm: lines of {category, attributes, examples}.  [default: four, for dialogues]")
@click.option("--against", type=FILE,
              help="pair: take the second completion from this file's record with the same id, or else prompt.")
@click.option("--one-order", is_flag=True, help="pair: ask once, the sides drawn by --seed; else in both orders.")
@click.option("--together", is_flag=True, help="rate: two in one answer, asked for as pair does, and their winner.")
@click.option("--ties", cls=options.Aside, aside="drop", type=click.Choice(["keep", "drop", "random"]), default="keep",
              help="pair: no winner leaves the record without chosen and rejected, leaves it out, or draws them.")
@click.option("--seed", type=options.Seed(), default=0, help="Of --one-order and --ties random.")
@judge_options
@money_options
@folder_options
@model_options.device_options
def main(files: tuple[str, ...], output: str | None, resume: bool, on_error: str, rejects: str | None,
         shard: tuple[int, int] | None, mode: str, against: str | None, together: bool, ties: str, judge: str | None,
         judge_rm: str | None, cache: str | None, no_cache: bool, dry_run: bool, **given: Any) -> None:
    """Label the completions of each prompt with a judge's answers; what cannot be read becomes null: see `unparsed`.

    Streams, each record as soon as it is done; --against is read first.
    """
    folder = judge_rm or (judge if judge and "base_url" not in options.given_options() and is_local(judge) else None)
    must_fit(mode, together, judge, judge_rm, folder)
    summary = options.Summary()
    labeller = load_mode("together" if together else mode, ties, judge_rm, **given)
    partners = Partners(against) if against else None
    judging: Judge
    if folder:
        judging = load_local_judge(folder, judge_rm, **given)
    else:
        answers_file = cache_file(files, output, rejects, dry_run, cache, no_cache)
        judging = server = connect_server_judge(str(judge), answers_file, **given)
    prepare = partial(prepare_record, mode=labeller, judge=judging, partners=partners)
    if dry_run:  # a server's
        with options.open_stream(files, None, False, on_error, None, shard, prepare=prepare, show=False) as stream:
            return forecast(stream, server, mode)
    known = files_of(judge_rm) if judge_rm and is_program(judge_rm) else [str(folder or judge)]
    model = fingerprint(known, against, *(given[name] for name in TEXTS))
    with options.open_stream(files, output, resume, on_error, rejects, shard, prepare=prepare, model=model) as stream:
        with closing(judging.answers(stream)) as judged:
            for line, answers in judged:
                finish(stream, line, labeller, answers, ties, summary)
        summary.count(**{name: amount for name, amount in judging.counts().items() if amount})
        if partners and not (resume or shard):
            summary.count(**{"left over in --against": partners.left_over()})
        summary.close(stream)


def prepare_record(record: Record, mode: "Mode", judge: "Judge",
                   partners: Partners | None) -> tuple[Record, Sequence[object]]:
    """The record to label, and what the judge needs to answer the queries about it. Raises ValueError."""
    if partners:
        record = partners.join(record)
    elif (pair := with_completions(record)) is not record:
        record = {**pair, "human_winner": 0}
    return record, judge.prepare(mode.queries(record))


def finish(stream: Stream, line: Line, mode: "Mode", answers: "Sequence[Answer]", ties: str,
           summary: options.Summary) -> None:
    """Write the record that these answers label, or leave it out; count what it is."""
    record = mode.label(line.data[0], answers)
    unparsed = any(answer.parts is None for answer in answers)
    tied = mode.compares and record["winner"] is None  # another run's verdict may be there, too
    summary.count(ties=int(tied and not unparsed), unparsed=int(unparsed),
                  orders_disagree=int(mode.compares and record["orders_agree"] is False))
    if tied and ties == "drop":
        stream.reject(line, Skip("no verdict" if unparsed else "a tie"))
    else:
        stream.write(line, record)


def forecast(stream: Stream, judge: "ServerJudge", mode: str) -> None:
    """Print what the calls would be and cost, about, and the messages of the first."""
    from al_label_ai.forecast import ANSWER_TOKENS, Forecast

    figures = Forecast(judge, ANSWER_TOKENS[mode])
    figures.add_all(stream)
    waits.hush()
    click.echo(dumps(figures.total()), nl=False)


# -- options -----------------------------------------------------------------------------------------------


def is_local(judge: str) -> bool:
    """Whether it is a model here, not one of a server's. Raises UsageError for a path that is none."""
    if is_here(judge):
        return True
    there = Path(judge).exists()
    if there or is_path(judge):
        what = "a file that is no model" if there else "no such folder or file"
        raise click.UsageError(f"--judge {judge}: {what}: a folder, a .gguf file or WEIGHTS@BASE is one, or a server's "
                               "model by its name; --base-url says which server")
    return False


def must_fit(mode: str, together: bool, judge: str | None, judge_rm: str | None, folder: str | None) -> None:
    """Refuse options that would do nothing, or cannot be."""
    given, programmed = options.given_options(), is_program(judge_rm or "")
    if not (judge or judge_rm):
        raise click.UsageError("--judge NAME, --judge DIR or --judge-rm DIR: give a judge")
    wrong: dict[str, Sequence[str]] = {
        "--mode pair": () if mode == "pair" or together else ("against", "one_order", "ties", "seed"),
        "--mode rate": () if mode == "rate" else ("together",),
        "--mode lmc or steerlm": () if mode in ("lmc", "steerlm") else ("categories",),
        "a server": () if not folder else AT_A_SERVER if not programmed else [
            name for name in AT_A_SERVER if name != "timeout" or not str(judge_rm).startswith("cmd:")],
        "a model's folder": () if folder and not programmed else ("device", "dtype", "chat_template", "template_args"),
        "a judge that is asked": ("question", "rubric", "template", "one_order") if judge_rm else (),
        "--price-in or --price-out": () if given & {"price_in", "price_out"} else ("budget",),
    }
    for what, names in wrong.items():
        for name in names:
            if name in given:
                raise click.UsageError(f"--{name.replace('_', '-')} goes with {what}")
    if judge_rm and mode != "pair":
        raise click.UsageError("--judge-rm compares: it goes with --mode pair")
    if folder and not judge_rm and (mode == "lmu" or together):
        raise click.UsageError("--mode lmu and --together need a judge that writes: a server")


def load_mode(mode: str, ties: str, judge_rm: str | None, *, question: str, rubric: str | None, template: str | None,
              categories: str | None, structured: bool, one_order: bool, seed: int, **_: object) -> "Mode":
    """How the mode asks, and what it makes of the answers. Raises UsageError."""
    from al_label_ai import modes

    what_counts = questions.read_text(rubric, "--rubric") if rubric else questions.packaged_text(f"question-{question}")
    own = questions.read_text(template, "--template") if template else None
    kinds = questions.load_categories(categories) if mode in ("lmc", "steerlm") else []
    if mode == "steerlm" and (bare := [kind.name for kind in kinds if kind.attributes is None]):
        raise click.UsageError(f"--categories: {bare[0]} has no attributes")
    # A reward model sees no order, so that none is drawn.
    return modes.build_mode(mode, what_counts, own, categories=kinds, as_json=structured, ties=ties, seed=seed,
                            one_order=one_order or bool(judge_rm), sides=not judge_rm)


def load_local_judge(folder: str, judge_rm: str | None, *, device: str, dtype: str, chat_template: str | None,
                     template_args: tuple[tuple[str, Any], ...], timeout: float,
                     **_: object) -> "PolicyJudge | RewardJudge":
    """A reward model or a program, or a policy by the probability of each option."""
    written: dict[str, Any] = {"template": chat_template, "template_args": template_args}
    if judge_rm:
        from al_label_ai.reward_judge import RewardJudge

        return RewardJudge(reward_for(judge_rm, timeout=timeout, device=device, dtype=dtype, on_long="fail", **written))
    from al_label_ai.local_judge import PolicyJudge

    return PolicyJudge(folder, device, dtype, **written)


def connect_server_judge(model: str, cache: str | None, *, base_url: str | None, concurrency: int, timeout: float,
                         retries: int, max_answer: int, parameters: str, max_tokens: int, structured: bool,
                         ask_again: int, price_in: float, price_out: float, budget: float | None,
                         **_: object) -> "ServerJudge":
    """A server's `model`, its answers kept in the file `cache`. Raises UsageError; no call is made yet."""
    from al_label_ai.cache import Cache
    from al_label_ai.server_judge import Prices, ServerJudge
    from alignlib.server.client import Client
    from alignlib.server.parameters import read_parameters

    client = Client(base_url, concurrency=concurrency, timeout=timeout, retries=retries, max_answer=max_answer)
    request = {"temperature": 0, "max_tokens": max_tokens, **read_parameters(parameters, OWN_PARAMETERS)}
    if cache:
        hold_cache(cache)
    return ServerJudge(model, client, cache=Cache(cache) if cache else None, parameters=request, structured=structured,
                       ask_again=ask_again, prices=Prices(price_in, price_out, budget or float("inf")),
                       window=16 * concurrency)


def cache_file(files: tuple[str, ...], output: str | None, rejects: str | None, dry_run: bool, cache: str | None,
               no_cache: bool) -> str | None:
    """Where answers are kept: none that a run in the dry would have to make. Raises UsageError before it is made."""
    output = None if output == "-" or output and not links.regular(output) else output
    path = None if no_cache else cache or (f"{output}.cache" if output else None)
    paths.must_exist(files)
    paths.keep_apart(files or ("-",), output, rejects, path)
    return None if dry_run and path and not Path(path).exists() else path


def hold_cache(path: str) -> None:
    """Till the command ends others may use the cache too, but none may write it as its output. Raises StateError."""
    held = disk.Held(path, shared=True, shown=f"--cache {path}")
    click.get_current_context().call_on_close(partial(leave_cache, held))


def leave_cache(held: disk.Held) -> None:
    """A cache that was made for this run, and into which no answer came, goes."""
    if held.new and held.alone() and is_empty(held.path):
        for end in ("-wal", "-shm"):
            Path(f"{held.path}{end}").unlink(missing_ok=True)
        held.remove()
    held.close()


def is_empty(cache: str) -> bool:
    """Whether it holds no answer; a file without space for its tables does not."""
    try:
        with closing(sqlite3.connect(cache)) as file:
            return not file.execute("SELECT count(*) FROM answers").fetchone()[0]
    except sqlite3.OperationalError:
        return not Path(cache).stat().st_size


def fingerprint(judge: Sequence[str], *texts: str | None) -> str:
    """Of the judge's files and of those that say what it is asked: another one, another run."""
    digest = hashlib.blake2b("".join(map(paths.fingerprint, judge)).encode(), digest_size=16)
    for path in texts:
        digest.update(hashlib.blake2b(Path(path).read_bytes() if path else b"").digest())
    return digest.hexdigest()
