"""What every sampler is asked for and gives back, whatever runs the model. No torch here."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import click

from alignlib.decoding.conditions import Condition
from alignlib.models.encoding import Encoder
from alignlib.records import fields
from alignlib.records.jsonl import Record


@dataclass(frozen=True)
class Sampling:
    """How to draw; `temperatures` holds one a completion. Temperature 0 is greedy; top_k 0, top_p 1 keep all.

    contrastive: the share of unlikeness in contrastive search, which draws nothing; None: tokens are drawn.
    """

    max_new_tokens: int
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    temperatures: tuple[float, ...] = (1.0,)
    contrastive: float | None = None

    @property
    def logps_temperature(self) -> float:
        """The temperature of the log-probabilities: that of the draws; 1 where there are several, or it is 0."""
        return self.temperatures[0] if len(set(self.temperatures)) == 1 and self.temperatures[0] > 0 else 1.0


@dataclass(slots=True)
class Draw:
    """One completion: to be drawn, being drawn, done (`reason` is "stop" or "length")."""

    record: int  # its number in the whole input: part of the draw's name
    number: int  # which of the record's completions
    prompt: list[int]
    temperature: float
    ids: list[int] = field(default_factory=list)  # without what ended it
    end: int | None = None  # the token that ended it, if one did
    text: str = ""
    reason: str = ""
    where: str = ""  # what messages call the record
    logp: float | None = None  # nats, given the bare prompt; None where they are not wanted
    seconds: float = 0.0  # its share of the clock: a step's or a batch's time is divided among its rows


def encoder_limits(context: int, how: Sampling, max_prompt: int | None, keep_prompt: str,
                   on_long: str, whose: str = "the model", **written: Any) -> dict[str, Any]:
    """The arguments of an Encoder that leaves room for new tokens in `context`; `written`, how, go with them.

    Raises UsageError where no room is.
    """
    if how.max_new_tokens >= context:
        raise click.UsageError(f"--max-new-tokens {how.max_new_tokens}: {whose}'s context is {context} tokens")
    return {"max_length": min(context, 1 << 20), "keep": keep_prompt, "on_long": on_long,
            "max_prompt": min(max_prompt or context, context - how.max_new_tokens),
            "max_completion": how.max_new_tokens + 1, **written}


def prompt_ids(encoder: Encoder, record: Record, condition: Condition | None) -> list[int]:
    """The ids to sample from. Raises ValueError."""
    fields.require(record, "prompt")
    placed = (condition.text_for(record), condition.role) if condition else ("", "user")
    return encoder.fit(encoder.begin(record, *placed)).prompt


def stop_place(text: str, stop: tuple[str, ...]) -> int | None:
    """Where the first stop string in `text` begins."""
    return min((at for end in stop if (at := text.find(end)) >= 0), default=None)


def cut_at_stops(record: Record, stop: tuple[str, ...]) -> Record:
    """The record as if its completions had been sampled with these stop strings.

    Where that takes something from one of them, what is known of the whole ones goes: ids, log-probabilities, scores.
    """
    places = [stop_place(text, stop) for text in record["completions"]]
    if set(places) <= {None}:
        return record
    gone = {*fields.ALIGNED, "logps_temperature", "ref_logps_temperature", "rewards_temperature"} - {"temperatures"}
    kept = {name: value for name, value in record.items() if name not in gone or name == "finish_reasons"}
    kept["completions"] = [text[:place] for text, place in zip(record["completions"], places, strict=True)]
    if "finish_reasons" in kept:
        kept["finish_reasons"] = [reason if place is None else "stop"
                                  for reason, place in zip(record["finish_reasons"], places, strict=True)]
    return kept


def finish_text(draw: Draw, encoder: Encoder, stop: tuple[str, ...]) -> None:
    """Fill in the text of a done draw; at a stop string it ends, and its ids are those of what is left.

    A stop string may hold control tokens' names, which a text does not show.
    """
    tokens = encoder.tokens
    seen = draw.text = tokens.decode(draw.ids)
    if any(map(tokens.named.search, stop)):
        seen = tokens.decode(draw.ids, control=True)
    if (place := stop_place(seen, stop)) is not None:
        draw.text, draw.reason, draw.end = tokens.named.sub("", seen[:place]), "stop", None
        draw.ids = tokens.go_on(draw.text)


def stopping_ids(encoder: Encoder, stop: tuple[str, ...]) -> frozenset[int]:
    """The tokens that end a text: the model's ends, and control tokens that are stop strings."""
    return encoder.ends | {encoder.tokens.control[text] for text in stop if text in encoder.tokens.control}


def seed_for(seed: int, record: int, completion: int, bits: int) -> int:
    """A seed of so many bits that is this completion's own, in any company."""
    digest = hashlib.blake2b(f"{seed} {record} {completion}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 64 - bits
