"""On-policy training: a policy answers, its answers are judged, and it learns from that. PPO, RLOO and GRPO.

in    {"prompt": "Human: hi\\n\\nAssistant:"}
out   {"step": 1, "reward": 0.31, "kl": 0.0, "entropy": 2.1, "length": 31.5, "loss": 0.0, "seconds_sampling": 1.2, ...}
pipe  al-data hh | al-train-ppo sft --method grpo --reward rm -n 8 --steps 200 -o grpo > grpo.log
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from al_train_ppo.settings import LOSS_MEANS, METHODS, Settings, settings_of
from alignlib.cli import model_options, options, paths, rules, shells
from alignlib.cli.sections import changed, named
from alignlib.rewards.programs import TIMEOUT, is_program
from alignlib.rewards.reward import split_weight
from alignlib.training.command import training_options
from alignlib.training.session import Session

if TYPE_CHECKING:
    from al_train_ppo.course import Reference
    from alignlib.models.policy import Policy
    from alignlib.training.memory_states import Along

CRITIC = ("critic", "critic_lr", "clip_value", "gamma", "smoothing", "whiten")  # what ppo alone heeds


@options.command(("prompt",), options.LOG)
@rules.goes_with("--ptx-coef", "--ptx")
@named("Answers", "number", "prompts", "max_new_tokens", "temperature", "stop", "log_samples")
@named("The critic (ppo)", *CRITIC)
@changed("batch_size", help="Answers a step: a multiple of -n.")
@changed("seed", help="Of the draws, of the data's order and of new weights.")
@changed("compile", hidden=True)
@changed("lora_dropout", hidden=True)
@training_options(lr=1e-6, batch_size=64)
@click.option("--method", type=click.Choice(METHODS), default="ppo",
              help="ppo: with a critic; rloo, grpo: an answer against the others of its prompt.")
@click.option("--reward", "rewards", multiple=True, required=True, metavar="[WEIGHT:]NAME",
              shell_complete=shells.files,
              help="What judges answers: a reward model, toy:NAME, a program (docs/rewards.md); repeated, their sum.")
@click.option("-n", "number", type=click.IntRange(min=1), default=4, help="Answers a prompt.")
@click.option("--prompts", type=click.IntRange(min=1), default=16, help="Prompts a rollout; --steps counts rollouts.")
@click.option("--passes", type=click.IntRange(min=1), default=1, help="Times over a rollout's answers.")
@model_options.max_new_tokens
@click.option("-t", "--temperature", type=options.Finite(min=0, min_open=True), default=1.0,
              help="Of sampling, and of all log-probabilities.")
@click.option("--stop", multiple=True, help="A text that ends an answer and is left out of it; may be repeated.")
@click.option("--missing-end", type=options.Finite(min=0), default=0.0,
              help="Taken from the reward of an answer that was cut at -m.")
@click.option("--ref", default="self", shell_complete=shells.files,
              help="What the KL is from. self: MODEL as it is now; else a model.")
@click.option("--kl-coef", type=options.Finite(min=0),
              help="Of the KL from --ref, taken from the rewards; grpo: added to the loss.  [default: 0.1; grpo: 0.04]")
@click.option("--kl-target", type=options.Finite(min=0, min_open=True),
              help="Nats an answer that --kl-coef is adapted to reach.")
@click.option("--clip-ratio", type=options.Finite(min=0, min_open=True), default=0.2,
              help="How far from 1 pi / pi_old still gains anything.")
@click.option("--clip-reward", type=options.Finite(min=0, min_open=True), help="Cut rewards to +- this.")
@click.option("--loss-mean", type=click.Choice(LOSS_MEANS),
              help="Over tokens; over answers, each a mean of its tokens; over a constant length.  "
                   "[default: token; grpo: answer]")
@click.option("--scaled/--no-scaled", default=True, help="Divide by the deviation of a prompt's rewards (grpo).")
@click.option("--critic", metavar="MODEL", shell_complete=shells.files,
              help="What ppo's critic begins from.  [default: the first reward model with MODEL's tokenizer, else "
                   "MODEL]")
@click.option("--critic-lr", type=options.Finite(min=0), help="Its learning rate (ppo).  [default: --lr]")
@click.option("--clip-value", type=options.Finite(min=0, min_open=True), default=0.2,
              help="How far from the old value a new one still gains anything (ppo).")
@click.option("--gamma", type=options.Finite(0, 1), default=1.0, help="Discount a token (ppo).")
@click.option("--lambda", "smoothing", type=options.Finite(0, 1), default=0.95,
              help="Of the generalized advantage estimate (ppo).")
@click.option("--whiten", is_flag=True, help="Advantages of a rollout to mean 0 and deviation 1 (ppo).")
@click.option("--ptx", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="Records with `chosen`, whose likelihood is learnt beside.")
@click.option("--ptx-coef", type=options.Finite(min=0), default=1.0, help="Its weight in the loss.")
@click.option("--timeout", type=options.Finite(0, min_open=True), default=TIMEOUT,
              help="Seconds that a cmd:PROGRAM may be silent.")
@click.option("--log-samples", type=paths.OutputFile(), metavar="FILE",
              help="Some records of each rollout: answers, rewards, step.")
def main(session: Session, rewards: tuple[str, ...], critic: str | None, critic_lr: float | None, ref: str,
         ptx: str | None, log_samples: str | None, timeout: float, **given: Any) -> None:
    """Train the policy MODEL on its own answers to prompts, into the folder -o; the log goes to stdout.

    Reads all prompts first. Of --eval prompts it answers one each, and keeps the policy whose reward was highest.
    """
    settings = settings_of(given)
    must_fit(settings, session, rewards)
    fixed = {**vars(settings), "rewards": rewards, "critic": critic, "critic_lr": critic_lr, "ref": ref, "ptx": ptx,
             "reward_files": [paths.fingerprint(name) for name in reward_models(rewards)],
             "critic_files": paths.fingerprint(critic) if critic else None,
             "ref_files": None if ref == "self" else paths.fingerprint(ref)}
    with session.begin(reference=lambda: bool(settings.kl_coef) and session.apart(None if ref == "self" else ref),
                       along=lambda: models_along(session.model, settings, rewards, critic), samples=True, **fixed):
        from al_train_ppo import start
        from al_train_ppo.course import OnPolicy

        policy = session.load_policy()
        encoder = start.encoder_for(policy, settings, session.recipe)
        texts = start.read_texts(session, policy, ptx) if ptx else ()
        with start.judges(rewards, session.recipe, timeout) as judge:
            prompts, held_out = start.read_prompts(session, encoder, judge)
            reference = reference_for(policy, ref, settings, session)
            value_recipe = start.critic_recipe(session.recipe, critic_lr)
            value_model = start.critic_for(session, settings, critic, rewards, policy, prompts)
            session.encoder, session.records = encoder, len(prompts)
            with start.samples_file(log_samples, session) as samples:
                course = OnPolicy(policy, encoder, settings, session.recipe, prompts, held_out, judge, reference,
                                  value_model, value_recipe, texts, samples)
                session.follow(course, policy, best="reward" if held_out else None)
                session.counts["groups_of_equal_rewards"] = course.objective.state.get("equal", 0)
                course.tell_what_never_differed()


def reward_models(rewards: tuple[str, ...]) -> list[str]:
    """Those of the rewards that are models."""
    return [name for _, name in map(split_weight, rewards) if not is_program(name)]


def models_along(model: str, settings: Settings, rewards: tuple[str, ...], critic: str | None) -> list[Along]:
    """The models that are there beside policy and reference, for --plan: reward models, and ppo's critic."""
    from alignlib.training.memory_states import Along

    asked = reward_models(rewards)
    trained = [Along((critic or next(iter(asked), model)), trained=True)] if settings.method == "ppo" else []
    return trained + [Along(name) for name in asked]


