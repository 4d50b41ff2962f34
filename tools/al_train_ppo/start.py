"""What a run of al-train-ppo begins with: prompts, texts, judges, a critic."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import click
import orjson
import torch
import transformers

from al_train_ppo.course import Judge
from al_train_ppo.objective import Settings
from al_train_ppo.rollout import Prompt, how_to_draw, prompt_of
from alignlib import ranks
from alignlib.decoding import sampler
from alignlib.decoding.draws import encoder_limits
from alignlib.models import checkpoint, load
from alignlib.models.encoding import Encoder, Example
from alignlib.models.policy import Policy, RewardModel, gather_weights
from alignlib.records import fields
from alignlib.records.jsonl import Record
from alignlib.training.recipe import Recipe
from alignlib.training.session import Session


def encoder_for(policy: Policy, settings: Settings, recipe: Recipe) -> Encoder:
    """The policy's encoder, which leaves room for an answer. Raises UsageError where there is none."""
    sampler.must_drop_rows(policy.core.name_or_path, policy.core.config)
    how = how_to_draw(settings, settings.number, recipe.seed)
    limits = encoder_limits(min(recipe.max_length or policy.context, policy.context), how, recipe.max_prompt,
                            recipe.keep_prompt, recipe.on_long, template=recipe.template,
                            template_args=recipe.template_args, control_tokens=recipe.control_tokens)
    return load.encoder_for(policy, **limits)


def read_prompts(session: Session, encoder: Encoder) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of the input, and those of --eval. Raises DataError, also for none."""
    def prepare(record: Record) -> tuple[Record, list[int]]:
        return prompt_of(encoder, record)

    rows, crc = session.gather(session.files, prepare)
    session.must_train_on(rows)
    held_out, eval_crc = session.gather([session.recipe.eval], prepare) if session.recipe.eval else ([], 0)
    session.run.reads(crc, eval_crc)
    return [Prompt(i, *row) for i, row in enumerate(rows)], [Prompt(i, *row) for i, row in enumerate(held_out)]


def read_texts(session: Session, policy: Policy, path: str) -> list[Example]:
    """The records of --ptx. Raises DataError, also for none."""
    encoder = load.encoder_for(policy, **session.recipe.limits)

    def prepare(record: Record) -> Example:
        fields.require(record, "prompt", "chosen")
        return encoder.encode({name: record[name] for name in record if name not in fields.ALIGNED},
                              [record["chosen"]])

    examples, _ = session.gather([path], prepare)
    session.must_train_on(examples)
    return examples


# -- the critic ----------------------------------------------------------------------------------------------


def critic_recipe(recipe: Recipe, rate: float | None) -> Recipe:
    """How the critic is trained: as the policy, at its own rate."""
    return dataclasses.replace(recipe, lr=recipe.lr if rate is None else rate)


def first_like(policy: Policy, rewards: Sequence[str]) -> str | None:
    """The first reward model that reads the policy's tokens; None where there is none."""
    for _, name in map(weight_and_name, rewards):
        if is_model(name) and load.load_tokenizer(name).get_vocab() == policy.tokenizer.get_vocab():
            return name
    return None


def load_critic(session: Session, path: str) -> RewardModel:
    """The critic as it was last saved by this run, or new from the model at `path`. Raises UsageError."""
    recipe = session.recipe
    if session.run.checkpoint and not recipe.lora:
        path = str(session.run.checkpoint / "critic")
    if load.is_classifier(path):
        model, lacking = load.load_classifier(path, recipe.device, torch.float32)
    else:
        if load.adapter_base(path):
            raise click.UsageError(f"--critic {path}: an adapter of a policy; a critic begins from a whole model")
        model, lacking = load.load(transformers.AutoModelForSequenceClassification, path, recipe.device, torch.float32,
                                   fresh=("score",), spare=checkpoint.language_head, num_labels=1)
    if model.config.num_labels != 1 or not hasattr(model, "score"):
        raise click.UsageError(f"--critic {path}: not a reward model with one label")
    if "score.weight" in lacking:  # of a new head: everything is worth nothing yet
        with gather_weights([model.score.weight], change=True):
            torch.nn.init.zeros_(model.score.weight)
    wanted = load.dtype_for(recipe.dtype, load.device_for(recipe.device), model.config)
    return RewardModel(model, load.load_tokenizer(path), train=True,
                       autocast=wanted if wanted != torch.float32 else None)


# -- rewards -------------------------------------------------------------------------------------------------


def weight_and_name(given: str) -> tuple[float, str]:
    """ "0.5:NAME" -> (0.5, "NAME"); 1 where there is none."""
    weight, colon, name = given.partition(":")
    try:
        return (float(weight), name) if colon else (1.0, given)
    except ValueError:
        return 1.0, given


def is_model(name: str) -> bool:
    return ":" not in name


def judge_for(rewards: Sequence[str], session: Session) -> Judge:
    """What records with completions are worth: the weighted sum of all rewards."""
    from alignlib.models.scoring import PackScorer
    from alignlib.toy import world

    judges: list[tuple[float, Judge]] = []
    for weight, name in map(weight_and_name, rewards):
        if name.startswith("toy:"):
            def oracle(records: Sequence[Record], kind: str = name[4:]) -> list[list[float]]:
                return [[world.score(kind, record["prompt"], text) for text in record["completions"]]
                        for record in records]
            judges.append((weight, oracle))
        else:
            model = load.load_reward(name, session.recipe.device, session.recipe.dtype)
            scorer = PackScorer(model, lambda batch, model=model: {"rewards": model.scores(batch)},
                                session.recipe.pack_tokens)
            encoder = load.encoder_for(model)

            def scores(records: Sequence[Record], scorer: PackScorer = scorer,
                       encoder: Encoder = encoder) -> list[list[float]]:
                return [row["rewards"] for row in scorer.score([encoder.encode(
                    {n: v for n, v in record.items() if n not in ("completion_ids", "end_ids")},
                    record["completions"]) for record in records])]
            judges.append((weight, scores))

    def judge(records: Sequence[Record]) -> list[list[float]]:
        parts = [(weight, rows(records)) for weight, rows in judges]
        return [[sum(weight * rows[i][k] for weight, rows in parts) for k in range(len(record["completions"]))]
                for i, record in enumerate(records)]

    return judge


# -- samples -------------------------------------------------------------------------------------------------


def samples_file(path: str | None, session: Session) -> Path | None:
    """The file of --log-samples, without what a killed run wrote after the step that is gone on from."""
    if path is None:
        return None
    file, checkpoint_folder = Path(path), session.run.checkpoint
    if ranks.first():
        step = int(checkpoint_folder.name.rpartition("-")[2]) if checkpoint_folder else 0
        lines = file.read_bytes().splitlines(keepends=True) if session.recipe.resume and file.exists() else []
        kept = [line for line in lines if line.endswith(b"\n") and orjson.loads(line)["step"] <= step]
        file.write_bytes(b"".join(kept))
    return file
