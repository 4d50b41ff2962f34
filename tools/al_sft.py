"""Supervised fine-tuning: train a policy on prompts and their chosen completions.

in    {"prompt": "Human: hi\\n\\nAssistant:", "chosen": " Hello!"}
out   {"step": 1, "epoch": 0.01, "loss": 5.31, "grad_norm": 2.1, "lr": 0.0001, "tokens": 3011, ...}   (the log)
pipe  al-data hh | al-sft base -o sft > sft.log
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from alignlib.cli import options
from alignlib.records import fields
from alignlib.records.jsonl import Record
from alignlib.training.command import training_options
from alignlib.training.objective import Objective
from alignlib.training.session import Session

if TYPE_CHECKING:
    from torch import Tensor

    from alignlib.models.encoding import Encoder
    from alignlib.models.example import Example
    from alignlib.models.packs import Pack
    from alignlib.models.policy import Policy


@options.command(("prompt", "chosen"), options.LOG)
@training_options(lr=1e-5, batch_size=32)
@click.option("--loss", type=click.Choice(["token", "sequence"]), default="token",
              help="Mean over all tokens of a batch, or over its sequences of their summed loss.")
@click.option("--turns", type=click.Choice(["last", "all"]), default="last",
              help="Of a conversation: its last answer, or every turn of the assistant, in one row.")
def main(session: Session, loss: str, turns: str) -> None:
    """Fine-tune the policy MODEL on `chosen`, into the folder -o. The log goes to stdout, one object a step.

    Reads all input first.
    """
    with session.begin(loss=loss, turns=turns):
        from alignlib.models import load

        policy = session.load_policy()
        session.read(Likelihood(loss, turns == "all"), load.encoder_for(policy, **session.recipe.limits))
        session.fit(policy)


@dataclass
class Likelihood(Objective["Policy"]):
    """-log pi(chosen | prompt), a mean over tokens or over sequences."""

    per: str
    every_turn: bool = False

    def example(self, encoder: Encoder, record: Record) -> Example:
        """`chosen`, whole, is the one completion, whatever is known about others that the record may have."""
        fields.require(record, "prompt", "chosen")
        record = {name: value for name, value in record.items() if name not in fields.ALIGNED}
        if self.every_turn and "messages" in record:
            return encoder.encode_turns(record, record["chosen"])
        return encoder.encode(record, [record["chosen"]])

    def size(self, example: Example) -> float:
        return len(example.completions[0]) - len(example.given) if self.per == "token" else 1

    def __call__(self, model: Policy, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        return -model.token_logps(batch).sum(), {}


if __name__ == "__main__":
    main()
