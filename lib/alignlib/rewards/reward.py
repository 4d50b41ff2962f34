"""What gives completions their rewards, by one name: a program, a rule, the toy world's oracle, else a reward model.

    with reward_for("py:rewards.py:polite", timeout=300) as reward:
        asked = [(line.where, reward.prepare(line.record)) for line in lines]     # records with completions
        for line, numbers in zip(lines, reward.score(asked), strict=True): ...    # one a completion

No torch at the top: a program needs none.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import click

from alignlib.records.jsonl import Record
from alignlib.rewards.programs import TIMEOUT, WEIGHT, Asked, is_program, program_for

if TYPE_CHECKING:
    from alignlib.models.example import Example

PACK_TOKENS = 16384  # on the device at once


class Reward(AbstractContextManager["Reward"], Protocol):
    """Gives completions their rewards; a context, which ends what it has started.

    name    as it was given
    window  records that are best asked about together
    tokens  that a model has read so far
    cut     how many prompts and completions were too long for it
    """

    name: str

    @property
    def window(self) -> int: ...

    @property
    def tokens(self) -> int: ...

    @property
    def cut(self) -> Mapping[str, int]: ...

    def prepare(self, record: Record) -> Any:
        """What `score` needs of a record with completions. Raises ValueError for one that it cannot judge."""

    def score(self, asked: Sequence[Asked]) -> list[list[float]]:
        """One finite number a completion of each (where it stands, what `prepare` made of it), in order.

        Raises RewardFailure where a program gives none, FloatingPointError for a model's; both name the record.
        """


def reward_for(name: str, *, timeout: float = TIMEOUT, device: str = "auto", dtype: str = "auto",
               pack_tokens: int = PACK_TOKENS, **limits: Any) -> Reward:
    """The reward of that name; `limits`, of a model: its Encoder's. Raises UsageError for one that is not there."""
    if is_program(name):
        return program_for(name, timeout)
    return ModelReward(name, device, dtype, pack_tokens, **limits)


def split_weight(text: str) -> tuple[float, str]:
    """WEIGHT:NAME apart, 1 where there is none; what is there under the whole name is that. Raises UsageError.

    >>> split_weight("0.5:toy:overall"), split_weight("toy:overall"), split_weight("-1:length")
    ((0.5, 'toy:overall'), (1.0, 'toy:overall'), (-1.0, 'length'))
    """
    parts = WEIGHT.fullmatch(text)
    if parts is None or Path(text).exists():
        return 1.0, text
    if not parts[2]:
        raise click.UsageError(f"{text}: a weight, and no reward's name behind it")
    if not isfinite(float(parts[1])):
        raise click.UsageError(f"{text}: the weight is not finite")
    return float(parts[1]), parts[2]


class ModelReward:
    """The reward model at a path, asked in packs; `limits`: of its Encoder, by default its whole context."""

    def __init__(self, name: str, device: str, dtype: str, pack_tokens: int, end: str | None = None, **limits: Any):
        from alignlib.models import load, scoring
        from alignlib.models.policy import RewardModel

        model = load.load_reward(name, device, dtype)
        classes = model.core.config.id2label if isinstance(model, RewardModel) else {}
        if len(classes) > 1:
            raise click.UsageError(f"{name}: a classifier of {', '.join(classes.values())}, no reward model")
        self.name, self.window = name, scoring.WINDOW
        self.packs = scoring.PackScorer(model, lambda batch: {"rewards": model.scores(batch)}, pack_tokens)
        longest = min(model.context, 1 << 20)
        if model.tokenizer.sep_token_id is not None:  # an encoder's; RoBERTa counts its positions from 2
            longest = min(longest, model.tokenizer.model_max_length)
        self.encoder = load.encoder_for(model, end=end, **{"max_length": longest, **limits})
        self.cut: Mapping[str, int] = self.encoder.cut
        self.takes_template = "template" in limits

    @property
    def tokens(self) -> int:
        return self.packs.tokens

    def prepare(self, record: Record) -> "Example":
        if "messages" in record and self.encoder.template is None:
            cure = " (--template FILE gives one)" if self.takes_template else ""
            raise ValueError(f"messages: the reward model {self.name} has no chat template{cure}")
        return self.encoder.encode(record, record["completions"])

    def score(self, asked: Sequence[Asked]) -> list[list[float]]:
        rewards = [row["rewards"] for row in self.packs.score([example for _, example in asked])]
        for (where, _), row in zip(asked, rewards, strict=True):
            if not all(map(isfinite, row)):
                raise FloatingPointError(f"{where}: {self.name} gives rewards that are not finite")
        return rewards

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Nothing has been started."""
