"""Supervised fine-tuning: train a policy on prompts and their chosen completions.

in    {"prompt": "Human: hi\\n\\nAssistant:", "chosen": " Hello!"}
out   {"step": 1, "epoch": 0.01, "loss": 5.31, "grad_norm": 2.1, "lr": 0.0001, "tokens": 3011, ...}   (the log)
pipe  al-data hh | al-sft base -o sft > sft.log
"""

from dataclasses import dataclass

import click

from alignlib.cli import options, paths
from alignlib.records import fields
from alignlib.training import command


@options.command(("prompt", "chosen"), options.LOG)
@click.argument("model")
@options.files
@command.options(lr=1e-5, batch_size=32)
@click.option("--loss", type=click.Choice(["token", "sequence"]), default="token",
              help="Mean over all tokens of a batch, or over its sequences of their summed loss.")
def main(model, files, recipe, loss):
    """Fine-tune the policy MODEL on `chosen`, into the folder -o. The log goes to stdout, one object a step.

    Reads all input first.
    """
    from alignlib.models import load
    from alignlib.training import loop
    from alignlib.training.run_folder import Run

    summary = options.Summary()
    run = Run(recipe, {"command": "al-sft", "model": model, "model_files": paths.fingerprint(model), "loss": loss})
    if run.complete:
        return
    policy = load.load_policy(run.start(model), recipe.device, recipe.dtype, train=True)
    encoder = load.encoder_for(policy, **recipe.limits)
    examples, held_out = loop.read(files, lambda record: example(encoder, record), run)
    loop.fit(policy, examples, Likelihood(loss), recipe, run, held_out=held_out)
    summary.count(records=len(examples), skipped=run.skipped, **encoder.cut, tokens=run.tokens)
    summary.close()


def example(encoder, record):
    """The Example of a record: `chosen`, whole, is its one completion, whatever is known about others it may have."""
    fields.require(record, "prompt", "chosen")
    record = {name: value for name, value in record.items() if name not in fields.ALIGNED}
    return encoder.encode(record, [record["chosen"]])


@dataclass
class Likelihood:
    """-log pi(chosen | prompt), a mean over tokens or over sequences."""

    per: str

    def size(self, example):
        return len(example.completions[0]) if self.per == "token" else 1

    def __call__(self, model, batch):
        return -model.token_logps(batch).sum(), {}


if __name__ == "__main__":
    main()
