"""Align a policy with completions and their rewards: EXO, DPO and their relatives.

in    {"prompt": "Human: hi\\n\\nAssistant:", "completions": [" Hello!", " Hm"], "rewards": [1.3, -0.7]}
out   {"step": 1, "loss": 0.69, "margin": 0.0, "accuracy": 0.5, "kl": 0.0, "tokens_per_second": 9011, ...}   (the log)
pipe  al-sample sft -n 4 prompts.jsonl | al-score rm | al-train-exo sft --loss exo-rw -o exo > exo.log
"""

from dataclasses import dataclass
from functools import partial

import click

from alignlib.cli import options, paths
from alignlib.records import fields
from alignlib.training import command

PAIRS = ("exo-pref", "dpo-pref", "ipo", "robust")  # of two completions, the better one and the other
REWARDS = ("exo-rw", "dpo-rw")
SMOOTHED = ("exo-pref", "dpo-pref", "robust")
STUDY = ("dpo-pref", "ipo", "robust")


@options.command(("prompt", "completions", "rewards"), options.LOG,
                 may=("finish_reasons", "completion_ids", "ref_logps", "ref_logps_temperature", "chosen", "rejected"))
@click.argument("model")
@options.files
@command.options(lr=1e-6, batch_size=64)
@click.option("--loss", type=click.Choice([*PAIRS, *REWARDS]), default="exo-rw",
              help="exo: reverse KL, dpo: forward KL; -rw: to the rewards' distribution, -pref: to the better of two.")
@click.option("--beta-pi", type=options.Finite(min=0, min_open=True), default=0.5, help="Of the policy (DPO's beta).")
@click.option("--beta-r", type=options.Finite(min=0, min_open=True), default=0.5, help="Of the rewards (-rw).")
@click.option("--temperature", type=options.Finite(min=0, min_open=True), default=1.0,
              help="What policy's and reference's logits are divided by: the sampling temperature.")
@click.option("--num-contrastive", type=click.IntRange(min=2), help="Completions a group.  [default: all; 2 for pairs]")
@click.option("--ref", default="self", help="self: MODEL as it is now; ref_logps: that field; else a model.")
@click.option("--smoothing", type=options.Finite(0, 0.5, max_open=True), default=0.0, help="Share of wrong labels.")
@click.option("--reference-free", is_flag=True, help="Leave the reference out of the loss (dpo-pref, ipo, robust).")
@click.option("--importance", is_flag=True, help="Weigh a pair by pi / pi_ref of its worse half (dpo-pref, robust).")
@click.option("--sft-reg", type=options.Finite(min=0), default=0.0, help="Add this times -log pi of the better half.")
def main(model, files, recipe, loss, **how):
    """Align the policy MODEL with `completions` and their `rewards`, into the folder -o; the log goes to stdout.

    For pairs a judge's `chosen` among two completions does instead of rewards. Reads all input first.
    """
    refuse(loss, how)
    from alignlib.models import load
    from alignlib.training import loop
    from alignlib.training.reference import reference as compute_reference
    from alignlib.training.run_folder import Run

    summary = options.Summary()
    asked = {"command": "al-train-exo", "model": model, "model_files": paths.fingerprint(model), "loss": loss, **how}
    run = Run(recipe, asked)
    if run.complete:
        return
    policy = load.load_policy(run.start(model), recipe.device, recipe.dtype, train=True)
    ref = how["ref"]
    reference = policy  # another is computed as the policy is: rounding alone must not make them differ
    if ref not in ("self", "ref_logps"):
        reference = load.load_policy(ref, recipe.device, recipe.dtype, train=True)
    if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise click.UsageError(f"--ref {ref}: its tokenizer is not that of {model}")
    encoder = load.encoder_for(policy, **recipe.limits)
    objective = Contrast(loss, **how)
    examples, held_out = loop.read(files, lambda record: objective.example(encoder, record), run)
    if ref == "self":
        loop.start(policy, examples, recipe, run)
    if ref != "ref_logps":
        logps = partial(reference.logps, temperature=how["temperature"])
        compute_reference(reference, examples, recipe, run, logps, held_out)
        del logps
    del reference  # its numbers are all that training needs
    loop.fit(policy, examples, objective, recipe, run, held_out=held_out)
    summary.count(records=len(examples), skipped=run.skipped, **encoder.cut, tokens=run.tokens)
    summary.close()


