"""What a run of al-train-ppo begins with: prompts, texts, judges, a critic."""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import orjson
import torch
import transformers

from al_train_ppo.rollout import Prompt, how_to_draw, prompt_of
from al_train_ppo.settings import Settings
from alignlib import ranks
from alignlib.cli import exits
from alignlib.decoding import sampler
from alignlib.decoding.draws import encoder_limits
from alignlib.models import checkpoint, load, precision
from alignlib.models.encoding import Encoder
from alignlib.models.example import Example
from alignlib.models.policy import Policy, RewardModel
from alignlib.models.shards import gather_weights
from alignlib.models.tokenizer_files import load_tokenizer
from alignlib.records import fields
from alignlib.records.jsonl import Record
from alignlib.records.links import regular
from alignlib.records.output import Output
from alignlib.records.shown import say
from alignlib.rewards.programs import TIMEOUT, RewardFailure, is_program
from alignlib.rewards.reward import Reward, reward_for, split_weight
from alignlib.training.loop import Halted
from alignlib.training.recipe import Recipe, linear_bits
from alignlib.training.run_folder import step_of
from alignlib.training.session import Input, Session
from alignlib.training.zero import whole_models


def encoder_for(policy: Policy, settings: Settings, recipe: Recipe) -> Encoder:
    """The policy's encoder, which leaves room for an answer. Raises UsageError where there is none."""
    sampler.must_drop_rows(policy.core.name_or_path, policy.core.config)
    if recipe.max_length and settings.max_new_tokens >= recipe.max_length:
        raise click.UsageError(f"--max-length {recipe.max_length}: no room for a prompt beside -m "
                               f"{settings.max_new_tokens}")
    how = how_to_draw(settings, settings.number, recipe.seed)
    limits = encoder_limits(min(recipe.max_length or policy.context, policy.context), how, recipe.max_prompt,
                            recipe.keep_prompt, recipe.on_long, template=recipe.template,
                            template_args=recipe.template_args, control_tokens=recipe.control_tokens)
    return load.encoder_for(policy, **limits)


def read_prompts(session: Session, encoder: Encoder, rewards: Rewards) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of the input, and those of --eval. Raises DataError, also for none.

    The first rank reads for all: programs, which say whose answers cannot be judged, are there alone.
    """
    found = [prompts_here(session, encoder, rewards)] if ranks.first() else []
    session.wait()
    (prompts, held_out), session.run.skipped = ranks.share(lambda: (found[0], session.run.skipped))
    return prompts, held_out


def prompts_here(session: Session, encoder: Encoder, rewards: Rewards) -> tuple[list[Prompt], list[Prompt]]:
    """Read them on this rank."""
    def prepare(record: Record) -> tuple[Record, list[int]]:
        prompt = prompt_of(encoder, record)
        rewards.check(prompt[0])
        return prompt

    sources = [Input(session.run, session.files, prepare)]
    if held_out := session.recipe.eval:
        sources.append(Input(session.run, [held_out], prepare, f"{held_out}: no prompts to evaluate on"))
    prompts: list[list[Prompt]] = []
    for source in sources:
        prompts.append([Prompt(i, *row, source.where) for i, row in enumerate(source)])
        session.must_train_on(len(prompts[0]))
    session.run.reads(*(source.crc for source in sources))
    rewards.tell_cut()
    return prompts[0], prompts[1] if held_out else []


def read_texts(session: Session, policy: Policy, path: str) -> list[Example]:
    """The records of --ptx, before the prompts are read. Raises DataError, also for none."""
    encoder = load.encoder_for(policy, **session.recipe.limits)

    def prepare(record: Record) -> Example:
        fields.require(record, "prompt", "chosen")
        return encoder.encode({name: record[name] for name in record if name not in fields.ALIGNED},
                              [record["chosen"]])

    texts = Input(session.run, [path], prepare, f"--ptx {path}: no records to learn from")
    examples = list(texts)
    session.run.fixed["ptx_crc"] = texts.crc
    return examples


# -- the critic ----------------------------------------------------------------------------------------------


def critic_recipe(recipe: Recipe, rate: float | None) -> Recipe:
    """How the critic is trained: as the policy, at its own rate; without --lora whole, also beside an adapter."""
    adapted = recipe.lora is not None
    return dataclasses.replace(recipe, lr=recipe.lr if rate is None else rate,
                               save_adapter=recipe.save_adapter and adapted, load_4bit=recipe.load_4bit and adapted)


def first_like(policy: Policy, rewards: Sequence[str]) -> str | None:
    """The first reward model that reads the policy's tokens; None where there is none. Says which reads others."""
    models = list(dict.fromkeys(name for _, name in map(split_weight, rewards) if not is_program(name)))
    alike = [load_tokenizer(name).get_vocab() == policy.tokenizer.get_vocab() for name in models]
    for name in (name for name, same in zip(models, alike, strict=True) if not same):
        say(f"note: {name}: reads answers as texts, by a tokenizer of its own")
    return next((name for name, same in zip(models, alike, strict=True) if same), None)


def critic_for(session: Session, settings: Settings, path: str | None, rewards: Sequence[str], policy: Policy,
               prompts: Sequence[Prompt]) -> RewardModel | None:
    """PPO's critic, from the model at `path` or what stands in for that, which must be able to read what the policy
    writes; None for other methods. Raises UsageError.
    """
    like = first_like(policy, rewards)
    if settings.method != "ppo":
        return None
    path = path or like or load.adapter_base(session.model) or session.model
    critic = load_critic(session, path)
    if critic.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise click.UsageError(f"--critic {path}: its tokenizer is not the policy's, whose tokens it is to read")
    longest = max(len(prompt.ids) for prompt in prompts) + settings.max_new_tokens
    if critic.context < longest:
        raise click.UsageError(f"--critic {path}: its context is {critic.context} tokens, prompts with answers may "
                               f"have {longest}: --max-length {critic.context} cuts them")
    return critic


