"""Label completions by asking a judge: the better of two, a score, a category, or a review of each.

in    {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Go away."]}
out   {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Go away."], "winner": 0,
       "orders_agree": true, "chosen": " Hello!", "rejected": " Go away."}
pipe  al-sample sft -n 2 prompts.jsonl | al-label-ai --judge NAME --ties drop | al-train-exo sft --loss dpo-pref -o dpo
"""

import hashlib
from contextlib import closing
from pathlib import Path

import click
import orjson

from al_label_ai import questions
from alignlib.cli import model_options, options, paths
from alignlib.records import fields
from alignlib.records.jsonl import Record, Skip, dumps
from alignlib.records.prompts import prompt_key, read_by_prompt

MODES = ("pair", "rate", "lmc", "steerlm", "lmu")
TOKENS = {"pair": 4, "rate": 4, "lmc": 8, "steerlm": 8, "lmu": 120}  # of an answer, about, for --dry-run
TEXTS = ("against", "rubric", "template", "categories")
AT_A_SERVER = ("base_url", "structured", "ask_again", "max_tokens", "parameters", "concurrency", "timeout", "retries",
               "cache", "no_cache", "dry_run", "price_in", "price_out", "budget")
PACK_TOKENS = 16384  # on the device at once
FILE = click.Path(exists=True, dir_okay=False)

