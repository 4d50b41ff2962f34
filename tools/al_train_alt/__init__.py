"""Train a policy on completions under conditions that say how good they are: ALT, Quark and SteerLM.

in    {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Go away."], "rewards": [1.3, -0.7]}
out   {"step": 1, "loss": 2.31, "nll": 2.4, "kl": 0.0, "entropy": 1.5, "tokens": 3011, ...}   (the log)
pipe  al-sample sft -n 20 prompts.jsonl | al-score rm | al-train-alt sft -o alt > alt.log
"""

import sys

import click

from al_train_alt import pool
from al_train_alt.objective import Conditional
from alignlib.cli import options, paths
from alignlib.records.jsonl import DataError, dumps, read_all
from alignlib.training import command

# What a mode does where nothing else is asked for; the papers' settings.
PER_QUANTILE = {"rm": 2, "quark": 2}
PER_PROMPT = {"lmc": 8, "steerlm": 8, "lmu": 8}
KL = {"rm": 0.05, "quark": 0.05, "lmu": 0.05, "lmc": 0.0, "steerlm": 0.0}
ENTROPY = {"rm": 0.06, "quark": 0.06, "lmu": 0.06, "lmc": 0.0, "steerlm": 0.0}


def planned(given):
    """What --plan has to know: whether a reference stands beside the policy, and which layers train."""
    from al_train_alt.layers import train_top

    def top(policy):
        train_top(policy, given["train_layers"], embeddings=given["mode"] == "quark")

    coefficient = KL[given["mode"]] if given["kl_coef"] is None else given["kl_coef"]
    return {"reference": bool(coefficient), "adapt": top if given["train_layers"] < 1 else None}


@options.command(("prompt", "completions"), options.LOG,
                 may=("rewards", "feedbacks", "scores", "finish_reasons", "completion_ids"))
@click.argument("model")
@options.files
@command.options(lr=2e-5, batch_size=32, epochs=2, plans=planned)
@click.option("--mode", type=click.Choice(pool.MODES), default="rm",
              help="Of `rewards`: rm, quantiles as words; quark, as new tokens. Of `feedbacks`: lmc, categories; "
                   "steerlm, attributes; lmu, free text with `scores`.")
@click.option("--quantiles", type=click.IntRange(min=2), default=5, help="Classes of the rewards (rm, quark).")
@click.option("--tags", multiple=True, metavar="TEXT",
              help="One a class, the best first; or toxicity for those five.  [default: the mode's own]")
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
@click.option("--ref", help="The KL's reference.  [default: MODEL as it is now]")
@click.option("--ref-sees", type=click.Choice(["prompt", "condition"]), default="prompt",
              help="The bare prompt, or the condition too.")
@click.option("--train-layers", type=options.Finite(0, 1, min_open=True), default=1.0,
              help="Share of the layers that trains, from the top.")
@click.option("--emit", is_flag=True, help="Train nothing: write the conditioned records to stdout.")
def main(model, files, recipe, emit, old, train_layers, ref, **how):
    """Train the policy MODEL on `completions` conditioned on their feedback, into -o; the log goes to stdout.

    The folder also gets the data pool, pool.jsonl, and run.json the conditions for al-sample. Reads all input first.
    """
    summary = options.Summary()
    refuse(how, recipe, ref, train_layers, old)
    how |= {"kl_coef": KL[how["mode"]] if how["kl_coef"] is None else how["kl_coef"],
            "entropy_coef": ENTROPY[how["mode"]] if how["entropy_coef"] is None else how["entropy_coef"]}
    draw = drawing(how, recipe, model)
    if emit:
        return show(pool.gather(checked(files or ("-",), draw), checked(old, draw), draw), summary)
    from al_train_alt import layers
    from alignlib.models import load
    from alignlib.training import loop, zero
    from alignlib.training.run_folder import Run

    asked = {"command": "al-train-alt", "model": model, "model_files": paths.fingerprint(model), **how,
             "ref": ref, "ref_files": paths.fingerprint(ref or model), "train_layers": train_layers}
    run = Run(recipe, asked)
    if run.complete:
        return
    made, held_out = gathered(files, old, draw, run)
    policy = load.load_policy(run.start(model), recipe.device, recipe.dtype, train=True)
    new = layers.add_tokens(policy, draw.names, recipe.seed) if how["mode"] == "quark" else None
    objective = Conditional(load.encoder_for(policy, **recipe.limits), how, recipe.batch_size, new)
    examples, tests = objective.examples(made, run), objective.examples(held_out, run) if held_out else []
    if not examples:
        raise DataError(f"no records to train on ({run.skipped} were left out)")
    if how["kl_coef"]:
        reference = load.load_policy(ref or model, recipe.device, recipe.dtype)
        must_share_words(policy, reference, ref or model, draw.names if new else ())
        objective.refer(policy, reference, zero.engine_to_ask(reference, recipe))
    if train_layers < 1:
        layers.train_top(policy, train_layers, embeddings=bool(new))
    loop.start(policy, examples, recipe, run)
    run.tells = {"conditions": made.conditions, "ref_sees": how["ref_sees"] if how["kl_coef"] else None}
    run.keep("pool.jsonl", b"".join(map(dumps, made.records())))
    loop.fit(policy, examples, objective, recipe, run, held_out=tests)
    summary.count(records=len(examples), completions=sum(len(example.completions) for example in examples),
                  skipped=run.skipped, **made.counts, **objective.encoder.cut, tokens=run.tokens)
    summary.close()


