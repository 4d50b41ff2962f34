"""Text to ids and back, where control tokens that are written in a text stay text.

A tokenizer takes "<|im_end|>" in a text for the token of that name, so that data could end its own turn. Here such
words in data are encoded like any others; only what a chat template itself wrote is control.
"""

import json
import re
from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "\ufdd0"  # before a control token's name in data, while a template is at work on it: no text has this character


class Tokens:
    """A tokenizer's ids of texts, at a text's begin and in its middle.

    ends  ids that end a text, besides the tokenizer's special ones: control tokens too, however they are marked
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", ends: Collection[int] = ()):
        self.tokenizer = tokenizer
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__}: needs a tokenizer with a tokenizer.json")
        added = tokenizer.added_tokens_decoder
        ids = {*tokenizer.all_special_ids, *ends, *(i for i, token in added.items() if token.special)}
        self.control = {str(tokenizer.convert_ids_to_tokens(i)): i for i in sorted(ids - {None})
                        if 0 <= i < len(tokenizer)}
        names = sorted((name for name in self.control if len(name) > 1), key=len, reverse=True)
        self.named = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self.own = re.compile(f"(?<!{MARK})({self.named.pattern})")  # not in data
        # Whether a tokenizer with a word-start mark puts it at a text's begin alone, or after control tokens too.
        self.marks_first_only = '"prepend_scheme":"first"' in tokenizer.backend_tokenizer.to_str().replace(" ", "")

    @cached_property
    def at_begin(self) -> Tokenizer:
        """Of a text that begins, control tokens' names and all."""
        return self._copy(continuing=False)

    @cached_property
    def inside(self) -> Tokenizer:
        """Of a text in the middle of another."""
        return self._copy(continuing=True)

    def _copy(self, continuing: bool) -> Tokenizer:
        spec = json.loads(self.tokenizer.backend_tokenizer.to_str())
        if continuing:
            spec = continued(spec)
        spec["truncation"] = spec["padding"] = None
        for token in spec["added_tokens"]:
            token["special"] = token["special"] or token["content"] in self.control
        tokenizer = Tokenizer.from_str(json.dumps(spec))
        tokenizer.encode_special_tokens = True  # as text
        return tokenizer

    def begin(self, text: str, control: bool = False) -> list[int]:
        """Ids of a text that begins, without special tokens around it; `control`: names in it are control tokens."""
        if control or not self.named.search(text):
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids
        return self.at_begin.encode(text, add_special_tokens=False).ids

    def go_on(self, text: str, control: bool = False) -> list[int]:
        """Ids of a text that follows others."""
        if not control:
            return self.inside.encode(text, add_special_tokens=False).ids
        return self.pieces(text, begins=False)

    def mark(self, value: Any) -> Any:
        """Data for a template, with a MARK before each control token's name."""
        if isinstance(value, str):
            return self.named.sub(lambda name: f"{MARK}{name[0]}", value.replace(MARK, ""))
        if isinstance(value, list):
            return [self.mark(entry) for entry in value]
        if isinstance(value, dict):
            return {name: self.mark(entry) for name, entry in value.items()}
        return value

    def rendered(self, text: str, begins: bool = True) -> list[int]:
        """Ids of what a template made of marked data."""
        if begins and MARK not in text:
            return self.begin(text, control=True)
        return self.pieces(text, begins)

    def pieces(self, text: str, begins: bool) -> list[int]:
        """As a tokenizer does it: control tokens first, then the texts between them; names with a MARK are text."""
        ids: list[int] = []
        parts = ["", *self.own.split(text), ""]  # names of control tokens at even places, texts between them
        added = self.tokenizer.added_tokens_decoder
        for place in range(1, len(parts), 2):
            before, text, after = parts[place - 1:place + 2]
            ids += [self.control[before]] if before else []
            if before and added[self.control[before]].rstrip:
                text = text.lstrip()
            if after and added[self.control[after]].lstrip:
                text = text.rstrip()
            marked = before and not self.marks_first_only or not before and begins  # with a word-start mark
            tokenizer = self.at_begin if marked else self.inside
            ids += tokenizer.encode(text.replace(MARK, ""), add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int], control: bool = False) -> str:
        """The text of ids that follow others; control tokens leave no text, or with `control` their names."""
        return self.inside.decode(ids, skip_special_tokens=not control)


def continued(spec: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json less what it does at the start of a text only.

    SentencePiece-like tokenizers put a word-start mark before a text and take it off when they decode; byte-level ones
    may add a space. A completion gets neither: its first token is what the model would emit.
    """
    return {**spec, "normalizer": _without(spec["normalizer"], "normalizers"),
            "pre_tokenizer": _without(spec["pre_tokenizer"], "pretokenizers"),
            "decoder": _without(spec["decoder"], "decoders")}


def _without(part: dict[str, Any] | None, children: str) -> dict[str, Any] | None:
    """A tokenizer's part less what it does at the start of a text only; None where nothing is left."""
    if part is None or part["type"] in ("Prepend", "Strip"):
        return None
    if part["type"] == "Sequence":
        kept = [kept for child in part[children] if (kept := _without(child, children))]
        return {**part, children: kept}
    changes = {"prepend_scheme": "never", "add_prefix_space": False}
    return {**part, **{name: value for name, value in changes.items() if name in part}}
