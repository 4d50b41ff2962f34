"""ALT's conditional objective."""

from dataclasses import dataclass, field

from alignlib.records.jsonl import DataError, Skip


@dataclass
class Conditional:
    """-log pi(y_t | condition, x) + kl_coef * KL(pi_ref || pi)_t - entropy_coef * H(pi)_t, a mean over tokens.

    `new` is the first of quark's tokens: the reference knows those before it.
    """

    encoder: object
    how: dict
    batch_size: int
    new: int | None = None
    reference: object = None
    place: object = None  # where the reference is asked
    seen: list = field(default_factory=list)  # by number, the Examples as the reference sees them

    sized = ("nll", "kl", "entropy")

    def __post_init__(self):
        self.state = {"kl_coef": self.how["kl_coef"]}

    def refer(self, policy, reference, place):
        self.reference, self.place = reference, place
        known = min(model.core.config.vocab_size for model in (policy, reference))
        self.new = min(known, self.new or known)

    def examples(self, made, run):
        """The Examples of a pool's conditioned records. Raises DataError."""
        found = []
        for record in made.training():
            try:
                found.append(self.example(record))
            except Skip:
                run.skipped += 1
            except ValueError as error:
                raise DataError(f"prompt {record['prompt'][:40]!r}: {error}") from error
        return found

    def example(self, record):
        from alignlib.models.encoding import Example

        if self.new and any(max(row, default=0) >= self.new for row in record.get("completion_ids", ())):
            # A policy may say one of quark's tokens in the middle of a text, where the reference cannot read it.
            record = {name: value for name, value in record.items() if name != "completion_ids"}
        example = self.encoder.encode(record, record["completions"], record["condition"])
        seen = example.prompt
        if self.how["ref_sees"] == "prompt":
            bare = self.encoder.begin(record)
            seen = self.encoder.shorten(bare.prompt, len(example.prompt), bare.head)
        if not seen:
            raise ValueError("empty, and the tokenizer has no token for the reference to begin with")
        example.values["number"] = [len(self.seen)] * len(example.completions)
        self.seen.append(Example(seen, example.completions))
        return example

    def size(self, example):
        return sum(map(len, example.completions))

    def __call__(self, model, batch):
        import torch

        from alignlib.training import losses

        reference = None
        if self.reference:
            bare = self.reference.pack([self.seen[number] for number in batch.values["number"][:, 0].tolist()])
            with torch.no_grad(), self.reference.precision():
                reference = self.reference.logits, self.place.ask(lambda: self.reference.hidden(bare))[bare.sources]
        with model.precision():
            loss, parts = losses.conditional(
                model.logits, model.hidden(batch)[batch.sources], batch.targets, model.core.config.vocab_size,
                kl_coef=self.state["kl_coef"], entropy_coef=self.how["entropy_coef"], reference=reference,
                known=self.new)
        return loss.sum(), dict(zip(self.sized, parts.sum(0), strict=True))

    def stepped(self, entry):
        """Adapt the KL's coefficient, if there is a target for it; the log has the one that was used."""
        from alignlib.training import losses

        if target := self.how["kl_target"]:
            entry["kl_coef"] = self.state["kl_coef"]
            self.state["kl_coef"] = losses.adapted(entry["kl_coef"], entry["kl"], target, self.batch_size)