def load_critic(session: Session, path: str) -> RewardModel:
    """The critic as it was last saved by this run, or new from the model at `path`. Raises UsageError."""
    recipe = critic_recipe(session.recipe, None)
    if session.run.checkpoint and not recipe.lora:
        path = str(session.run.checkpoint / "critic")
    place = load.device_for(recipe.device)
    wanted = precision.dtype_for(recipe.dtype, place, load.load_config(path))
    kept = precision.frozen_linear(linear_bits(recipe, frozen=bool(recipe.lora)), wanted, place)
    if load.is_classifier(path):
        model, lacking = load.load_classifier(path, recipe.device, torch.float32, **kept)
    else:
        if load.adapter_base(path):
            raise click.UsageError(f"--critic {path}: an adapter of a policy; a critic begins from a whole model")
        model, lacking = load.load(transformers.AutoModelForSequenceClassification, path, recipe.device, torch.float32,
                                   fresh=("score",), spare=checkpoint.language_head, num_labels=1, **kept)
    if model.config.num_labels != 1 or not hasattr(model, "score"):
        raise click.UsageError(f"--critic {path}: not a reward model with one label")
    if "score.weight" in lacking:  # of a new head: everything is worth nothing yet
        with gather_weights([model.score.weight], change=True):
            torch.nn.init.zeros_(model.score.weight)
    return RewardModel(model, load_tokenizer(path), train=True,
                       autocast=wanted if wanted != torch.float32 else None)


# -- rewards -------------------------------------------------------------------------------------------------


class Rewards:
    """The weighted sum of several rewards. Of several ranks each asks models about its share; the first has programs.

    weighted  their weights and names, and what there is of them on this rank
    """

    def __init__(self, weighted: Sequence[tuple[float, str, Reward | None]]):
        self.weighted = weighted

    def check(self, record: Record) -> None:
        """Raises ValueError for a prompt whose answers could not be judged."""
        for _, _, reward in self.weighted:
            if reward:
                reward.prepare({**as_text(record), "completions": ["a"]})

    def tell_cut(self) -> None:
        """Say which of them will read the prompts that were checked cut."""
        for _, name, reward in self.weighted:
            if reward and (count := reward.cut.get("prompts_cut", 0)):
                say(f"warning: {name}: reads {count:,} of the prompts cut, to its context")

    def __call__(self, where: Sequence[str], records: Sequence[Record]) -> list[list[float]]:
        """A list of numbers for each record with completions, which stands where it says. Raises Halted."""
        total = [[0.0] * len(record["completions"]) for record in records]
        for weight, name, reward in self.weighted:
            rows = rows_of(name, reward, where, records)
            total = [[a + weight * b for a, b in zip(*pair, strict=True)] for pair in zip(total, rows, strict=True)]
        return total


def rows_of(name: str, reward: Reward | None, where: Sequence[str], records: Sequence[Record]) -> list[list[float]]:
    """What one reward says of all records, each of which one rank asks about. Raises Halted, on all ranks alike."""
    first, step = (0, 1) if is_program(name) else (ranks.rank(), ranks.size())
    rows: dict[int, list[float]] = {}
    failure: Exception | None = None
    if reward:
        mine = range(first, len(records), step)
        try:
            rows = dict(zip(mine, reward.score([(where[i], reward.prepare(as_text(records[i]))) for i in mine]),
                            strict=True))
        except (RewardFailure, FloatingPointError) as error:
            failure = error
    parts = ranks.gather((rows, exits.reason(failure) if failure else ""))
    if faults := [fault for _, fault in parts if fault]:
        raise Halted(faults[0]) from failure
    every = dict(ChainMap(*(part for part, _ in parts)))
    return [every[i] for i in range(len(records))]


@contextmanager
def judges(names: Sequence[str], recipe: Recipe, timeout: float = TIMEOUT) -> Iterator[Rewards]:
    """The rewards of these names; programs run as long as the context. Raises UsageError."""
    with ExitStack() as stack:
        weighted: list[tuple[float, str, Reward | None]] = []
        for weight, name in map(split_weight, names):
            with whole_models():
                reward = None if is_program(name) and not ranks.first() else stack.enter_context(reward_for(
                    name, timeout=timeout, device=recipe.device, dtype=recipe.dtype, pack_tokens=recipe.pack_tokens))
            weighted.append((weight, name, reward))
        yield Rewards(weighted)


def as_text(record: Record) -> Record:
    """The record as another model reads it: without the policy's ids."""
    return {name: value for name, value in record.items() if name not in ("completion_ids", "end_ids")}


# -- samples -------------------------------------------------------------------------------------------------


@contextmanager
def samples_file(path: str | None, session: Session) -> Iterator[Output | None]:
    """Where the first rank writes --log-samples, this run alone; None on the others, and without.

    A resumed run goes on after the step that its checkpoint is of. Raises UsageError, StateError.
    """
    if path is None or not ranks.first():
        yield None
        return
    kept = length_until(path, session)
    samples, done = Output(path, kept), False
    try:
        yield samples
        done = True
    finally:
        samples.close(begun=done or samples.at > kept)


def length_until(path: str, session: Session) -> int:
    """The bytes of what a killed run wrote until the step that is gone on from; 0 for a new one."""
    place = session.run.checkpoint
    if not (session.recipe.resume and place and Path(path).exists() and regular(path)):
        return 0
    length = 0
    try:
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n") or orjson.loads(line)["step"] > step_of(place):
                    break
                length += len(line)
    except (ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"--log-samples {path}: not what this run wrote there; remove it to go on without "
                               "those steps") from error
    return length
