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
    from al_train_rm.ranking import Preferences
    from alignlib.models.policy import Model, RewardModel

POOLED = """A reward model that reads the {pool} of the hidden states over a text (`reward_pool` in config.json).

al-score reads it so. Whatever else loads it as a sequence classifier reads the last token instead, and gets other
scores.
"""
VALUES = """A reward model that gives every next token a value (`reward_kind` in config.json).

It has a language model's shape. A text's reward is the value of its last token at the position before it; al-score and
al-args read it so. Whatever loads it as a language model gets values for logits.
"""

# The options that a kind of reward model heeds and another does not; by --loss, or "vocabulary" for that --head.
HEEDED = {
    "pairwise": {"rm_eos", "pool", "margin", "soft", "lm_coef", "prefixes", "more", "resample", "alpha", "normalize",
                 "no_reweight"},
    "classify": {"rm_eos", "pool"},
    "next-token": {"margin", "soft", "beta"},
    "vocabulary": {"margin", "soft"},
}


@options.command((), options.LOG, may=("prompt", "messages", "chosen", "rejected", "completions", "rewards", "domain",
                                       "finish_reasons", "completion_ids", "text", "label"))
@rules.goes_with("--resample", "--more")
@rules.goes_with("--alpha", "--more")
@rules.goes_with("--normalize", "--more")
@rules.goes_with("--no-reweight", "--more")
@rules.one_of("--prefixes", "--more")
@rules.one_of("--margin", "--soft")
@named("Several domains (MORE)", "more", "resample", "alpha", "normalize", "no_reweight")
@training_options(lr=1e-5, batch_size=32)
@click.option("--loss", type=click.Choice(["pairwise", "classify", "next-token"]), default="pairwise",
              help="pairwise: prompt, chosen, rejected, or completions with rewards; next-token: the same, a policy "
                   "whose log-probabilities are rewards; classify: text, label.")
@click.option("--head", type=click.Choice(["text", "vocabulary"]), default="text",
              help="One number for a text, or one for every token that may come next, in one pass (pairwise).")
@click.option("--beta", type=options.Finite(min=0, min_open=True), default=0.05,
              help="What log-probabilities are multiplied by in the loss (next-token).")
@click.option("--prefixes", type=click.IntRange(min=1), metavar="N",
              help="Rank N random beginnings of each pair too, in the same pass: for al-args.  [default: none]")
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
def main(session: Session, loss: str, head: str, **settings: Any) -> None:
    """Train a reward model from MODEL, a policy or a classifier, into the folder -o; the log goes to stdout.

    The score is read at the last token. With --eval, the model kept is the one with the best held-out accuracy.
    Reads all input first.
    """
    kind = loss if head == "text" else head
    refuse(loss, head, settings)
    if kind in ("next-token", "vocabulary"):
        return train_by_tokens(session, kind, loss=loss, head=head, **settings)
    objective = objective_of(loss, settings, session.recipe.seed)
    from al_train_rm.start import must_read_text_alone, new_reward, output_head, set_padding

    must_read_text_alone(session.model)
    with session.begin(reward=True, loss=loss, head=head, **settings):
        from alignlib.models import load, tokenizer_files

        recipe, start = session.recipe, session.origin
        words = tokenizer_files.load_tokenizer(start)
        encoder = load.build_encoder(load.load_config(start), words, eos=settings["rm_eos"], **recipe.limits)
        session.read(objective, encoder)
        names = objective.names if isinstance(objective, Classes) else None
        reward = new_reward(start, names, recipe.device, recipe.dtype, recipe.seed, go_on=session.adapter is not None,
                            bits=session.linear_bits)
        must_have_head(reward, session.model, settings)
        reward.core.config.reads_eos = settings["rm_eos"]
        reward.core.config.reward_pool = settings["pool"] or reward.pooling
        set_padding(reward, session.examples, session.held_out)
        if isinstance(objective, Ranking) and objective.lm_coef:
            objective.output_head = output_head(session.model, reward)
        session.start(reward)
        if reward.pooling != "last":
            session.run.keep("README.md", POOLED.format(pool=reward.pooling).encode())
        session.fit(reward, best="accuracy")


def train_by_tokens(session: Session, kind: str, **settings: Any) -> None:
    """Train a reward model of next tokens: a policy by its shape, which reads and ends texts as one."""
    def adapt(paper: Model) -> None:
        from al_train_rm.start import plan_values

        plan_values(paper)

    with session.begin(reward=kind == "vocabulary", adapt=adapt if kind == "vocabulary" else None, **settings):
        from al_train_rm.start import new_token_reward
        from al_train_rm.token_losses import NextToken, Values
        from alignlib.models import load, token_rewards

        orders = {name: settings[name] for name in ("margin", "soft")}
        objective: Preferences[Any] = (NextToken(**orders, beta=settings["beta"]) if kind == "next-token"
                                       else Values(**orders))
        reward = new_token_reward(token_rewards.KINDS[kind], session.origin, session.recipe, bits=session.linear_bits,
                                  go_on=session.adapter is not None)
        session.read(objective, load.encoder_for(reward, **session.recipe.limits))
        session.start(reward)
        if kind == "vocabulary":
            session.run.keep("README.md", VALUES.encode())
        session.fit(reward, best="accuracy")


def objective_of(loss: str, settings: dict[str, Any], seed: int) -> Ranking | Classes:
    """What the options ask to train on, where texts get scores."""
    if loss == "classify":
        return Classes()
    ranking = {name: settings[name] for name in ("margin", "soft", "lm_coef")}
    if settings["more"]:
        from al_train_rm.more import More

        weighing = {name: settings[name] for name in ("alpha", "normalize", "no_reweight", "resample")}
        return More(**ranking, **weighing)
    return Ranking(**ranking, prefixes=settings["prefixes"] or 0, seed=seed)


def must_have_head(reward: RewardModel, path: str, settings: dict[str, Any]) -> None:
    """Refuse a classifier that reads its text in a way of its own where the head is asked about hidden states."""
    needed = settings["more"] or settings["pool"] or settings["lm_coef"] or settings["prefixes"]
    if needed and not hasattr(reward.core, "score"):
        raise click.UsageError(f"{path}: a {type(reward.core).__name__} reads its text in its own way: no --more, no "
                               "--pool, no --lm-coef, no --prefixes")
    if settings["prefixes"] and (settings["pool"] or reward.pooling) != "last":
        raise click.UsageError("--prefixes: a beginning is read at its last token: it goes with --pool last")


def refuse(loss: str, head: str, settings: dict[str, Any]) -> None:
    """Combinations that would do nothing are mistakes."""
    given = options.given_options()
    if head == "vocabulary" and loss != "pairwise":
        raise click.UsageError(f"--head vocabulary goes with --loss pairwise, not {loss}")
    kind, what = (head, "--head") if head == "vocabulary" else (loss, "--loss")
    for name in sorted(set().union(*HEEDED.values()) - HEEDED[kind]):
        if name in given:
            raise click.UsageError(f"--{name.replace('_', '-')} does nothing for {what} {kind}")
    if settings["no_reweight"] and given & {"alpha", "normalize"}:
        raise click.UsageError("--alpha and --normalize do nothing with --no-reweight")
