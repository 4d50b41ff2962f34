"""Figures of many records under one model, which is asked in packs; they come in the records' order.

    scorer = PackScorer(policy, lambda batch: {"logps": policy.logps(batch)}, pack_tokens=16384)
    for lines in stream.windows(WINDOW):
        for line, figures in zip(lines, scorer.score([line.data for line in lines]), strict=True):
            stream.write(line, {**line.record, **figures})
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from alignlib.models.example import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import Model

# Records whose packs are made together. Sums of floats depend on the batch they are made in: a window is cut by record
# number, and a resumed run recomputes the whole of the one it was killed in.
WINDOW = 32


class PackScorer:
    """Asks `model` for what `measure` computes of a Pack: {name: [E, K]}.

    pack_tokens  on the device at once
    tokens       that the model has read so far, without padding
    """

    def __init__(self, model: Model, measure: Callable[[Pack], Mapping[str, Tensor]], pack_tokens: int):
        self.model, self.measure, self.pack_tokens, self.tokens = model, measure, pack_tokens, 0

    def score(self, examples: Sequence[Example]) -> list[dict[str, list[float]]]:
        """The figures of each example, one a completion, by name: the same packs for the same examples."""
        figures: list[dict[str, list[float]]] = [{} for _ in examples]
        for indices in self.model.plan(examples, range(len(examples)), self.pack_tokens):
            batch = self.model.pack([examples[i] for i in indices])
            self.tokens += batch.tokens
            with torch.inference_mode():
                for name, values in self.measure(batch).items():  # [E, K]
                    for i, row in zip(indices, values.tolist(), strict=True):
                        figures[i][name] = row
        return figures