def drawing(how, recipe, model):
    """The pool's Draw of the options. Raises UsageError."""
    words = []

    def tokens(text):  # the tokenizer is loaded if anybody asks
        if not words:
            from alignlib.models import encoding, load

            words.append(encoding.continuation_tokenizer(load.load_tokenizer(model)))
        return len(words[0].encode(text, add_special_tokens=False).ids)

    mode = how["mode"]
    share = {"per_quantile": how["per_quantile"], "per_prompt": how["per_prompt"]}
    if not any(share.values()):
        share = {"per_quantile": PER_QUANTILE.get(mode), "per_prompt": PER_PROMPT.get(mode)}
    given = {name: how[name] for name in ("mode", "quantiles", "tags", "scope", "drop")}
    try:
        return pool.Draw(**given, **share, seed=recipe.seed, tokens=tokens, limit=recipe.max_completion)
    except ValueError as error:
        raise click.UsageError(f"--{str(error).replace('_', '-')}") from error


def checked(files, draw):
    """The records of the files, each checked. Raises DataError."""
    return (line.record for line in read_all(files, draw.check)) if files else ()


def gathered(files, old, draw, run):
    """The pool of the input and the one before, and that of --eval or None."""
    from alignlib.training import loop

    def good(record):
        draw.check(record)
        return record

    def records(names):
        return loop.gather(names, good, run) if names else ([], 0)

    (new, crc), (before, run.asked["pool_crc"]) = records(files or ("-",)), records(old)
    tests, eval_crc = records([run.recipe.eval] if run.recipe.eval else ())
    run.reads(crc, eval_crc)
    made = pool.gather(new, before, draw)
    try:
        return made, pool.gather(tests, (), draw) if run.recipe.eval else None
    except DataError as error:
        raise DataError(f"--eval {run.recipe.eval}: {error}") from error


def show(made, summary):
    """--emit: the records that would be learnt from, on stdout."""
    found = made.training()
    for record in found:
        sys.stdout.buffer.write(dumps(record))
    summary.count(records=len(found), completions=sum(len(record["completions"]) for record in found), **made.counts)
    summary.close()


def refuse(how, recipe, ref, train_layers, old):
    """Combinations that would do nothing, or not what they say, are mistakes."""
    mode, by_reward = how["mode"], how["mode"] in pool.BY_REWARD
    given = options.given_options()
    for name in ("quantiles", "scope", "per_quantile"):
        if name in given and not by_reward:
            raise click.UsageError(f"--{name.replace('_', '-')} does nothing for --mode {mode}, only for rm, quark")
    if not (KL[mode] if how["kl_coef"] is None else how["kl_coef"]):
        for name, value in {"ref": ref, "ref-sees": "ref_sees" in given, "kl-target": how["kl_target"]}.items():
            if value:
                raise click.UsageError(f"--{name} does nothing without a --kl-coef above 0")
    if "drop" in given and not old:
        raise click.UsageError("--drop does nothing without a --pool")
    if mode == "quark" and how["ref_sees"] == "condition":
        raise click.UsageError("--ref-sees condition: the reference does not know quark's tokens")
    if recipe.lora and (mode == "quark" or train_layers < 1):
        what = "--mode quark, whose tokens need rows to train" if mode == "quark" else "--train-layers"
        raise click.UsageError(f"--lora does not go with {what}")


def must_share_words(policy, reference, name, new):
    """Refuse a reference with other words than the policy's, but for those that are new."""
    words = [{word: place for word, place in model.tokenizer.get_vocab().items() if word not in new}
             for model in (policy, reference)]
    if words[0] != words[1]:
        raise click.UsageError(f"--ref {name}: its tokenizer is not that of the policy")