judge_options = options.stack(
    click.option("--judge", metavar="NAME|DIR", help="A server's name of a model, or a folder with one."),
    click.option("--judge-rm", metavar="DIR", type=click.Path(exists=True, file_okay=False),
                 help="A reward model as the judge of --mode pair."),
    click.option("--base-url", metavar="URL",
                 help="The server, with OpenAI's chat completions.  [default: $OPENAI_BASE_URL, or OpenAI's]"),
    click.option("--structured", is_flag=True, help="Ask for JSON by schema, of a server that can."),
    click.option("--ask-again", type=click.IntRange(min=0), default=2, help="Where an answer cannot be read."),
    click.option("--max-tokens", type=click.IntRange(1, 10**9), default=1024, help="Of an answer, with its reasoning."),
    click.option("--parameters", metavar="JSON", default="{}",
                 help="More of the requests: {\"top_p\": 0.9}; null takes one out, temperature and max_tokens too."),
    click.option("--concurrency", cls=options.Beside, type=click.IntRange(min=1), default=16, help="Calls at a time."),
    click.option("--timeout", cls=options.Beside, type=options.Finite(0, min_open=True), default=300.0,
                 help="Seconds a call."),
    click.option("--retries", cls=options.Beside, type=click.IntRange(min=0), default=5,
                 help="Of a call that was refused in passing, dropped, late or answered with garbage."),
)
money_options = options.stack(
    click.option("--cache", cls=options.Beside, type=click.Path(dir_okay=False),
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


@options.command(("prompt", "completions"), ("winner", "orders_agree", "chosen", "rejected", "feedbacks", "scores",
                                             "analyses", "unparsed"), may=("finish_reasons", "completion_ids"))
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
              help="pair: take the second completion from this file's record with the same prompt.")
@click.option("--one-order", is_flag=True, help="pair: ask once, the sides drawn by --seed; else in both orders.")
@click.option("--together", is_flag=True, help="rate: two in one answer, asked for as pair does, and their winner.")
@click.option("--ties", cls=options.Aside, aside="drop", type=click.Choice(["keep", "drop", "random"]), default="keep",
              help="pair: no winner leaves the record without chosen and rejected, leaves it out, or draws them.")
@click.option("--seed", type=options.Seed(), default=0, help="Of --one-order and --ties random.")
@judge_options
@money_options
@model_options.device_options
def main(files, output, resume, on_error, rejects, shard, mode, together, ties, judge, judge_rm, dry_run, **given):
    """Label the completions of each prompt with a judge's answers; what cannot be read becomes null, and `unparsed`.

    Streams, each record as soon as it is done; --against is read first.
    """
    folder = judge_rm or (judge if Path(judge or "").is_dir() and "base_url" not in options.given_options() else None)
    must_fit(mode, together, judge, judge_rm, folder)
    summary = options.Summary()
    labels = load_labels("together" if together else mode, ties, judge_rm, folder, given)
    if folder:
        judging = load_local_judge(folder, judge_rm, labels, given)
    else:
        judging = connect_server_judge(judge, cache_file(files, output, rejects, dry_run, given), given)
    partners = Partners(given["against"]) if given["against"] else None

    def prepare(record):
        record = partners.join(record) if partners else record
        return record, judging.prepare(labels.calls(record))

    if dry_run:
        with options.open_stream(files, None, False, on_error, None, shard, prepare=prepare) as stream:
            return forecast(stream, judging, mode, given)
    with options.open_stream(files, output, resume, on_error, rejects, shard, prepare=prepare,
                             model=fingerprint(folder or judge, given)) as stream:
        with closing(judging.answers(stream)) as done:
            for line, answers in done:
                finish(stream, line, labels.label(line.data[0], answers), ties, summary)
        summary.count(**{name: amount for name, amount in judging.counts().items() if amount})
        if partners and not (resume or shard):
            summary.count(**{"left over in --against": partners.left_over()})
        summary.close(stream)


def finish(stream, line, record, ties, summary):
    """Write a labelled record, or leave it out; count what it is."""
    unparsed, tied = "unparsed" in record, "winner" in record and record["winner"] is None
    summary.count(ties=int(tied and not unparsed), unparsed=int(unparsed),
                  orders_disagree=int(record.get("orders_agree") is False))
    if tied and ties == "drop":
        stream.reject(line, Skip("no verdict" if unparsed else "a tie"))
    else:
        stream.write(line, record)


def forecast(stream, judging, mode, given):
    """Print what the calls would be and cost, about, and the messages of the first."""
    told, seen = {"calls": 0, "cached": 0, "prompt_tokens": 0, "tokens": 0}, set()
    first = None
    for window in stream.windows(1):
        for call in (call for line in window for call in line.data[1]):
            key, tokens = judging.cost(call)
            known = tokens == 0 or key in seen
            told["cached" if known else "calls"] += 1
            told["prompt_tokens"] += 0 if known else tokens
            told["tokens"] += 0 if known else TOKENS[mode]
            first = first or call.messages
            seen.add(key)
    if given["price_in"] or given["price_out"]:
        told["price"] = judging.prices.of(told["prompt_tokens"], told["tokens"])
    click.echo(dumps({**told, "first": first}), nl=False)


# -- options -----------------------------------------------------------------------------------------------


def must_fit(mode, together, judge, judge_rm, folder):
    """Refuse options that would do nothing, or cannot be."""
    given = options.given_options()
    if bool(judge) == bool(judge_rm):
        raise click.UsageError("give a judge: --judge NAME, --judge DIR or --judge-rm DIR")
    wrong = {
        "--mode pair": () if mode == "pair" or together else ("against", "one_order", "ties", "seed"),
        "--mode rate": () if mode == "rate" else ("together",),
        "--mode lmc or steerlm": () if mode in ("lmc", "steerlm") else ("categories",),
        "a server": AT_A_SERVER if folder else (),
        "a model's folder": () if folder else ("device", "dtype"),
        "a judge that is asked": ("question", "rubric", "template", "one_order") if judge_rm else (),
        "--price-in or --price-out": () if given & {"price_in", "price_out"} else ("budget",),
    }
    for what, names in wrong.items():
        for name in names:
            if name in given:
                raise click.UsageError(f"--{name.replace('_', '-')} goes with {what}")
    if judge_rm and mode != "pair":
        raise click.UsageError("--judge-rm compares: it goes with --mode pair")
    for one, two in (("cache", "no_cache"), ("question", "rubric")):
        if {one, two} <= given:
            raise click.UsageError(f"--{one} or --{two.replace('_', '-')}: give one of the two")


def load_labels(mode, ties, judge_rm, folder, given):
    """How the mode asks, and what it makes of the answers."""
    from al_label_ai import modes

    rubric, template = ((questions.text_of(given[name], f"--{name}") if given[name] else None)
                        for name in ("rubric", "template"))
    kinds = questions.categories(given["categories"]) if mode in ("lmc", "steerlm") else []
    if mode == "steerlm" and (bare := [kind.name for kind in kinds if kind.attributes is None]):
        raise click.UsageError(f"--categories: {bare[0]} has no attributes")
    # A reward model sees no order, so that none is drawn.
    return modes.mode_of(mode, rubric or questions.packaged(f"question-{given['question']}"), template,
                          categories=kinds, as_json=given["structured"], ties=ties, seed=given["seed"],
                          one_order=given["one_order"] or bool(judge_rm), sides=not judge_rm)


def connect_server_judge(model, cache, given):
    from al_label_ai import cache as judge_cache
    from al_label_ai import server_judge as judge
    from alignlib.server import client

    server = client.Client(given["base_url"], **{name: given[name] for name in ("concurrency", "timeout", "retries")})
    prices = judge.Prices(given["price_in"], given["price_out"], given["budget"] or float("inf"))
    return judge.Remote(model, server, cache=cache and judge_cache.Cache(cache), parameters=parameters(given),
                        structured=given["structured"], again=given["ask_again"], prices=prices,
                        window=16 * given["concurrency"])


def cache_file(files, output, rejects, dry_run, given):
    """Where answers are kept: none that a run in the dry would have to make. Raises UsageError before it is made."""
    output = None if output == "-" or output and Path(output).exists() and not Path(output).is_file() else output
    cache = None if given["no_cache"] else given["cache"] or (f"{output}.cache" if output else None)
    paths.must_exist(files)
    paths.keep_apart(files, output, rejects, cache)
    return None if dry_run and cache and not Path(cache).exists() else cache


def load_local_judge(folder, judge_rm, labels, given):
    from al_label_ai import local_judge

    if judge_rm:
        return local_judge.Reward(folder, given["device"], given["dtype"], PACK_TOKENS)
    if not labels.question.form.options:
        raise click.UsageError("--mode lmu and --together need a judge that writes: a server")
    return local_judge.Local(folder, given["device"], given["dtype"], PACK_TOKENS)


def parameters(given):
    """Of a server's requests. Raises UsageError."""
    try:
        more = orjson.loads(given["parameters"])
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"--parameters: broken JSON: {error}") from error
    if not isinstance(more, dict):
        raise click.UsageError("--parameters: expected an object")
    if taken := more.keys() & {"model", "messages", "n", "stream", "response_format"}:
        raise click.UsageError(f"--parameters: {min(taken)} is this command's to say")
    whole = {"temperature": 0, "max_tokens": given["max_tokens"], **more}
    return {name: value for name, value in whole.items() if value is not None}


