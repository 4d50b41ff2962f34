"""Reward models as DeepSpeed-Chat saves them: a causal model's config.json beside a pytorch_model.bin that holds
`rwtransformer.*` (or, in some releases, `rwtranrsformer.*`) and a linear `v_head`."""

import pickle
import zipfile
from pathlib import Path

import click
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from alignlib.models.checkpoint import CONSTANTS

HEAD = "v_head.weight"
BODIES = ("rwtransformer.", "rwtranrsformer.")


def read_weights(path: str) -> dict[str, Tensor]:
    """The checkpoint's tensors, mapped rather than read, without running any code of it; {} where there is no file.

    Raises UsageError for a file that is no checkpoint.
    """
    file = Path(path) / "pytorch_model.bin"
    if not file.is_file():
        return {}
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise click.UsageError(f"{file}: not a checkpoint that can be read safely ({type(error).__name__})") from error


def holds_reward_model(path: str) -> bool:
    """Whether a folder (or a name on the Hub) holds such a model: its checkpoint has a `v_head`."""
    return HEAD in read_weights(path)


def load(path: str, dtype: torch.dtype) -> PreTrainedModel:
    """The checkpoint as a sequence classifier with one label. Raises UsageError for weights that do not fit."""
    config = transformers.AutoConfig.from_pretrained(path, num_labels=1, trust_remote_code=False)
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_config(config, attn_implementation="sdpa", trust_remote_code=False)
    state = {}
    for name, weight in read_weights(path).items():
        body = next((body for body in BODIES if name.startswith(body)), "")
        state["score.weight" if name == HEAD else f"{model.base_model_prefix}.{name.removeprefix(body)}"] = weight
    missing, unexpected = model.load_state_dict(state, strict=False)
    left = [name for name in unexpected if not name.endswith(CONSTANTS)]
    if missing or left:
        wrong = ", ".join([*missing, *left][:3])
        raise click.UsageError(f"{path}: not a DeepSpeed-Chat reward model: {wrong}: no match")
    return model.to(dtype)