def refuse(loss, how):
    """Combinations that would do nothing are mistakes."""
    for name, losses in {"smoothing": SMOOTHED, "reference_free": STUDY, "importance": ("dpo-pref", "robust"),
                         "sft_reg": PAIRS}.items():
        if how[name] and loss not in losses:
            raise click.UsageError(f"--{name.replace('_', '-')} does nothing for --loss {loss}, only for "
                                   f"{', '.join(losses)}")
    if loss in PAIRS and how["num_contrastive"] not in (None, 2):
        raise click.UsageError(f"--loss {loss} is about pairs: --num-contrastive is 2")


def judged(record):
    """The record with rewards 1 and 0 where al-label-ai has told which of its two completions is better."""
    verdict = [record.get("chosen"), record.get("rejected")]
    if record.get("completions") not in (verdict, verdict[::-1]) or None in verdict:
        return record
    return {**record, "rewards": [float(text == record["chosen"]) for text in record["completions"]]}


@dataclass
class Contrast:
    """A loss on groups of K' completions, from the policy's and the reference's sum log-probabilities."""

    loss: str
    beta_pi: float
    beta_r: float
    temperature: float
    num_contrastive: int | None
    ref: str
    smoothing: float
    reference_free: bool
    importance: bool
    sft_reg: float

    def example(self, encoder, record):
        stored = ["ref_logps"] if self.ref == "ref_logps" else []
        if self.loss in PAIRS and "rewards" not in record:
            record = judged(record)
        fields.require_completions(record, "rewards", *stored)
        rewards, width = record["rewards"], self.width(len(record["rewards"]))
        if len(rewards) < 2:
            raise ValueError("completions: one alone has nothing to be compared with")
        if len(rewards) % width:
            raise ValueError(f"completions: {len(rewards)} make no groups of {width}")
        if self.loss in PAIRS and any(rewards[i] == rewards[i + 1] for i in range(0, len(rewards), 2)):
            raise ValueError("rewards: a tie, no preference (al-pref2rw --to pref sorts them out)")
        example = encoder.encode(record, record["completions"])
        example.values["rewards"] = [float(reward) for reward in rewards]
        if stored:
            made_at = record.get("ref_logps_temperature", 1.0)
            if made_at != self.temperature:
                raise ValueError(f"ref_logps: made at temperature {made_at}, not {self.temperature}")
            example.values["ref_logps"] = [float(logp) for logp in record["ref_logps"]]
        return example

    def width(self, completions):
        return 2 if self.loss in PAIRS else self.num_contrastive or completions

    def size(self, example):
        return len(example.completions) / self.width(len(example.completions))

    def __call__(self, model, batch):
        logps, ref = model.logps(batch, self.temperature), batch.values["ref_logps"]  # [E, K]
        ratio, rewards = logps - ref, batch.values["rewards"]
        shape = (-1, self.width(batch.shape[1]))  # groups of K'
        loss = self.of(logps.view(shape), ratio.view(shape), rewards.view(shape))
        best, worst = rewards.argmax(1, keepdim=True), rewards.argmin(1, keepdim=True)
        moved = ratio.detach()
        margin = self.beta_pi * (moved.gather(1, best) - moved.gather(1, worst))[:, 0]
        accuracy = (margin > 0).float() + 0.5 * (margin == 0).float()
        # Of completions that the reference drew, the last is an estimate of KL(pi_ref || pi).
        figures = {"margin": margin.sum(), "accuracy": accuracy.sum(), "kl": -moved.mean(1).sum()}
        return loss.sum(), figures

    def of(self, logps, ratio, rewards):
        """The loss of each group: [G, K'] three times -> [G]."""
        from alignlib.training import losses

        if self.loss == "exo-rw":
            return losses.exo_rw(ratio, rewards, self.beta_pi, self.beta_r)
        if self.loss == "dpo-rw":
            return losses.dpo_rw(ratio, rewards, self.beta_pi, self.beta_r)
        order = rewards.argsort(1, descending=True)  # the preferred completion into column 0
        logps, ratio = logps.gather(1, order), ratio.gather(1, order)
        judged = logps if self.reference_free else ratio
        if self.loss == "exo-pref":
            loss = losses.exo_pref(judged, self.beta_pi, self.smoothing or None)
        elif self.loss == "dpo-pref":
            loss = losses.dpo_pref(judged, self.beta_pi, self.smoothing)
        elif self.loss == "ipo":
            loss = losses.ipo(judged, self.beta_pi)
        else:
            loss = losses.robust(judged, self.beta_pi, self.smoothing)
        if self.importance:
            loss = loss * losses.importance(ratio)
        return loss - self.sft_reg * logps[:, 0]


if __name__ == "__main__":
    main()
