"""Train a reward model on preferences, or a classifier on labelled texts.

in    {"prompt": "Human: hi\\n\\nAssistant:", "chosen": " Hello!", "rejected": " Go away."}
out   {"step": 1, "loss": 0.69, "accuracy": 0.5, "best_score": 0.1, "worst_score": 0.1, ...}   (the log)
pipe  al-data hh | al-train-rm sft -o rm --eval test.jsonl > rm.log
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from al_train_rm.ranking import Classes, Ranking
from alignlib.cli import options, rules
from alignlib.cli.sections import named
from alignlib.training.command import training_options
from alignlib.training.session import Session

if TYPE_CHECKING:
    from alignlib.models.policy import RewardModel

CARD = """A reward model that reads the {pool} of the hidden states over a text (`reward_pool` in config.json).

al-score reads it so. Whatever else loads it as a sequence classifier reads the last token instead, and gets other
scores.
"""


@options.command((), options.LOG, may=("prompt", "messages", "chosen", "rejected", "completions", "rewards", "domain",
                                       "finish_reasons", "completion_ids", "text", "label"))
@rules.goes_with("--resample", "--more")
@rules.goes_with("--alpha", "--more")
@rules.goes_with("--normalize", "--more")
@rules.goes_with("--no-reweight", "--more")
@named("Several domains (MORE)", "more", "resample", "alpha", "normalize", "no_reweight")
@training_options(lr=1e-5, batch_size=32)
@click.option("--loss", type=click.Choice(["pairwise", "classify"]), default="pairwise",
              help="pairwise: prompt, chosen, rejected, or completions with rewards; classify: text, label.")
@click.option("--rm-eos", is_flag=True, help="Read the score at an end-of-sequence put after each completion.")
@click.option("--pool", type=click.Choice(["last", "mean", "max"]),
              help="What the head reads: the last token, or mean or maximum over the text.  [default: MODEL's; last]")
@click.option("--margin", type=options.Finite(min=0), default=0.0,
              help="Ask the gap of a pair's scores to be so many times that of its rewards.")
@click.option("--soft", type=options.Finite(min=0), default=0.0,
              help="Take sigmoid(so many times the gap of the rewards) for the probability that the better one is.")
@click.option("--lm-coef", type=options.Finite(min=0), default=0.0,
              help="Add so many times the mean -log pi(token) of the best completion, by MODEL's own output head: its "
                   "embeddings, or a matrix that stays as it is and is not saved.")
@click.option("--more", is_flag=True,
              help="MORE: weigh the `domain`s of a step by their gradients at the head; all its packs are in memory.")
@click.option("--resample", type=click.IntRange(min=1), metavar="SIZE",
              help="--more: so many records of each domain an epoch, equally many a step.  [default: as they come]")
@click.option("--alpha", type=options.Finite(0, 1, min_open=True), default=0.99,
              help="--more: share of a step's gradients in their momentum.")
@click.option("--normalize", type=click.Choice(["none", "l2", "loss", "loss+"]), default="l2",
              help="--more: by what gradients are divided.")
@click.option("--no-reweight", is_flag=True, help="--more: the same steps with equal weights (MultiTask).")
def main(session: Session, loss: str, rm_eos: bool, pool: str | None, more: bool, resample: int | None,
         **settings: Any) -> None:
    """Train a reward model from MODEL, a policy or a classifier, into the folder -o; the log goes to stdout.

    The score is read at the last token. With --eval, the model kept is the one with the best held-out accuracy.
    Reads all input first.
    """
    refuse(loss, more, settings)
    objective = objective_of(loss, more, resample, settings)
    from al_train_rm.start import must_read_text_alone, new_reward, output_head, set_padding

    must_read_text_alone(session.model)
    with session.begin(reward=True, loss=loss, rm_eos=rm_eos, pool=pool, more=more, resample=resample, **settings):
        from alignlib.models import load, tokenizer_files

        recipe, start = session.recipe, session.origin
        words = tokenizer_files.load_tokenizer(start)
        encoder = load.build_encoder(load.load_config(start), words, eos=rm_eos, **recipe.limits)
        session.read(objective, encoder)
        names = objective.names if isinstance(objective, Classes) else None
        reward = new_reward(start, names, recipe.device, recipe.dtype, recipe.seed, go_on=session.adapter is not None,
                            four_bits=recipe.load_4bit)
        must_have_head(reward, session.model, more or bool(pool) or bool(settings["lm_coef"]))
        reward.core.config.reads_eos = rm_eos
        reward.core.config.reward_pool = pool or reward.pooling
        set_padding(reward, session.examples, session.held_out)
        if isinstance(objective, Ranking) and objective.lm_coef:
            objective.output_head = output_head(session.model, reward)
        session.start(reward)
        if reward.pooling != "last":
            session.run.keep("README.md", CARD.format(pool=reward.pooling).encode())
        session.fit(reward, best="accuracy")


def objective_of(loss: str, more: bool, resample: int | None, settings: dict[str, Any]) -> Ranking | Classes:
    """What the options ask to train on."""
    ranking = {name: settings[name] for name in ("margin", "soft", "lm_coef")}
    if more:
        from al_train_rm.more import More

        weighing = {name: settings[name] for name in ("alpha", "normalize", "no_reweight")}
        return More(**ranking, **weighing, resample=resample)
    return Ranking(**ranking) if loss == "pairwise" else Classes()


def must_have_head(reward: RewardModel, path: str, needed: bool) -> None:
    """Refuse a classifier that reads its text in a way of its own where the head is asked about hidden states."""
    if needed and not hasattr(reward.core, "score"):
        raise click.UsageError(f"{path}: a {type(reward.core).__name__} reads its text in its own way: no --more, no "
                               "--pool, no --lm-coef")


def refuse(loss: str, more: bool, settings: dict[str, Any]) -> None:
    """Combinations that would do nothing are mistakes."""
    if settings["no_reweight"] and options.given_options() & {"alpha", "normalize"}:
        raise click.UsageError("--alpha and --normalize do nothing with --no-reweight")
    if settings["margin"] and settings["soft"]:
        raise click.UsageError("--margin or --soft: give one of the two")
    if loss == "classify" and (more or settings["margin"] or settings["soft"] or settings["lm_coef"]):
        raise click.UsageError("--more, --margin, --soft and --lm-coef are for --loss pairwise")