def must_fit(settings: Settings, session: Session, rewards: tuple[str, ...]) -> None:
    """Refuse what would do nothing, or cannot be. Raises UsageError."""
    method, chosen = settings.method, options.given_options()
    for name in (*CRITIC, "scaled", "loss_mean"):
        heeded = {"scaled": method == "grpo", "loss_mean": method != "rloo"}.get(name, method == "ppo")
        if name in chosen and not heeded:
            option = {"smoothing": "--lambda"}.get(name, f"--{name.replace('_', '-')}")
            raise click.UsageError(f"{option} does nothing for --method {method}")
    if method != "ppo" and settings.number == 1:
        raise click.UsageError(f"--method {method} compares the answers to a prompt: -n is 2 at least")
    if session.recipe.batch_size % settings.number:
        raise click.UsageError(f"--batch-size {session.recipe.batch_size}: answers, {settings.number} a prompt (-n), "
                               "which stay together: a multiple of them")
    if session.recipe.lora_dropout:
        raise click.UsageError("--lora-dropout: pi / pi_old would not begin at 1")
    if session.recipe.compile:
        raise click.UsageError("--compile: drawing token by token would not gain by it")
    if "ref" in chosen and not settings.kl_coef:
        raise click.UsageError("--ref does nothing with --kl-coef 0")
    if session.recipe.max_completion and "ptx" not in chosen:
        raise click.UsageError("--max-completion is of --ptx; -m says how long answers may get")
    if "timeout" in chosen and not any(name.startswith("cmd:") for _, name in map(split_weight, rewards)):
        raise click.UsageError("--timeout goes with cmd:PROGRAM")
    if settings.kl_target is not None and not settings.kl_coef:
        raise click.UsageError("--kl-target adapts --kl-coef, which is 0")
    if not all(settings.stop):
        raise click.UsageError("--stop: an empty text would stop everything")


def reference_for(policy: Policy, ref: str, settings: Settings, session: Session) -> Reference | None:
    """What the KL is from; None where nothing is taken for it."""
    from al_train_ppo.course import Reference

    if not settings.kl_coef:
        return None
    if not session.apart(None if ref == "self" else ref):
        return Reference(policy, adapter_off=True)
    other = session.load_reference(session.model if ref == "self" else ref)
    if other.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise click.UsageError(f"--ref {ref}: its tokenizer is not that of {session.model}")
    return Reference(other)
