"""al-train-rm --more: one reward model for several domains of preferences, as MORE weighs them."""

from collections import Counter
from dataclasses import dataclass, field

import click

from al_train_rm import Ranking, ordered
from alignlib import records
from alignlib.jsonl import DataError


@dataclass
class More(Ranking):
    """`Ranking`, its domains weighed by their gradients at the head, anew each step (see alignlib.more)."""

    alpha: float = 0.99
    normalize: str = "l2"
    no_reweight: bool = False
    names: list[str] = field(default_factory=list)  # of the domains
    state: dict = field(default_factory=dict)  # the momentum [T, H]
    held: list = field(default_factory=list)  # of the step's packs
    share: list[float] = field(default_factory=list)  # of the held-out examples that are the domain's

    def example(self, encoder, record):
        records.require(record, "domain")
        if record["domain"] not in self.names:
            self.names.append(record["domain"])
        example = super().example(encoder, record)
        example.values["domain"] = [self.names.index(record["domain"])] * len(example.completions)
        return example

    def settle(self, examples, held_out):
        """Number the domains by name. Raises DataError for those that say nothing."""
        order = sorted(self.names)
        for example in (*examples, *held_out):
            number = order.index(self.names[example.values["domain"][0]])
            example.values["domain"] = [number] * len(example.completions)
        self.names = order
        counts = Counter(example.values["domain"][0] for example in examples)
        tests = Counter(example.values["domain"][0] for example in held_out)
        self.share = [tests[number] / max(len(held_out), 1) for number in range(len(order))]
        for number, name in enumerate(order):
            if counts[number] < 2 and not tests[number]:
                what = "one record only" if counts[number] else "no record with two different scores"
                raise DataError(f"domain {name!r}: {what}")
        if len(counts) < 2:
            raise DataError(f"one domain only, {order[0]!r}: --more weighs several")

    def order(self, examples, size, batch_size):
        """--resample: as many of each domain. Raises UsageError."""
        from alignlib.order import Balanced

        groups = {}
        for number, example in enumerate(examples):
            groups.setdefault(example.values["domain"][0], []).append(number)
        if batch_size % len(groups):
            raise click.UsageError(f"--batch-size {batch_size}: not the same number of each of {len(groups)} domains")
        return Balanced(tuple(tuple(groups[number]) for number in sorted(groups)), size)

    def __call__(self, model, batch):
        import torch

        rewards, domain = batch.values["rewards"], batch.values["domain"][:, 0]
        scores, read, loss = self.ask(model, batch)
        accuracy, best, worst = self.figures(scores, rewards)
        figures = {"accuracy": accuracy.sum(), "best_score": best.sum(), "worst_score": worst.sum()}
        if torch.is_grad_enabled():
            self.hold(read.detach().float(), scores.detach(), rewards, domain, loss)
        else:
            for number, share in enumerate(self.share):
                if share:
                    figures[f"accuracy_{self.names[number]}"] = accuracy[domain == number].sum() / share
        return loss.sum(), figures

    def hold(self, read, scores, rewards, domain, loss):
        """Keep of a pack what the step's weights are made of: by domain, sums."""
        from torch.autograd import grad

        from alignlib import losses, more

        free = scores.requires_grad_()
        plain = losses.ranking(free, rewards, self.margin, self.soft)
        by_score, = grad(plain.sum(), free)
        zeros = scores.new_zeros(len(self.names))
        pairs = ordered(rewards).sum((1, 2)).to(zeros.dtype)
        right = self.figures(scores, rewards)[0] * pairs
        whose = domain.repeat_interleave(rewards.shape[1])
        gradients = more.head_gradients(by_score.flatten(), read, whose, len(zeros))
        sums = [zeros.index_add(0, domain, values.detach()) for values in (plain, right, pairs)]
        self.held.append((zeros.index_add(0, domain, loss), gradients.cpu(), [values.cpu() for values in sums]))

    def weigh(self, counts):
        """T * sum_t lambda_t * (the domain's sum of losses), over the T domains of the step."""
        import torch

        from alignlib import more, ranks

        loss = sum(part * counts for (part, *_), counts in zip(self.held, counts, strict=True))
        mine = [(gradients, *sums) for (_, gradients, sums), counts in zip(self.held, counts, strict=True) if counts]
        self.held = []
        every = [part for parts in ranks.gather(mine) for part in parts]
        gradients, sums, right, pairs = (sum(values) for values in zip(*every, strict=True))
        there = pairs > 0
        means, gradients = sums[there] / pairs[there], gradients[there] / pairs[there, None]
        found = torch.full_like(means, 1 / len(means))
        if not self.no_reweight:
            momentum = self.state.get("momentum", torch.zeros(len(pairs), gradients.shape[1]))
            momentum[there] = (1 - self.alpha) * momentum[there] + self.alpha * gradients
            self.state["momentum"] = momentum
            found = more.weights(more.normalised(momentum[there], means, self.normalize)).to(means.dtype)
        places = there.nonzero()[:, 0].tolist()
        self.found = {f"{what}_{self.names[place]}": value for what, values in
                      (("lambda", found), ("loss", means), ("accuracy", right[there] / pairs[there]))
                      for place, value in zip(places, values.tolist(), strict=True)}
        return len(found) * (found.to(loss.device) * loss[there.to(loss.device)]).sum()

    def stepped(self, entry):
        entry |= self.found
