"""How to look for a completion that a reward model likes: the settings of al-args, and files of them. No torch here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite

from alignlib.records import jsonl
from alignlib.records.jsonl import DataError, Record

# What each method reads besides `method`.
USES = {
    "greedy": ("weight", "topk", "margin"),
    "stochastic": ("weight", "topk", "margin", "temperature"),
    "next-token": ("weights", "topk", "top_p", "temperature"),
    "best-of-n": ("best_of", "temperature"),
    "segment": ("best_of", "temperature", "segment"),
}


@dataclass(frozen=True)
class Search:
    """Token by token, of the `topk` most likely ones, by logit + weight * reward (Khanov et al. 2024, 2402.01694):

    greedy       the best of them
    stochastic   a draw from softmax(that / temperature)

    By log-probabilities, of the language model + weights * of reward models, all tokens (Xu et al. 2025, 2410.08193):

    next-token   a draw from softmax(that / temperature), of the `topk` likeliest (0: of all), then of `top_p`

    Whole texts, `best_of` of them drawn by the language model at `temperature`, the one with the best reward kept:

    best-of-n    once (Nakano et al. 2021, 2112.09332)
    segment      after every `segment` tokens, from which all go on (blockwise best-of-K, Mudgal et al. 2023,
                 2310.17022; Li et al. 2024, 2406.16306, draw such segments one by one until one is good enough)
    """

    method: str = "greedy"
    weight: float = 1.0
    weights: tuple[float, ...] = ()  # one a --reward
    topk: int = 10
    top_p: float = 1.0
    temperature: float = 1.0
    margin: float | None = None  # tokens whose logit is further below the best one's are no candidates
    best_of: int = 8
    segment: int = 16

    @property
    def by_token(self) -> bool:
        return self.method in ("greedy", "stochastic")

    def as_record(self) -> Record:
        """What a record is marked with: the method and all that it reads."""
        said = {name: getattr(self, name) for name in USES[self.method]}
        return {"method": self.method, **{name: list(value) if name == "weights" else value
                                          for name, value in said.items()}}


def _number(value: object, least: float) -> str | None:
    """What a number should be instead; None for a good one."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= least
    bound = "" if least == -float("inf") else f" of at least {least:g}"
    return None if good else f"a number{bound}"


def _count(value: object) -> str | None:
    return None if type(value) is int and value >= 1 else "a whole number of at least 1"


def _share(value: object) -> str | None:
    return "a number above 0, 1 at most" if _number(value, 0) or not 0 < float(str(value)) <= 1 else None


CHECKS: dict[str, Callable[[object], str | None]] = {
    "method": lambda value: None if isinstance(value, str) and value in USES else f"one of {', '.join(USES)}",
    "weight": lambda value: _number(value, -float("inf")),
    "topk": lambda value: None if value == 0 and type(value) is int else _count(value),
    "top_p": _share,
    "weights": lambda value: None if isinstance(value, list) else "an array of numbers, one a --reward",
    "temperature": lambda value: _number(value, 0),
    "margin": lambda value: None if value is None else _number(value, 0),
    "best_of": _count,
    "segment": _count,
}


def _require(name: str, value: object, check: Callable[[object], str | None]) -> None:
    """Raises ValueError, naming the entry, for a value that should be something else."""
    if wanted := check(value):
        shown = f'"{value}"' if isinstance(value, str) else f"{value:g}" if type(value) in (int, float) else None
        raise ValueError(f"{name}: expected {wanted}, got {shown or jsonl.kind(value)}")


def read(file: str, plain: Search) -> list[Search]:
    """The settings in a file, one a line; what a line does not say is as in `plain`. Raises DataError."""
    searches: list[Search] = []
    for line in jsonl.read_all([file], lambda record: change(plain, record)):
        if line.data in searches:
            raise DataError(f"{line.where}: the same as an earlier line")
        searches.append(line.data)
    if not searches:
        raise DataError(f"{file}: no settings")
    return searches


def change(plain: Search, record: Record) -> Search:
    """`plain` with what `record` says. Raises ValueError, naming the entry."""
    for name, value in record.items():
        if name not in CHECKS:
            raise ValueError(f"{name}: no such setting; there are {', '.join(CHECKS)}")
        _require(name, value, CHECKS[name])
        for i, weight in enumerate(value if name == "weights" else ()):
            _require(f"weights[{i}]", weight, CHECKS["weight"])
    if (record.get("method", plain.method) == "next-token") != (plain.method == "next-token"):
        raise ValueError("method: next-token goes with --reward, the others with RM: not both in a run")
    if "weights" in record and len(record["weights"]) != len(plain.weights):
        raise ValueError(f"weights: {len(record['weights'])} for {len(plain.weights)} of --reward")
    said: Record = {name: tuple(value) if name == "weights" else value for name, value in record.items()}
    changed = replace(plain, **said)
    if not changed.topk and changed.method != "next-token":
        raise ValueError(f"topk: 0, all tokens, goes with method next-token, not with {changed.method}")
    for name in record:
        if name != "method" and name not in USES[changed.method]:
            raise ValueError(f"{name}: does nothing for method {changed.method}")
    return changed
