"""What al-train-ppo is told, as one value, with each method's own defaults."""

from dataclasses import dataclass
from typing import Any

METHODS = ("ppo", "rloo", "grpo")
LOSS_MEANS = ("token", "answer", "constant")
KL_COEF = {"ppo": 0.1, "rloo": 0.1, "grpo": 0.04}  # DeepSpeed-Chat's; DeepSeekMath's


@dataclass(frozen=True)
class Settings:
    """How answers are drawn, judged and learnt from.

    kl_coef, kl_target   nats times the first are taken from the reward (grpo: added to the loss); it follows the second
    clip_ratio           how far pi / pi_old may gain anything, from 1
    clip_value           how far a critic's value may gain anything, from the old one
    clip_reward          scores are cut to +- this; None: not at all
    missing_end          taken from the score of an answer that was cut at its limit
    loss_mean            over tokens, over answers of the mean of their tokens, or over a constant length
    """

    method: str
    number: int
    prompts: int
    passes: int
    max_new_tokens: int
    temperature: float
    stop: tuple[str, ...]
    kl_coef: float
    kl_target: float | None
    clip_ratio: float
    clip_value: float
    clip_reward: float | None
    gamma: float
    smoothing: float
    whiten: bool
    scaled: bool
    loss_mean: str
    missing_end: float
    ptx_coef: float


def settings_of(given: dict[str, Any]) -> Settings:
    """The settings, with the method's own defaults."""
    method = given["method"]
    if given["kl_coef"] is None:
        given["kl_coef"] = KL_COEF[method]
    if given["loss_mean"] is None:
        given["loss_mean"] = "answer" if method == "grpo" else "token"
    return Settings(**given)
