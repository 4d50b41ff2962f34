"""Align a policy with completions and their rewards: EXO, DPO and their relatives.

in    {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Hm"], "rewards": [1.3, -0.7]}
out   {"step": 1, "loss": 0.69, "margin": 0.0, "accuracy": 0.5, "kl": 0.0, "tokens_per_second": 9011, ...}   (the log)
pipe  al-sample sft -n 4 prompts.jsonl | al-score rm | al-train-exo sft --loss exo-rw -o exo > exo.log
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from al_train_exo.objective import LOSSES, Contrast, heeding
from alignlib.cli import options, paths, shells
from alignlib.training.command import training_options
from alignlib.training.recipe import linear_bits
from alignlib.training.session import Session

if TYPE_CHECKING:
    from alignlib.models.policy import Policy

ANY_LOSS = ("beta_r",)  # recipes of several losses give both betas to each


@options.command(("prompt",), options.LOG,
                 may=("completions", "rewards", "finish_reasons", "completion_ids", "end_ids", "ref_logps",
                      "ref_logps_temperature", "chosen", "rejected", "label"))
@training_options(lr=1e-6, batch_size=64)
@click.option("--loss", type=click.Choice([*LOSSES]), default="exo-rw",
              help="exo: reverse KL, dpo: forward KL; -rw: to the rewards' distribution, -pref: to the better of two; "
                   "kto: of good and bad completions, in no pairs.")
@click.option("--beta-pi", type=options.Finite(min=0, min_open=True), default=0.5, help="Of the policy (DPO's beta).")
@click.option("--beta-r", type=options.Finite(min=0, min_open=True), default=0.5, help="Of the rewards (-rw).")
@click.option("--gamma", type=options.Finite(min=0), default=0.5,
              help=f"How far the better half is to be ahead, beta included ({heeding('gamma')}).")
@click.option("--orpo-lambda", type=options.Finite(min=0), default=0.1,
              help=f"Of the odds ratio, beside the better half's likelihood ({heeding('orpo_lambda')}).")
@click.option("--kto-threshold", type=options.Finite(), default=0.0,
              help=f"A completion with a reward above it is good, else bad ({heeding('kto_threshold')}).")
@click.option("--kto-good", type=options.Finite(min=0), default=1.0, help="Weight of good completions (kto).")
@click.option("--kto-bad", type=options.Finite(min=0), default=1.0, help="Weight of bad ones (kto).")
@click.option("--temperature", type=options.Finite(min=0, min_open=True), default=1.0,
              help="What policy's and reference's logits are divided by: the sampling temperature.")
@click.option("--num-contrastive", type=click.IntRange(min=2), help="Completions a group.  [default: all; 2 for pairs]")
@click.option("--ref", default="self", shell_complete=shells.files,
              help="self: MODEL as it is now; ref_logps: that field; else a model.")
@click.option("--smoothing", type=options.Finite(0, 0.5, max_open=True), default=0.0,
              help=f"Share of wrong labels ({heeding('smoothing')}).")
@click.option("--reference-free", is_flag=True,
              help=f"Leave the reference out of the loss ({heeding('reference_free')}).")
@click.option("--importance", is_flag=True,
              help=f"Weigh a pair by pi / pi_ref of its worse half ({heeding('importance')}).")
@click.option("--sft-reg", type=options.Finite(min=0), default=0.0, help="Add this times -log pi of the better half.")
def main(session: Session, loss: str, **settings: Any) -> None:
    """Align the policy MODEL with `completions` and their `rewards`, into the folder -o; the log goes to stdout.

    `chosen` and `rejected` do instead of both; for kto a `label`, true or false, does instead of rewards. Reads all
    input first.
    """
    refuse(loss, settings, session.recipe.batch_size)
    objective, ref = Contrast(loss, **settings), settings["ref"]
    ref_files = None if ref in ("self", "ref_logps") else paths.fingerprint(ref)
    with session.begin(loss=loss, **settings, ref_files=ref_files):
        from al_train_exo.reference import add_ref_logps
        from alignlib.models import load

        policy = session.load_policy()
        reference = reference_for(objective, policy, session)
        encoder = load.encoder_for(policy, **session.recipe.limits)
        objective.longest = encoder.max_length
        session.read(objective, encoder)
        objective.order(session.examples, session.recipe.batch_size)  # a batch of one is refused before all else
        if reference is policy:
            session.start(policy)
        if reference:
            logps = partial(reference.logps, temperature=objective.temperature)
            means = partial(objective.step_means, session.examples, session.held_out)
            objective.reference_means = add_ref_logps(
                reference, session.examples, session.recipe, session.run, logps, session.held_out,
                means if objective.needs.mismatched else None)
            del logps
        del reference  # its numbers are all that training needs
        session.fit(policy)


def refuse(loss: str, settings: dict[str, Any], batch_size: int) -> None:
    """Combinations that would do nothing are mistakes."""
    context = click.get_current_context()
    defaults = {parameter.name: parameter.get_default(context) for parameter in context.command.params}
    for name, value in settings.items():
        idle = name not in ANY_LOSS and heeding(name) and not LOSSES[loss].heeds(name)
        if idle and value not in (None, defaults[name]):
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} does nothing for --loss {loss}, only for {heeding(name)}")
    if LOSSES[loss].pairs and settings["num_contrastive"] not in (None, 2):
        raise click.UsageError(f"--loss {loss} is about pairs: --num-contrastive is 2")
    if LOSSES[loss].mismatched and settings["ref"] == "ref_logps":
        raise click.UsageError(f"--ref ref_logps: --loss {loss} asks the reference about other records' answers too: "
                               "give --ref MODEL, or self")
    if LOSSES[loss].mismatched and batch_size == 1:
        raise click.UsageError(f"--batch-size 1: --loss {loss} compares a step's prompts with each other's answers")


def reference_for(objective: Contrast, policy: Policy, session: Session) -> Policy | None:
    """The model whose log-probabilities are the reference's; None where none is needed, or records have them.

    Another model than the policy is computed as the policy is, before DeepSpeed has it: rounding alone must not make
    them differ.
    """
    from alignlib.models import load

    if not objective.needs.reference or objective.ref == "ref_logps":
        return None
    if objective.ref == "self":
        return policy
    reference = load.load_policy(objective.ref, session.recipe.device, session.recipe.dtype, train=True,
                                 bits=linear_bits(session.recipe, frozen=True))
    if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise click.UsageError(f"--ref {objective.ref}: its tokenizer is not that of {session.model}")
    return reference
