"""A record becomes an Example: the prompt's ids once, and the ids of each of its completions.

Prompt and completion are encoded apart and joined as ids, so that training and scoring see what sampling saw:

    prompt  "Q: 2+2? A:"   [bos] Q : 2 + 2 ? A :
    " 4"    finished                              4 [eos]      trained on, to the eos
    " 4 or" cut                                   4 or         trained on; no eos
"""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignlib.records.jsonl import Record, Skip

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

KEEP = ("end", "start")
ON_LONG = ("truncate", "skip", "fail")


@dataclass(slots=True)
class Example:
    """One prompt with its K completions, as token ids; a finished completion ends with its end-of-sequence."""

    prompt: list[int]
    completions: list[list[int]]
    values: dict[str, list[float]] = field(default_factory=dict)  # one number a completion: rewards, ref_logps
    head: int = field(default=0, compare=False)  # ids that a cut leaves at the prompt's start: BOS, a condition's

    @property
    def length(self) -> int:
        """Tokens in a row that holds the prompt once and every completion."""
        return len(self.prompt) + sum(map(len, self.completions))


class TooLong(ValueError):
    """A record longer than the limits, where --on-long is fail."""


def continuation_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    """A `tokenizers.Tokenizer` that encodes and decodes text in the middle of a text.

    SentencePiece-like tokenizers put a word-start mark before a text and take it off when they decode;
    byte-level ones may add a space. A completion gets neither: its first token is what the model would emit.
    Raises ValueError for a tokenizer in Python only.
    """
    from tokenizers import Tokenizer

    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__}: needs a tokenizer with a tokenizer.json")
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["normalizer"] = _without(spec["normalizer"], "normalizers")
    spec["pre_tokenizer"] = _without(spec["pre_tokenizer"], "pretokenizers")
    spec["decoder"] = _without(spec["decoder"], "decoders")
    spec["truncation"] = spec["padding"] = None
    return Tokenizer.from_str(json.dumps(spec))


def _without(part: dict[str, Any] | None, children: str) -> dict[str, Any] | None:
    """A tokenizer's part less what it does at the start of a text only; None where nothing is left."""
    if part is None or part["type"] in ("Prepend", "Strip"):
        return None
    if part["type"] == "Sequence":
        kept = [kept for child in part[children] if (kept := _without(child, children))]
        return {**part, children: kept}
    changes = {"prepend_scheme": "never", "add_prefix_space": False}
    return {**part, **{name: value for name, value in changes.items() if name in part}}


