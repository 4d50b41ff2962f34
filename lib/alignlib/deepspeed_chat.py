"""Reward models as DeepSpeed-Chat saves them: a causal model's config.json beside a pytorch_model.bin that holds
`rwtransformer.*` (or, in some releases, `rwtranrsformer.*`) and a linear `v_head`."""

from functools import lru_cache
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

HEAD = "v_head.weight"
BODIES = ("rwtransformer.", "rwtranrsformer.")


@lru_cache(maxsize=1)
def weights(path: str) -> dict[str, Tensor]:
    """The checkpoint's tensors, without running any code of it; {} where there is no such file."""
    file = Path(path) / "pytorch_model.bin"
    return torch.load(file, map_location="cpu", weights_only=True) if file.is_file() else {}


def is_one(path: str) -> bool:
    return HEAD in weights(path)


def load(path: str, dtype: torch.dtype) -> nn.Module:
    """The checkpoint as a sequence classification model with one label. Raises ValueError for keys left over."""
    config = transformers.AutoConfig.from_pretrained(path, num_labels=1)
    model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    state = {}
    for name, weight in weights(path).items():
        body = next((body for body in BODIES if name.startswith(body)), "")
        state["score.weight" if name == HEAD else f"{model.base_model_prefix}.{name.removeprefix(body)}"] = weight
    missing, unexpected = model.load_state_dict(state, strict=False)
    buffers = {name for name, _ in model.named_buffers()}
    left = [name for name in unexpected if name not in buffers and not name.endswith(("attn.bias", "masked_bias"))]
    if missing or left:
        raise ValueError(f"{path}: not a DeepSpeed-Chat reward model: {[*missing, *left][:3]} do not fit")
    return model.to(dtype)
