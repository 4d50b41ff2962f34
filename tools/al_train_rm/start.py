"""A reward model or classifier to begin with."""

import sys
from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeVar

import click
import torch
import transformers
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlib import ranks
from alignlib.models import adapters, heads, precision
from alignlib.models.checkpoint import language_head
from alignlib.models.example import Example
from alignlib.models.load import (
    adapter_base,
    device_for,
    is_classifier,
    load,
    load_causal,
    load_classifier,
    load_config,
    load_policy,
    token_reward,
)
from alignlib.models.logps import Head
from alignlib.models.policy import Model, RewardModel, scale_and_cap
from alignlib.models.shards import gather_weights, is_sharded
from alignlib.models.text_part import find_text_part
from alignlib.models.token_rewards import TokenReward, VocabularyReward
from alignlib.models.tokenizer_files import load_tokenizer
from alignlib.training.recipe import Recipe

T = TypeVar("T", bound=TokenReward)


def must_read_text_alone(path: str) -> None:
    """Raises UsageError for a model of which there is no sequence classifier: it reads pictures or sounds too, say."""
    config = load_config(path)
    name = (config.architectures or [""])[0]
    if find_text_part(config):
        raise click.UsageError(f"{path}: a {name} reads more than text; al-data model {path} DIR writes its language "
                               "model as a folder, with which a reward model can begin")
    try:
        heads.classifier_type(config)
    except ValueError as error:
        raise click.UsageError(f"{path}: {error}") from error


def new_reward(path: str, class_names: list[str] | None, device: str = "auto", dtype: str = "auto",
               seed: int = 0, *, go_on: bool = False, bits: int = 32) -> RewardModel:
    """The model at `path`, policy or classifier, with a head to train: one label, or one a class.

    A policy's new head starts small (deviation 1 / sqrt(H + 1), as in Stiennon et al. 2020), drawn from `seed`; a
    `score` that its checkpoint has stays as it is, and its output head is left out. go_on and bits are
    load_policy's; a policy's adapter is merged.
    """
    config = load_config(path)
    settings: dict[str, Any] = {"num_labels": len(class_names or [""])}
    if class_names:
        settings |= {"id2label": dict(enumerate(class_names)),
                     "label2id": {name: i for i, name in enumerate(class_names)}}
    torch.manual_seed(seed)
    place = device_for(device)
    wanted = precision.dtype_for(dtype, place, config)
    given = adapters.find(path) if go_on else None
    settings |= precision.frozen_linear(bits, wanted, place, given and given.config)
    classifies = is_classifier(path)
    merged = None if classifies else adapter_base(path)
    if classifies:
        model, lacking = load_classifier(path, device, torch.float32, go_on=go_on, **settings)
    else:
        model, lacking = load(transformers.AutoModelForSequenceClassification, merged or path, device, torch.float32,
                              fresh=("score",), spare=language_head, **settings)
    vars(model.config).pop("reward_kind", None)  # of what it begins from
    if hasattr(model, "score"):
        model.score.bias = None  # of a value head: no order of scores depends on it, nor has a folder a place for it
    if "score.weight" in lacking:
        with gather_weights([model.score.weight], change=True):
            torch.nn.init.normal_(model.score.weight, std=(model.score.in_features + 1) ** -0.5)
    if merged and is_sharded(model):
        raise click.UsageError(f"{path}: an adapter of a policy, which --zero 3 cannot merge to begin with")
    if merged:  # what the adapter has made of the transformer
        setattr(model, model.base_model_prefix, load_policy(path, device, "fp32").core.base_model)
        model.config.get_text_config().vocab_size = config.get_text_config().vocab_size
    autocast = wanted if wanted != torch.float32 else None
    return RewardModel(model, load_tokenizer(path), autocast=autocast, train=True)