def fingerprint(judge, given):
    """Of the judge and of the files that say what it is asked."""
    digest = hashlib.blake2b(paths.fingerprint(judge).encode(), digest_size=16)
    for name in TEXTS:
        digest.update(hashlib.blake2b(Path(given[name]).read_bytes() if given[name] else b"").digest())
    return digest.hexdigest()


# -- two files ---------------------------------------------------------------------------------------------


class Partners:
    """The second completions: of another file, which has each prompt once. Raises DataError where it has not."""

    def __init__(self, path: str) -> None:
        self.completions = read_by_prompt(path, only_completion, once=True)
        self.met: set[bytes] = set()  # the prompts that a record of the first file has, too

    def join(self, record: Record) -> Record:
        """The record with its one completion and that of the same prompt's record. Raises ValueError."""
        first, prompt = only_completion(record), prompt_key(record)
        if prompt not in self.completions:
            raise ValueError("prompt: --against has no record with it")
        self.met.add(prompt)
        return {**fields.without_completions(record), "completions": [first, *self.completions[prompt]]}

    def left_over(self) -> int:
        """How many of the prompts no record has had."""
        return len(self.completions.keys() - self.met)


def only_completion(record: Record) -> str:
    """The one completion of a record, or what it has as chosen. Raises ValueError."""
    name = "completions" if "completions" in record else "chosen"
    fields.require(record, "prompt", name)
    texts = record[name] if name == "completions" else [record[name]]
    if len(texts) != 1:
        raise ValueError(f"completions: expected 1 with --against, got {len(texts)}")
    return texts[0]
