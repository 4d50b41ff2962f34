"""Train a reward model on preferences, or a classifier on labelled texts.

in    {"prompt": "Human: hi\\n\\nAssistant:", "chosen": " Hello!", "rejected": " Go away."}
out   {"step": 1, "loss": 0.69, "accuracy": 0.5, "best_score": 0.1, "worst_score": 0.1, ...}   (the log)
pipe  al-data hh | al-train-rm sft -o rm --eval test.jsonl > rm.log
"""

from dataclasses import dataclass

import click

from alignlib import options, recipe, records
from alignlib.jsonl import Skip


@options.command((), options.LOG, may=("prompt", "messages", "chosen", "rejected", "completions", "rewards",
                                       "finish_reasons", "completion_ids", "text", "label"))
@click.argument("model")
@options.files
@recipe.options(lr=1e-5, batch_size=32)
@click.option("--loss", type=click.Choice(["pairwise", "classify"]), default="pairwise",
              help="pairwise: prompt, chosen, rejected, or completions with rewards; classify: text, label.")
@click.option("--rm-eos", is_flag=True, help="Read the score at an end-of-sequence put after each completion.")
def main(model, files, recipe, loss, rm_eos):
    """Train a reward model from MODEL, a policy or a classifier, into the folder -o; the log goes to stdout.

    The score is read at the last token. With --eval, the model kept is the one with the best held-out accuracy.
    Reads all input first.
    """
    from alignlib import models, train
    from alignlib.run import Run

    summary = options.Summary()
    asked = {"command": "al-train-rm", "model": model, "model_files": options.fingerprint(model), "loss": loss}
    run = Run(recipe, {**asked, "rm_eos": rm_eos})
    if run.complete:
        return
    start = run.start(model)
    config, tokenizer = models.config_of(start), models.load_tokenizer(start)
    encoder = models.encoder_of(config, tokenizer, eos=rm_eos, **recipe.limits)
    objective = Ranking() if loss == "pairwise" else Classes([])
    examples, held_out = train.read(files, lambda record: objective.example(encoder, record), run)
    names = objective.settle(examples, held_out) if loss == "classify" else None
    reward = models.new_reward(start, names, recipe.device, recipe.dtype, recipe.seed)
    reward.core.config.reads_eos = rm_eos
    train.fit(reward, examples, objective, recipe, run, held_out=held_out, best="accuracy")
    summary.count(records=len(examples), skipped=run.skipped, **encoder.cut, tokens=run.tokens)
    summary.close()


class Ranking:
    """-log sigmoid of every score gap that the rewards order."""

    def example(self, encoder, record):
        judged = "chosen" in record and "rewards" not in record  # al-label-ai's verdict on its completions
        if "completions" in record and not judged:
            records.require_completions(record, "rewards")
            completions, rewards = record["completions"], record["rewards"]
        else:
            records.require(record, "prompt", "chosen", "rejected")
            completions, rewards = [record["chosen"], record["rejected"]], [1, 0]
            record = {name: value for name, value in record.items() if name not in records.ALIGNED}
        if len(set(rewards)) == 1:
            raise Skip("rewards: all equal, no preference")
        example = encoder.encode(record, completions)
        example.values["rewards"] = [float(reward) for reward in rewards]
        return example

    def size(self, example):
        rewards = example.values["rewards"]
        return sum(one > other for one in rewards for other in rewards)

    def __call__(self, model, batch):
        from alignlib import losses

        scores, rewards = model.scores(batch), batch.values["rewards"]  # [E, K]
        best = scores.gather(1, rewards.argmax(1, keepdim=True))[:, 0]
        worst = scores.gather(1, rewards.argmin(1, keepdim=True))[:, 0]
        ordered = rewards[:, :, None] > rewards[:, None, :]  # [E, K, K]
        gaps = scores[:, :, None] - scores[:, None, :]
        right = (gaps > 0).float() + 0.5 * (gaps == 0).float()
        accuracy = (right * ordered).sum((1, 2)) / ordered.sum((1, 2))
        figures = {"accuracy": accuracy.sum(), "best_score": best.sum(), "worst_score": worst.sum()}
        return losses.ranking(scores, rewards).sum(), figures


@dataclass
class Classes:
    """The cross-entropy of a text's class."""

    names: list[str]

    def example(self, encoder, record):
        from alignlib.tokens import Example

        records.require(record, "text", "label")
        if record["label"] not in self.names:
            self.names.append(record["label"])
        example = Example(encoder.prompt({"prompt": ""}), [encoder.completion(record["text"])])
        example = encoder.fit(example)
        example.values["label"] = [self.names.index(record["label"])]
        return example

    def settle(self, examples, held_out):
        """The class names, sorted, so that a class's number does not depend on the order of the data."""
        order = sorted(self.names)
        if len(order) < 2:
            raise click.UsageError(f"one class only: {order[0]}")
        for example in (*examples, *held_out):
            example.values["label"] = [order.index(self.names[example.values["label"][0]])]
        self.names = order
        return order

    def size(self, example):
        return 1

    def __call__(self, model, batch):
        import torch.nn.functional as F

        logits, labels = model.logits(batch), batch.values["label"][:, 0]
        right = (logits.argmax(-1) == labels).float()
        return F.cross_entropy(logits, labels, reduction="sum"), {"accuracy": right.sum()}


if __name__ == "__main__":
    main()