def new_token_reward(kind: type[T], path: str, recipe: Recipe, *, go_on: bool = False, bits: int = 32) -> T:
    """The policy at `path` as a reward model of this kind, or such a one, to train. Raises UsageError.

    go_on and bits are load_policy's. Values get a head of their own, unless they come with one.
    """
    before = token_reward(path)
    if before is VocabularyReward and kind is not VocabularyReward:
        raise click.UsageError(f"{path}: a reward model (of the values of next tokens); a policy is needed here")
    model = load_causal(kind, path, recipe.device, recipe.dtype, train=True, go_on=go_on, bits=bits)
    model.core.config.reward_kind = kind.kind
    if kind is VocabularyReward and before is not VocabularyReward:
        if is_sharded(model.model):
            raise click.UsageError("--head vocabulary does not go with --zero 3")
        new_value_head(model.core, recipe.seed)
    return model


def plan_values(paper: Model) -> None:
    """For --plan: a policy with a head of values, which trains beside adapters too."""
    new_value_head(paper.core, seed=0)
    paper.head_trains = True


def new_value_head(model: PreTrainedModel, seed: int) -> None:
    """Give a policy a head of values, untied from its embeddings: for each token the same small row, drawn from `seed`.

    A value is at first the text's before the token, and stays it for tokens that training never meets: rows of their
    own would be noise there, of the size of what is learnt.
    """
    adapters.untie(model)
    head = model.get_output_embeddings()
    torch.manual_seed(seed)
    row = torch.randn(head.in_features) * (head.in_features + 1) ** -0.5
    with torch.no_grad():
        head.weight.copy_(row.expand_as(head.weight))
        if head.bias is not None:
            head.bias.zero_()


def set_padding(reward: RewardModel, *parts: Sequence[Example]) -> None:
    """Give the model a padding token that none of its texts ends with: transformers reads the last token that is none.

    Where there is none, a warning says what that means.
    """
    tokenizer, config = reward.tokenizer, reward.core.config
    ends: set[int] = {tokenizer.eos_token_id} if config.reads_eos else set()
    seen: set[int] = set()
    for example in chain(*parts):
        ends.update((row or example.prompt)[-1] for row in example.completions)
        seen.update(example.prompt, *example.completions)
    tokenizer.pad_token = padding_token(tokenizer, config.get_text_config().vocab_size, ends, seen)
    for part in (config, config.get_text_config()):
        part.pad_token_id = tokenizer.pad_token_id
    if tokenizer.pad_token is None and ranks.first():
        print("warning: no token is left to pad with: transformers will read the model's texts one at a time only",
              file=sys.stderr)


def padding_token(tokenizer: PreTrainedTokenizerBase, rows: int, ends: set[int], seen: set[int]) -> str | None:
    """The tokenizer's own padding, or else a special token: one called so, one that no text has, any; None for none.

    It is one that a model of so many rows has a row for, and no text's end; the unknown token may be any text's end.
    """
    special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    fit = {number: text for number, text in special.items() if number < rows and number not in ends}
    if tokenizer.pad_token_id in fit or not fit:
        return fit.get(tokenizer.pad_token_id)

    def order(number: int) -> tuple[bool, bool, bool, int]:
        return "pad" not in fit[number].lower(), number == tokenizer.unk_token_id, number in seen, number

    return fit[min(fit, key=order)]


def output_head(path: str, model: Model) -> Head:
    """The head with which the policy at `path` says words, over another model's hidden states.

    Tied to the embeddings, it is `model`'s embeddings; of its own, it stays as it is. Raises UsageError for no policy.
    """
    config = model.core.config
    if is_classifier(path):
        raise click.UsageError(f"{path}: a reward model or classifier; --lm-coef needs a policy's output head")
    if is_sharded(model.model):
        raise click.UsageError("--lm-coef does not go with --zero 3")
    if config.get_text_config().tie_word_embeddings:
        return lambda hidden: scale_and_cap(functional.linear(hidden, model.core.get_input_embeddings().weight), config)
    head = load_policy(path, str(model.device), "fp32").core.get_output_embeddings().requires_grad_(False)
    return lambda hidden: scale_and_cap(head(hidden), config)
