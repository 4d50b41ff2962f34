"""What models read of a record: token ids."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Example:
    """One prompt with its K completions, as token ids; a finished completion ends with its end's.

    values      one number a completion: rewards, ref_logps
    given       places in the only completion that are read and not predicted: what stands between several answers
    head, tail  ids that a cut leaves at the prompt's start (BOS, a condition's) and at its end (from a condition on)
    bare        the prompt without its condition, for a reference that reads it so
    """

    prompt: list[int]
    completions: list[list[int]]
    values: dict[str, list[float]] = field(default_factory=dict)
    given: frozenset[int] = frozenset()
    head: int = field(default=0, compare=False)
    tail: int = field(default=0, compare=False)
    bare: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens in a row that holds the prompt once and every completion."""
        return len(self.prompt) + sum(map(len, self.completions))
