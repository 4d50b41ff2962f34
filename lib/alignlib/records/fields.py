"""The records' fields: their names, shapes and checks. The only place that knows them; docs/records.md shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignlib.records.json_schema import Check, Schema, Types, array, check_for, in_words, sure_types
from alignlib.records.jsonl import Record

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
OBJECT: Schema = {"type": "object"}
CONTENT: Schema = {"anyOf": [{"type": ["string", "null"]}, array({"type": "object"}, 1)]}
MESSAGE: Schema = {"type": "object", "required": ["role"], "properties": {"role": STRING, "content": CONTENT}}
MESSAGES = array(MESSAGE, 1)
# Texts that may be given as a conversation, whose last turn they are (records.conversations).
TEXT: Schema = {"anyOf": [STRING, MESSAGES]}
WINNER: Schema = {"enum": [0, 1, None]}
NUMBERS = array(NUMBER)
STRINGS_OR_NULL = array({"type": ["string", "null"]})


@dataclass(frozen=True)
class Field:
    """A field of records. What it is stands in `schema` alone; its check and its words follow from there."""

    schema: Schema  # JSON Schema of the value
    by: str  # who writes it
    doc: str

    @property
    def type(self) -> str:
        """In words, for the table."""
        return in_words(self.schema)

    @cached_property
    def check(self) -> Check:
        return check_for(self.schema)


FIELDS: dict[str, Field] = {
    "prompt": Field(TEXT, "al-data", "text that ends exactly where the completion begins; or as `messages`"),
    "messages": Field(
        MESSAGES, "al-data",
        "instead of `prompt`: a conversation, rendered by the tokenizer's chat template; a last turn of the assistant "
        "is the answer, `chosen` where there is none",
    ),
    "chosen": Field(TEXT, "al-data, al-label-ai", "the preferred completion; SFT trains on it"),
    "rejected": Field(TEXT, "al-data, al-label-ai", "the dispreferred completion"),
    "completions": Field(
        array(TEXT, 1), "al-sample, al-args",
        "K completions of the prompt; one may be empty, the list may not",
    ),
    "completion_ids": Field(
        array(array({"type": "integer"})), "al-sample --ids, al-args --ids",
        "their token ids, without end-of-sequence: text does not always encode back to them",
    ),
    "end_ids": Field(
        array({"type": ["integer", "null"]}), "al-sample --ids, al-args --ids",
        "the token that ended each completion, as it was drawn; null: none did",
    ),
    "finish_reasons": Field(
        array({"enum": ["stop", "length"]}), "al-sample, al-args",
        'why each completion ended; "length" = cut, gets no end-of-sequence',
    ),
    "rewards": Field(NUMBERS, "al-score, al-args, al-pref2rw", "one a completion, higher is better"),
    "rewards_temperature": Field(NUMBER, "al-score --calibrated", "what `rewards` were divided by, where not 1"),
    "logps": Field(
        NUMBERS, "al-score --logps, al-sample --logps",
        "sum log-probability (nats) of each completion given the bare prompt, no top-p, under a policy",
    ),
    "ref_logps": Field(NUMBERS, "al-score --as-field ref_logps", "the same under the reference"),
    "logps_temperature": Field(
        NUMBER, "al-sample, al-score --logps", "what the logits of `logps` were divided by, where not 1"
    ),
    "ref_logps_temperature": Field(NUMBER, "al-score --temperature", "the same for `ref_logps`"),
    "perplexities": Field(NUMBERS, "al-score --perplexity", "exp of the mean negative log-probability a token"),
    "winner": Field(
        WINNER, "al-label-ai",
        "which of two completions a judge prefers; null: a tie, orders that disagree, or `unparsed`",
    ),
    "win_probability": Field(
        {**NUMBER, "minimum": 0, "maximum": 1}, "al-data alpaca-eval",
        "a judge's probability that the first of two is better",
    ),
    "human_winner": Field(WINNER, "al-data --only judge", "which of two completions people prefer; null: a tie"),
    "orders_agree": Field(
        {"type": ["boolean", "null"]}, "al-label-ai",
        "whether both orders of the two got one verdict (a tie is one); null where one was asked, or is unparsed",
    ),
    "feedbacks": Field(
        STRINGS_OR_NULL, "al-label-ai", "a judge's category, attributes or words, one a completion; null: unparsed"
    ),
    "scores": Field(
        array({"type": ["number", "null"]}), "al-label-ai",
        "a judge's score, one a completion; null: unparsed",
    ),
    "analyses": Field(STRINGS_OR_NULL, "al-label-ai", "what a judge wrote before its feedback, one a completion"),
    "unparsed": Field(
        STRINGS_OR_NULL, "al-label-ai",
        "a judge's last answer about two completions where it could not be read, else null; one an order",
    ),
    "unparsed_each": Field(
        STRINGS_OR_NULL, "al-label-ai",
        "a judge's last answer about a completion alone where it could not be read, else null; one a completion",
    ),
    "condition": Field(STRING, "al-sample", "text put before the prompt for sampling only; `prompt` stays bare"),
    "pool": Field(OBJECT, "al-train-alt", "mode and tags of the data pool that keeps the record"),
    "temperatures": Field(NUMBERS, "al-sample", "what each completion was sampled at, where there are several"),
    "search": Field(OBJECT, "al-args --grid", "the method that made the completions, its settings"),
    "seconds": Field(NUMBERS, "al-args --time, al-sample --time",
                     "one a completion: its share of the clock while it was decoded"),
    "text": Field(STRING, "al-data --labels", "a text to classify"),
    "label": Field(
        {"anyOf": [STRING, {"type": "integer"}, {"type": "boolean"}]}, "al-data --labels",
        "its class, for `al-train-rm --loss classify`; one that is no string goes by its JSON. true or false: of its "
        "completions, for `al-train-exo --loss kto`",
    ),
    "domain": Field(STRING, "al-data", "preference domain"),
    "answer": Field({"anyOf": [STRING, NUMBER]}, "al-data gsm8k",
                    "what the reward `math` compares a completion's final answer with"),
    "id": Field(STRING, "anyone", "kept; else the record is known by its line number"),
}

SURE: dict[str, Types] = {name: sure_types(field.schema) for name, field in FIELDS.items()}  # no value needs a check
MISSING = object()

# Lists with one entry a completion.
ALIGNED = ("completion_ids", "end_ids", "finish_reasons", "temperatures", "rewards", "logps", "ref_logps",
           "perplexities", "feedbacks", "scores", "analyses")

# What goes when the completions go: a verdict on them, too.
OF_COMPLETIONS = ("completions", *ALIGNED, "rewards_temperature", "logps_temperature", "ref_logps_temperature",
                  "search", "seconds", "pool", "winner", "win_probability", "human_winner", "orders_agree", "unparsed",
                  "unparsed_each")


def without_completions(record: Record, *more: str) -> Record:
    """The record without its completions, what goes with them and `more`; the other fields keep their order."""
    return {name: value for name, value in record.items() if name not in OF_COMPLETIONS and name not in more}


def require(record: Mapping[str, Any], *names: str) -> None:
    """Check that `record` has the fields, each of its type. "prompt" is had by `messages` as well.

    Raises ValueError naming the place: "completions[2]: expected a string, got null".
    """
    if "messages" in record:
        names = tuple("messages" if name == "prompt" else name for name in names)
    for name in names:
        if type(record.get(name, MISSING)) not in SURE[name]:
            if name not in record:
                raise ValueError(f"{name}: missing{_cure(record, name)}")
            FIELDS[name].check(record[name], name)


PUBLIC = {"conversations", "conversation", "instruction", "question", "completion", "response", "output", "answer"}


def _cure(record: Mapping[str, Any], name: str) -> str:
    """Which command makes a missing field of those that are there; "" where none does."""
    cures = {
        "completions": (("chosen", "rejected"), "al-pref2rw makes them of chosen and rejected"),
        "rewards": (("completions",), "al-score gives them to completions"),
        "chosen": (("completions", "rewards"), "al-pref2rw --to pref takes it from completions and rewards"),
        "rejected": (("completions", "rewards"), "al-pref2rw --to pref takes it from completions and rewards"),
        "ref_logps": (("completions",), "al-score --logps --as-field ref_logps writes them"),
        "feedbacks": (("completions",), "al-label-ai writes them"),
        "scores": (("completions",), "al-label-ai writes them"),
    }
    needed, cure = cures.get(name, ((), ""))
    if needed and all(other in record for other in needed):
        return f"; {cure}"
    if name == "completions" and "chosen" in record:
        return "; al-pref2rw --to chosen makes them of chosen alone"
    if name in ("prompt", "chosen", "completions") and not PUBLIC.isdisjoint(record):
        return "; al-data chat makes records of the usual public forms"
    return ""


def check(record: Mapping[str, Any], *names: str) -> None:
    """As `require`, for the fields that are there."""
    require(record, *(name for name in names if name in record))


def require_completions(record: Mapping[str, Any], *names: str) -> None:
    """`require` prompt, completions and `names`; every list that goes with the completions has their length."""
    require(record, "prompt", "completions", *names)
    present = [name for name in record if name in ALIGNED]
    require(record, *(name for name in present if name not in names))
    count = len(record["completions"])
    for name in present:
        if len(record[name]) != count:
            raise ValueError(f"{name}: {len(record[name])} entries for {count} completions")


LARGEST = 1.7e38  # half of float32's largest number, so that two of them differ by one


def require_float32(values: list[float], name: str) -> None:
    """Check that numbers, and what two of them differ by, are no infinity in a model's arithmetic."""
    for i, value in enumerate(values):
        if abs(value) > LARGEST:
            raise ValueError(f"{name}[{i}]: {value:g} is beyond {LARGEST:g}, half of float32's range")


def schema(reads: tuple[str, ...], may: tuple[str, ...], writes: tuple[str, ...] | str) -> Schema:
    """The JSON Schema of what a command reads, the fields `may` only where they are there, and of what it writes.

    `writes` names fields that are added to the records, or says in words what is written instead of records.
    """
    plain = [name for name in reads if name != "prompt"]
    either: Schema = {"anyOf": [{"required": ["prompt"]}, {"required": ["messages"]}]} if "prompt" in reads else {}
    read = _properties(("prompt", "messages", *reads, *may) if "prompt" in reads else (*reads, *may))
    if isinstance(writes, str):
        output: Schema = {"type": "object", "description": writes}
    else:
        output = {"type": "object", "properties": {**read, **_properties(writes)}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "input": {"type": "object", "properties": read, "required": plain, **either},
        "output": output,
    }


def _properties(names: tuple[str, ...]) -> Schema:
    return {name: {**FIELDS[name].schema, "description": FIELDS[name].doc} for name in names}


def table() -> str:
    """The table of fields in docs/records.md."""
    rows = [f"| `{name}` | {f.type} | {f.by} | {f.doc} |" for name, f in FIELDS.items()]
    return "\n".join(["| field | type | written by | meaning |", "|---|---|---|---|", *rows])