class Encoder:
    """Records to Examples, for one tokenizer and its limits.

    max_length      tokens of the prompt and its longest completion together
    max_prompt      tokens of the prompt; None: what the completions leave
    max_completion  tokens of a completion, end-of-sequence included; None: what the prompt leaves, at least half
    keep            which end of a too long prompt stays
    on_long         "truncate" (counted in `cut`), "skip" or "fail"
    eos             whether a finished completion gets its end-of-sequence (reward models read without)
    rows            how many tokens the model has embeddings of; None: of all
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, max_prompt: int | None = None,
                 max_completion: int | None = None, keep: str = "end", on_long: str = "truncate", eos: bool = True,
                 rows: int | None = None):
        self.tokenizer, self.inner = tokenizer, continuation_tokenizer(tokenizer)
        self.max_length, self.max_prompt = max_length, max_prompt or max_length
        self.max_completion = max_completion
        self.keep, self.on_long, self.rows = keep, on_long, rows
        self.eos = tokenizer.eos_token_id if eos else None
        self.cut = {"prompts_cut": 0, "completions_cut": 0}
        self.bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
        probe = tokenizer("a")["input_ids"]
        self.adds_bos = bool(probe) and probe[0] == self.bos
        # The tokenizers of BERT and its like end every text with a [SEP], and their models want it there.
        self.closing = [i for i in probe[-1:] if i == tokenizer.sep_token_id]
        if eos and self.eos is None:
            raise ValueError("the tokenizer has no end-of-sequence token")

    def prompt(self, record: Record, condition: str = "") -> list[int]:
        """Ids of the prompt (or of the rendered messages) under a condition, with one BOS if the tokenizer adds one."""
        if condition and "messages" in record:
            raise ValueError("messages: a condition goes before a plain prompt only")
        text = condition + record["prompt"] if "messages" not in record else self.render(record["messages"])
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        # Without a token before it, a first token has no probability: an empty prompt gets a BOS from any tokenizer.
        if (self.adds_bos or not ids) and self.bos is not None and ids[:1] != [self.bos]:
            ids = [self.bos, *ids]
        return self.embedded(ids)

    def embedded(self, ids: list[int]) -> list[int]:
        """The ids. Raises ValueError for one that the model has no row for: a token added to its tokenizer alone."""
        if self.rows is not None and max(ids, default=0) >= self.rows:
            new = next(i for i in ids if i >= self.rows)
            token = self.tokenizer.convert_ids_to_tokens(new)
            raise ValueError(f"token {new} ({token}) has no row in the model, which knows {self.rows} tokens")
        return ids

    def begin(self, record: Record, condition: str = "") -> Example:
        """An Example of the prompt alone, whose condition stays when it is cut."""
        ids = self.prompt(record, condition)
        bos = int(bool(ids) and ids[0] == self.bos)
        if not condition:
            return Example(ids, [], head=bos)
        text = self.tokenizer(condition + record["prompt"], add_special_tokens=False, return_offsets_mapping=True)
        covered = sum(start < len(condition) for start, _ in text["offset_mapping"])
        return Example(ids, [], head=len(ids) - len(text["input_ids"]) + covered)

    def render(self, messages: list[Record]) -> str:
        """The messages by the tokenizer's chat template, up to the answer. Raises ValueError where it has none."""
        if not self.tokenizer.chat_template:
            raise ValueError("messages: the tokenizer has no chat template")
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def completion(self, text: str, finished: bool = True, ids: list[int] | None = None) -> list[int]:
        """Ids of a completion; stored `ids` are taken if they are this tokenizer's and say the same."""
        if ids is None or not self.can_decode(ids) or self.decode(ids) != text:
            ids = self.inner.encode(text, add_special_tokens=False).ids
        if self.closing:
            ids = [*ids, *self.closing]
        elif finished and self.eos is not None:
            ids = [*ids, self.eos]
        return self.embedded(ids)

    def can_decode(self, ids: list[int]) -> bool:
        size = self.inner.get_vocab_size()
        return all(0 <= i < size for i in ids)

    def decode(self, ids: list[int]) -> str:
        """The text of ids that follow others; special tokens leave no text."""
        return self.inner.decode(ids, skip_special_tokens=True)

    def encode(self, record: Record, completions: list[str], condition: str = "") -> Example:
        """The Example of a record whose `prompt`, `finish_reasons` and `completion_ids` go with `completions`."""
        reasons = record.get("finish_reasons") or ["stop"] * len(completions)
        stored = record.get("completion_ids") or [None] * len(completions)
        rows = [self.completion(text, reason == "stop", ids)
                for text, reason, ids in zip(completions, reasons, stored, strict=True)]
        prompt = self.begin(record, condition)
        return self.fit(Example(prompt.prompt, rows, head=prompt.head))

    def fit(self, example: Example) -> Example:
        """Cut to the limits: completions lose their right end, then the prompt its far one."""
        limit = self.completion_limit(len(example.prompt))
        rows = [self.shorten_completion(row, limit) for row in example.completions]
        room = min(self.max_prompt, self.max_length - max(map(len, rows), default=0))
        prompt = self.shorten(example.prompt, max(room, 1), example.head)
        if not prompt and not all(rows or [[]]):
            raise ValueError("an empty text, and the tokenizer has no token to begin one with")
        cut_rows = sum(len(row) < len(whole) for row, whole in zip(rows, example.completions, strict=True))
        cut_prompt = len(prompt) < len(example.prompt)
        if cut_rows or cut_prompt:
            longest = max(map(len, example.completions), default=0)
            self.too_long(f"{len(example.prompt)} prompt and {longest} completion tokens, "
                          f"limits {max(room, 1)} and {limit}")
            self.cut["prompts_cut"] += cut_prompt
            self.cut["completions_cut"] += cut_rows
        return Example(prompt, rows, example.values, example.head)

    def shorten(self, prompt: list[int], room: int, head: int) -> list[int]:
        """At most `room` ids of the prompt, its first `head` among them. Raises TooLong or Skip where they are more."""
        if len(prompt) <= room:
            return prompt
        if head > room:
            what = f"{head} tokens of a condition, {room} for the prompt"
            self.too_long(what)
            raise TooLong(f"too long: {what}")  # nor is a condition truncated
        if self.keep == "start":
            return prompt[:room]
        return [*prompt[:head], *prompt[len(prompt) - room + head:]]

    def completion_limit(self, prompt: int) -> int:
        """Tokens that a completion may have after a prompt of that many; one of the prompt stays in any case."""
        left = self.max_length - min(prompt, self.max_prompt)
        return min(self.max_completion or max(left, self.max_length // 2, 1), max(self.max_length - 1, 1))

    def shorten_completion(self, row: list[int], limit: int) -> list[int]:
        """The first ids of a completion; what closes an encoder's text stays at its end."""
        if len(row) <= limit:
            return row
        return [*row[:limit - len(self.closing)], *self.closing]

    def too_long(self, what: str) -> None:
        """Raises Skip or TooLong, as `on_long` has it; goes on where it is "truncate"."""
        if self.on_long == "skip":
            raise Skip(f"too long: {what}")
        if self.on_long == "fail":
            raise TooLong(f"too long: {what}")
