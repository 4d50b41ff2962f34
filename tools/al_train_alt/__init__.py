"""Train a policy on completions under conditions that say how good they are: ALT, Quark and SteerLM.

in    {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Go away."], "rewards": [1.3, -0.7]}
out   {"step": 1, "loss": 2.31, "nll": 2.4, "kl": 0.0, "entropy": 1.5, "tokens": 3011, ...}   (the log)
pipe  al-sample sft -n 20 prompts.jsonl | al-score rm | al-train-alt sft -o alt > alt.log
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from al_train_alt import pool, tags
from al_train_alt.objective import Conditional, Drawn
from alignlib import waits
from alignlib.cli import options, paths, rules, shells
from alignlib.cli.sections import named
from alignlib.records import conversations
from alignlib.records.jsonl import DataError, Record, dumps
from alignlib.training.command import training_options
from alignlib.training.session import Input, Session

if TYPE_CHECKING:
    from alignlib.models.policy import Policy

# What a mode does where nothing else is asked for; the papers' settings.
PER_QUANTILE = {"rm": 2, "quark": 2}
PER_PROMPT = {"lmc": 8, "steerlm": 8, "lmu": 8}
KL = {"rm": 0.05, "quark": 0.05, "lmu": 0.05, "lmc": 0.0, "steerlm": 0.0}
ENTROPY = {"rm": 0.06, "quark": 0.06, "lmu": 0.06, "lmc": 0.0, "steerlm": 0.0}


@options.command(("prompt", "completions"), options.LOG,
                 may=("rewards", "feedbacks", "scores", "finish_reasons", "completion_ids", "end_ids"))
@rules.goes_with("--drop", "--pool")
@named("Distance from the reference", "kl_coef", "kl_target", "entropy_coef", "ref", "ref_sees")
@training_options(lr=2e-5, batch_size=32, epochs=2)
@click.option("--mode", type=click.Choice(tags.MODES), default="rm",
              help="Of `rewards`: rm, quantiles as words; quark, as new tokens. Of `feedbacks`: lmc, categories; "
                   "steerlm, attributes; lmu, free text with `scores`.")
@click.option("--quantiles", type=click.IntRange(min=2), default=5, help="Classes of the rewards (rm, quark).")
@click.option("--tags", multiple=True, metavar="TEXT",
              help="One a class, the best first; or toxicity for those five.  [default: the mode's own, as many "
                   "as --quantiles]")
@click.option("--scope", type=click.Choice(["prompt", "pool"]), default="prompt",
              help="Quantiles of each prompt's completions, or of all in the pool (rm, quark).")
@click.option("--per-quantile", type=click.IntRange(min=1), help="Completions drawn of a prompt's quantile.  "
              "[default: rm, quark: 2]")
@click.option("--per-prompt", type=click.IntRange(min=1), help="Completions drawn of a prompt, its classes evenly.  "
              "[default: lmc, steerlm, lmu: 8]")
@click.option("--pool", "old", multiple=True, type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="The pool of the iteration before: its -o folder's pool.jsonl.")
@click.option("--drop", type=options.Finite(0, 1), default=1.0, help="Share of that pool which is dropped.")
@click.option("--kl-coef", type=options.Finite(min=0), help="Of KL(reference || policy).  "
              "[default: 0.05; lmc, steerlm: 0]")
@click.option("--kl-target", type=options.Finite(min=0, min_open=True), help="Adapt --kl-coef towards this KL a token.")
@click.option("--entropy-coef", type=options.Finite(min=0), help="Of the entropy.  [default: 0.06; lmc, steerlm: 0]")
@click.option("--ref", shell_complete=shells.files, help="The KL's reference.  [default: MODEL as it is now]")
@click.option("--ref-sees", type=click.Choice(["prompt", "condition"]), default="prompt",
              help="The bare prompt, or the condition too.")
@click.option("--train-layers", type=options.Finite(0, 1, min_open=True), default=1.0,
              help="Share of the layers that trains, from the top.")
@click.option("--condition-as", type=click.Choice(conversations.CONDITION_ROLES), default="user",
              help="In whose turn of a conversation the condition stands; run.json keeps it for al-sample.")
@click.option("--emit", is_flag=True, help="Train nothing: write the conditioned records to stdout.")
def main(session: Session, emit: bool, old: tuple[str, ...], train_layers: float, ref: str | None,
         **settings: Any) -> None:
    """Train the policy MODEL on `completions` conditioned on their feedback, into -o; the log goes to stdout.

    The folder also gets the data pool, pool.jsonl, and run.json the conditions for al-sample. Reads all input first.
    """
    refuse(settings, session, ref, train_layers)
    by_mode = {"kl_coef": KL, "entropy_coef": ENTROPY}
    settings |= {name: of_mode[settings["mode"]] for name, of_mode in by_mode.items() if settings[name] is None}
    selection = selection_of(settings, session)
    if emit:
        if session.recipe.on_error == "skip":
            raise click.UsageError("--on-error skip does nothing with --emit")
        return show(selection, session.files or ("-",), old)
    quark, kl_coef = settings["mode"] == "quark", settings["kl_coef"]
    adapt = train_only_top(train_layers, quark) if train_layers < 1 else None
    with session.begin(reference=lambda: bool(kl_coef) and session.apart(ref), adapt=adapt, **settings, ref=ref,
                       ref_files=paths.fingerprint(ref or session.model), train_layers=train_layers):
        from al_train_alt.layers import Unadapted, add_tokens
        from alignlib.models import load
        from alignlib.models.shards import is_sharded
        from alignlib.training.zero import asking_engine_for

        recipe = session.recipe
        if session.adapter and (quark or adapt):
            raise click.UsageError(f"{session.model}: an adapter, in which training goes on: no --mode quark, no "
                                   "--train-layers")
        pools = gathered(session, old, selection) if session.store.mine else []
        session.wait()
        policy = session.load_policy()
        first_new = add_tokens(policy, selection.names, recipe.seed) if quark else None
        encoder = load.encoder_for(policy, **recipe.limits)
        coefficients = {name: settings[name] for name in ("kl_coef", "entropy_coef", "kl_target", "ref_sees")}
        coefficients["role"] = settings["condition_as"]
        objective = Conditional(**coefficients, batch_size=recipe.batch_size, first_new=first_new)
        session.take(objective, encoder, [Drawn(*of_input, objective, encoder, session.run) for of_input in pools])
        if kl_coef:
            if session.apart(ref) or is_sharded(policy.model):
                reference = session.load_reference(ref or session.model)
            else:
                reference = Unadapted(policy)
            must_share_words(policy, reference, ref or session.model, selection.names if quark else ())
            objective.refer(policy, reference, asking_engine_for(reference, recipe))
        if adapt:
            adapt(policy)
        session.start(policy)
        if pools:
            keep_pool(session, pools[0][0], settings["ref_sees"] if kl_coef else None)
            pools.clear()  # what is trained on is in files
        session.fit(policy)


def train_only_top(share: float, quark: bool) -> Callable[[Policy], None]:
    """What leaves only this share of a policy's layers to train; quark's new tokens train with them."""

    def adapt(policy: Policy) -> None:
        from al_train_alt.layers import train_top

        train_top(policy, share, embeddings=quark)

    return adapt


def selection_of(settings: dict[str, Any], session: Session) -> pool.Selection:
    """How the options have the pool sorted and drawn from. Raises UsageError."""
    encoders: list[Any] = []

    def count_tokens(text: str) -> int:  # the tokenizer is loaded if anybody asks
        if not encoders:
            from alignlib.models import tokenizer_files
            from alignlib.models.tokens import Tokens

            encoders.append(Tokens(tokenizer_files.load_tokenizer(session.model)))
        return len(encoders[0].go_on(text))

    mode = settings["mode"]
    share = {"per_quantile": settings["per_quantile"], "per_prompt": settings["per_prompt"]}
    if not any(share.values()):
        share = {"per_quantile": PER_QUANTILE.get(mode), "per_prompt": PER_PROMPT.get(mode)}
    given = {name: settings[name] for name in ("mode", "quantiles", "tags", "scope", "drop")}
    try:
        return pool.Selection(**given, **share, seed=session.recipe.seed, role=settings["condition_as"],
                              tokens=count_tokens, limit=session.recipe.max_completion)
    except ValueError as error:
        raise click.UsageError(f"--{str(error).replace('_', '-')}") from error


def gathered(session: Session, old: tuple[str, ...], selection: pool.Selection) -> list[tuple[pool.Pool, int]]:
    """The pool of the input and the one before, then that of --eval if there is one, each with the input's checksum.

    Raises DataError.
    """

    def checked(record: Record) -> Record:
        selection.check(record)
        return record

    def placed(source: Input[Record]) -> Iterator[pool.Placed]:
        return ((source.where, record) for record in source)

    run, held_out = session.run, session.recipe.eval
    new, before, tests = (Input(run, names, checked) for names in (session.files, old, (held_out or "",)))
    pools = [(pool.gather(placed(new), placed(before) if old else (), selection), new.crc)]
    run.fixed["pool_crc"] = before.crc
    if held_out:
        records = list(placed(tests))
        try:
            pools.append((pool.gather(records, (), selection), tests.crc))
        except DataError as error:
            raise DataError(f"--eval {held_out}: {error}") from error
    run.reads(*(crc for _, crc in pools))
    return pools


def keep_pool(session: Session, trained: pool.Pool, ref_sees: str | None) -> None:
    """Leave in the folder what al-sample and the next iteration read, and count for the summary."""
    session.run.notes = {"conditions": trained.conditions, "ref_sees": ref_sees}
    session.run.keep("pool.jsonl", b"".join(map(dumps, trained.records())))
    session.counts = {"completions": len(session.examples.lengths), **trained.counts}


def show(selection: pool.Selection, files: tuple[str, ...], old: tuple[str, ...]) -> None:
    """--emit: the records that would be learnt from, on stdout."""

    def checked(names: tuple[str, ...]) -> Iterable[pool.Placed]:
        lines = conversations.read_all(names, selection.check) if names else ()
        return ((line.where, line.record) for line in lines)

    summary = options.Summary()
    gathered = pool.gather(checked(files), checked(old), selection)
    records = [record for _, record in gathered.training()]
    waits.hush()
    for record in records:
        sys.stdout.buffer.write(dumps(record))
    summary.count(records=len(records), completions=sum(len(record["completions"]) for record in records),
                  **gathered.counts)
    summary.close()


def refuse(settings: dict[str, Any], session: Session, ref: str | None, train_layers: float) -> None:
    """Combinations that would do nothing, or not what they say, are mistakes."""
    mode, given = settings["mode"], options.given_options()
    for name in ("quantiles", "scope", "per_quantile"):
        if name in given and mode not in tags.BY_REWARD:
            raise click.UsageError(f"--{name.replace('_', '-')} does nothing for --mode {mode}, only for rm, quark")
    if not (KL[mode] if settings["kl_coef"] is None else settings["kl_coef"]):
        for name, value in {"ref": ref, "ref-sees": "ref_sees" in given, "kl-target": settings["kl_target"]}.items():
            if value:
                raise click.UsageError(f"--{name} does nothing without a --kl-coef above 0")
    if mode == "quark" and settings["ref_sees"] == "condition":
        raise click.UsageError("--ref-sees condition: the reference does not know quark's tokens")
    if session.recipe.lora and (mode == "quark" or train_layers < 1):
        what = "--mode quark, whose tokens need rows to train" if mode == "quark" else "--train-layers"
        raise click.UsageError(f"--lora does not go with {what}")


def must_share_words(policy: Policy, reference: Policy, name: str, new: Iterable[str]) -> None:
    """Refuse a reference with other words than the policy's, but for those that are new."""
    words = [{word: place for word, place in model.tokenizer.get_vocab().items() if word not in new}
             for model in (policy, reference)]
    if words[0] != words[1]:
        raise click.UsageError(f"--ref {name}: its tokenizer is not that of the policy")
