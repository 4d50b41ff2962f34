"""A smaller model of some of another's layers: a reward model of half the size begins so.

They are spread evenly, the first and the last among them.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import click
import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from alignlib.models import checkpoint, load
from alignlib.models.policy import Policy
from alignlib.records.disk import whole_folder

NUMBERS = ("mlp_only_layers", "full_attn_idxs")  # of layers, in configurations
CLOSE = 1e-4  # how far apart the largest difference of two logits may be, by the size of the largest logit


def create(source: str, folder: Path, count: int) -> tuple[int, list[int]]:
    """Write the policy at `source` with `count` of its layers into `folder`: its number of weights, and which they are.

    Tokenizer, chat template and generation configuration come along. Raises UsageError for a model of fewer layers,
    and for one whose layers would not be what they were.
    """
    policy = load.load_policy(source, "cpu", "fp32")
    model = policy.core
    name, layers = find_layers(model, source)
    if count > len(layers):
        raise click.UsageError(f"--layers {count}: {source} has {len(layers)}")
    kept = spread(len(layers), count)
    small = rebuild(model, name, kept, source)
    must_be_the_same(small, model, name, kept, source)
    dtype = checkpoint.stored_dtype(load.adapter_base(source) or source)
    with whole_folder(folder) as partial:
        load.save(Policy(small.to(dtype), policy.tokenizer), partial)
    return small.num_parameters(), kept


def spread(there: int, count: int) -> list[int]:
    """`count` of the numbers below `there`, evenly, both ends among them; of one the first."""
    return [round(i * (there - 1) / max(count - 1, 1)) for i in range(count)]


def find_layers(model: PreTrainedModel, source: str) -> tuple[str, nn.ModuleList]:
    """The list of a model's layers, and its name. Raises UsageError."""
    count = model.config.get_text_config().num_hidden_layers
    lists = ((name, part) for name, part in model.named_modules()
             if isinstance(part, nn.ModuleList) and len(part) == count)
    if found := next(lists, None):
        return found
    raise click.UsageError(f"{source}: a {type(model).__name__}, whose layers are not one list")


def rebuild(model: PreTrainedModel, name: str, kept: Sequence[int], source: str) -> PreTrainedModel:
    """A model of the layers `kept`, numbered anew, and of all the rest. Raises UsageError."""
    config = cut(model.config, kept)
    state = {}
    for key, weight in model.state_dict().items():
        if key.startswith(f"{name}."):
            number, _, rest = key.removeprefix(f"{name}.").partition(".")
            if int(number) not in kept:
                continue
            key = f"{name}.{kept.index(int(number))}.{rest}"
        state[key] = weight
    small = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    try:
        small.load_state_dict(state)
    except RuntimeError as error:
        raise click.UsageError(f"{source}: layers of a {type(model).__name__} cannot be left out") from error
    small.generation_config = copy.deepcopy(model.generation_config)
    return small.eval()


def cut(config: PreTrainedConfig, kept: Sequence[int]) -> PreTrainedConfig:
    """The configuration for the layers `kept`: lists with a value a layer, and of layers' numbers, go with them."""
    said = copy.deepcopy(config).to_dict()
    there = config.num_hidden_layers
    for key, value in said.items():
        if not isinstance(value, list):
            continue
        if key in NUMBERS:
            said[key] = [place for place, number in enumerate(kept) if number in value]
        elif len(value) == there and "layer" in key:
            said[key] = [value[number] for number in kept]
    said[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(kept)
    if config.model_type == "gpt_neo":
        said["attention_types"] = [[said["attention_layers"], 1]]
    return type(config).from_dict(said)


@torch.no_grad()
def must_be_the_same(small: PreTrainedModel, model: PreTrainedModel, name: str, kept: Sequence[int],
                     source: str) -> None:
    """Raises UsageError where the layers, built anew under their new numbers, differ from those they were."""
    ids = torch.arange(64)[None] * 7 % min(model.config.get_text_config().vocab_size, 1000)
    anew = small(ids, use_cache=False).logits
    model.set_attn_implementation(small.config._attn_implementation)
    own, theirs = small.get_submodule(name), model.get_submodule(name)
    small.set_submodule(name, nn.ModuleList(theirs[number] for number in kept))
    before = small(ids, use_cache=False).logits
    small.set_submodule(name, own)
    if (anew - before).abs().max() > CLOSE * before.abs().max():
        raise click.UsageError(f"{source}: layers of a {type(model).__name__} are others at another place")
