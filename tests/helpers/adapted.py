"""Adapters as peft's users make them: folders of tiny ones, whose weights are wide enough to show."""

from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignlib.models import load
from alignlib.models.policy import Policy
from helpers import tiny

EXAMPLE = tiny.example(9, 4, 7)


def base(folder: Path, family: str = "llama", **changes) -> str:
    """A tiny policy's folder."""
    return tiny.save(tiny.causal(family, **changes), folder / "base")


def adapter(folder: Path, path: str, *, kind: str | None = "CAUSAL_LM", model=None, words=None, name: str = "adapter",
            labels: int = 1, **settings) -> str:
    """An adapter over the base at `path`, each of its weights drawn; kind SEQ_CLS: with a score of its own.

    words: a tokenizer to save beside it; model: what was loaded from the base already
    """
    if model is None and kind == "SEQ_CLS":
        model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=labels)
    elif model is None:
        model = AutoModelForCausalLM.from_pretrained(path)
    settings = {"r": 4, "target_modules": "all-linear", **settings}
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type=kind, **settings))
    torch.manual_seed(1)
    for weight in adapted.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(folder / name)
    if words is not None:
        words.save_pretrained(folder / name)
    return str(folder / name)


def as_policy(path: str) -> torch.nn.Module:
    """What peft makes of an adapter's folder."""
    return peft.AutoPeftModelForCausalLM.from_pretrained(path).eval()


def as_reward(path: str, labels: int = 1) -> torch.nn.Module:
    """What peft makes of a reward model's adapter."""
    return peft.AutoPeftModelForSequenceClassification.from_pretrained(path, num_labels=labels).eval()


def to_train(path: str, **settings) -> Policy:
    """What a trainer loads, in float32."""
    return load.load_policy(path, "cpu", "fp32", train=True, **settings)


def logps(policy: Policy) -> torch.Tensor:
    """Of EXAMPLE's completions."""
    with torch.no_grad():
        return policy.logps(policy.pack([EXAMPLE]))[0]
