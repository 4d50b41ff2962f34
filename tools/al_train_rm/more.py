"""al-train-rm --more: one reward model for several domains of preferences, as MORE weighs them."""

import sys
from collections import Counter
from dataclasses import dataclass, field

import click

from al_train_rm import Ranking, ordered
from alignlib.records import fields
from alignlib.records.jsonl import DataError


@dataclass
class More(Ranking):
    """`Ranking`, its domains weighed by their gradients at the head, anew each step (see min_norm)."""

    alpha: float = 0.99
    normalize: str = "l2"
    no_reweight: bool = False
    names: list[str] = field(default_factory=list)  # of the domains
    state: dict = field(default_factory=dict)  # the momentum [T, H]
    held: list = field(default_factory=list)  # of the step's packs
    shares: dict[int, tuple[float, float]] = field(default_factory=dict)  # of the held-out examples, of their pairs
    sized: tuple[str, ...] = ()

    def example(self, encoder, record):
        fields.require(record, "domain")
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
        self.expect(held_out)
        counts = Counter(example.values["domain"][0] for example in examples)
        for number, name in enumerate(order):
            if counts[number] == 1:
                raise DataError(f"domain {name!r}: one record only with two different scores is left")
            if not counts[number] and number not in self.shares:
                raise DataError(f"domain {name!r}: no record with two different scores is left")
        if len(counts) < 2:
            (only,) = counts
            raise DataError(f"one domain only, {order[only]!r}: --more weighs several")
        for number in self.shares.keys() - counts.keys():
            print(f"warning: domain {order[number]!r}: evaluated, but nothing to train on", file=sys.stderr)

    def expect(self, held_out):
        """What part of an evaluation each domain is: means over examples or pairs are told by domain too."""
        records, pairs = Counter(), Counter()
        for example in held_out:
            number = example.values["domain"][0]
            records[number] += 1
            pairs[number] += self.size(example)
        self.shares = {number: (records[number] / records.total(), pairs[number] / pairs.total())
                       for number in sorted(records)}
        self.sized = tuple(f"loss_{self.names[number]}" for number in self.shares)

    def order(self, examples, size, batch_size):
        """--resample: as many of each domain. Raises UsageError."""
        from alignlib.training.batches import Balanced

        groups = {}
        for number, example in enumerate(examples):
            groups.setdefault(example.values["domain"][0], []).append(number)
        if batch_size % len(groups):
            raise click.UsageError(f"--batch-size {batch_size}: not the same number of each of {len(groups)} domains")
        return Balanced(tuple(tuple(groups[number]) for number in sorted(groups)), size)

    def __call__(self, model, batch):
        import torch

        rewards, domain = batch.values["rewards"], batch.values["domain"][:, 0]
        scores, read, loss, nll = self.ask(model, batch)
        figures, added = self.figures(scores, rewards, nll), self.added(nll, rewards).sum()
        sums = {name: values.sum() for name, values in figures.items()}
        if torch.is_grad_enabled():
            accuracy = figures["accuracy"].detach()
            self.hold(read.detach().float(), scores.detach(), rewards, domain, accuracy, loss, added)
        else:
            for number, (records, pairs) in self.shares.items():
                sums[f"accuracy_{self.names[number]}"] = figures["accuracy"][domain == number].sum() / records
                sums[f"loss_{self.names[number]}"] = loss[domain == number].sum() / pairs
        return loss.sum() + added, sums

    def hold(self, read, scores, rewards, domain, accuracy, loss, added):
        """Keep of a pack what the step's loss and weights are made of: by domain, sums."""
        import torch
        from torch.autograd import grad

        from al_train_rm import min_norm
        from alignlib.training import losses

        free = scores.requires_grad_()
        plain = losses.ranking(free, rewards, self.margin, self.soft)
        by_score, = grad(plain.sum(), free)
        zeros = scores.new_zeros(len(self.names))
        pairs = ordered(rewards).sum((1, 2)).to(zeros.dtype)
        whose = domain.repeat_interleave(rewards.shape[1])
        gradients = min_norm.head_gradients(by_score.flatten(), read, whose, len(zeros))
        sums = [zeros.index_add(0, domain, values.detach()).cpu()
                for values in (plain, pairs, accuracy, torch.ones_like(accuracy))]
        self.held.append((zeros.index_add(0, domain, loss), added, gradients.cpu(), sums))

    def weigh(self, counts):
        """T * sum_t lambda_t * (the domain's sum of ranking losses), over the T domains of the step; what is added."""
        import torch

        from al_train_rm import min_norm
        from alignlib import ranks

        loss = sum(part * counts for (part, *_), counts in zip(self.held, counts, strict=True))
        added = sum(part * counts for (_, part, *_), counts in zip(self.held, counts, strict=True))
        mine = [(gradients, *sums) for (*_, gradients, sums), counts in zip(self.held, counts, strict=True) if counts]
        self.held = []
        every = [part for parts in ranks.gather(mine) for part in parts]
        gradients, sums, pairs, accuracy, records = (sum(values) for values in zip(*every, strict=True))
        there = pairs > 0
        means, gradients = sums[there] / pairs[there], gradients[there] / pairs[there, None]
        found = torch.full_like(means, 1 / len(means))
        if not self.no_reweight:
            momentum = self.state.get("momentum", torch.zeros(len(pairs), gradients.shape[1]))
            momentum[there] = (1 - self.alpha) * momentum[there] + self.alpha * gradients
            self.state["momentum"] = momentum
            found = min_norm.weights(min_norm.normalised(momentum[there], means, self.normalize)).to(means.dtype)
        places = there.nonzero()[:, 0].tolist()
        self.found = {f"{what}_{self.names[place]}": value for what, values in
                      (("lambda", found), ("loss", means), ("accuracy", accuracy[there] / records[there]))
                      for place, value in zip(places, values.tolist(), strict=True)}
        return len(found) * (found.to(loss.device) * loss[there.to(loss.device)]).sum() + added

    def stepped(self, entry):
        entry |= self.found
