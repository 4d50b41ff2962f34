"""The records' fields: their names, shapes and checks. The only place that knows them (README has the table)."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from alignlib.records.jsonl import Record, kind

Check = Callable[[object, str], None]  # (value, path): raises ValueError that names the path


def _wrong(path: str, what: str, value: object) -> ValueError:
    return ValueError(f"{path}: expected {what}, got {kind(value)}")


def _string(value: object, path: str) -> None:
    if not isinstance(value, str):
        raise _wrong(path, "a string", value)


def _number(value: object, path: str) -> None:
    if type(value) not in (float, int):  # not bool
        raise _wrong(path, "a number", value)
    if not isfinite(value):
        raise ValueError(f"{path}: not finite")


def _integer(value: object, path: str) -> None:
    if type(value) is not int:
        raise _wrong(path, "an integer", value)


def _object(value: object, path: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(path, "an object", value)


def _finish_reason(value: object, path: str) -> None:
    if value not in ("stop", "length"):
        raise ValueError(f'{path}: expected "stop" or "length", got {value if isinstance(value, str) else kind(value)}')


def _boolean(value: object, path: str) -> None:
    if type(value) is not bool:
        raise _wrong(path, "a boolean", value)


def _winner(value: object, path: str) -> None:
    if type(value) is not int or value not in (0, 1):
        raise ValueError(f"{path}: expected 0, 1 or null, got {value if type(value) is int else kind(value)}")


def _probability(value: object, path: str) -> None:
    _number(value, path)
    if not 0 <= value <= 1:
        raise ValueError(f"{path}: expected 0 to 1, got {value}")


def _or_null(check: Check) -> Check:
    def checked(value: object, path: str) -> None:
        if value is not None:
            check(value, path)

    return checked


def _array(check: Check, empty: bool = True) -> Check:
    def array(value: object, path: str) -> None:
        if not isinstance(value, list):
            raise _wrong(path, "an array", value)
        if not value and not empty:
            raise ValueError(f"{path}: empty")
        try:
            for item in value:
                check(item, path)
        except ValueError:  # once more, to name the place: thousands of good items need no names
            for i, item in enumerate(value):
                check(item, f"{path}[{i}]")

    return array


def _messages(value: object, path: str) -> None:
    _array(_object, empty=False)(value, path)
    for i, message in enumerate(value):
        for name in ("role", "content"):
            if name not in message:
                raise ValueError(f"{path}[{i}].{name}: missing")
            _string(message[name], f"{path}[{i}].{name}")


STRING, NUMBER = {"type": "string"}, {"type": "number"}
MESSAGE = {"type": "object", "required": ["role", "content"], "properties": {"role": STRING, "content": STRING}}


def _list_of(items: dict, least: int = 0) -> dict:
    return {"type": "array", "items": items, **({"minItems": least} if least else {})}


@dataclass(frozen=True)
class Field:
    type: str  # in words, for the README
    schema: dict  # JSON Schema of the value
    check: Check
    by: str  # who writes it
    doc: str


_NUMBERS = ("list of numbers", _list_of(NUMBER), _array(_number))
_STRINGS_OR_NULL = ("list of strings / null", _list_of({"type": ["string", "null"]}), _array(_or_null(_string)))

FIELDS: dict[str, Field] = {
    "prompt": Field("string", STRING, _string, "al-data", "text that ends exactly where the completion begins"),
    "messages": Field(
        "list of {role, content}", _list_of(MESSAGE, 1), _messages, "al-data",
        "instead of `prompt`: rendered by the tokenizer's chat template",
    ),
    "chosen": Field("string", STRING, _string, "al-data, al-label-ai", "the preferred completion; SFT trains on it"),
    "rejected": Field("string", STRING, _string, "al-data, al-label-ai", "the dispreferred completion"),
    "completions": Field(
        "list of strings", _list_of(STRING, 1), _array(_string, empty=False), "al-sample, al-args",
        "K completions of the prompt; one may be empty, the list may not",
    ),
    "completion_ids": Field(
        "list of lists of integers", _list_of(_list_of({"type": "integer"})), _array(_array(_integer)),
        "al-sample --ids, al-args --ids",
        "their token ids, without end-of-sequence: text does not always encode back to them",
    ),
    "finish_reasons": Field(
        'list of "stop" / "length"', _list_of({"enum": ["stop", "length"]}), _array(_finish_reason),
        "al-sample, al-args", 'why each completion ended; "length" = cut, gets no end-of-sequence',
    ),
    "rewards": Field(*_NUMBERS, "al-score, al-args, al-pref2rw", "one a completion, higher is better"),
    "rewards_temperature": Field(
        "number", NUMBER, _number, "al-score --calibrated", "what `rewards` were divided by, where not 1"
    ),
    "logps": Field(
        *_NUMBERS, "al-score --logps, al-sample --logps",
        "sum log-probability (nats) of each completion given the bare prompt, no top-p, under a policy",
    ),
    "ref_logps": Field(*_NUMBERS, "al-score --as-field ref_logps", "the same under the reference"),
    "logps_temperature": Field(
        "number", NUMBER, _number, "al-score --temperature", "what the logits of `logps` were divided by, where not 1"
    ),
    "ref_logps_temperature": Field(
        "number", NUMBER, _number, "al-score --temperature", "the same for `ref_logps`"
    ),
    "perplexities": Field(*_NUMBERS, "al-score --perplexity", "exp of the mean negative log-probability a token"),
    "winner": Field(
        "0 / 1 / null", {"enum": [0, 1, None]}, _or_null(_winner), "al-label-ai",
        "which of two completions a judge prefers; null: a tie, orders that disagree, or `unparsed`",
    ),
    "win_probability": Field(
        "number", NUMBER, _probability, "al-data alpaca-eval", "a judge's probability that the first of two is better"
    ),
    "human_winner": Field(
        "0 / 1 / null", {"enum": [0, 1, None]}, _or_null(_winner), "al-data --only judge",
        "which of two completions people prefer; null: a tie",
    ),
    "orders_agree": Field(
        "boolean / null", {"type": ["boolean", "null"]}, _or_null(_boolean), "al-label-ai",
        "whether both orders of the two got one verdict (a tie is one); null where one was asked, or is unparsed",
    ),
    "feedbacks": Field(
        *_STRINGS_OR_NULL, "al-label-ai", "a judge's category, attributes or words, one a completion; null: unparsed"
    ),
    "scores": Field(
        "list of numbers / null", _list_of({"type": ["number", "null"]}), _array(_or_null(_number)), "al-label-ai",
        "a judge's score, one a completion; null: unparsed",
    ),
    "analyses": Field(*_STRINGS_OR_NULL, "al-label-ai", "what a judge wrote before its feedback, one a completion"),
    "unparsed": Field(
        *_STRINGS_OR_NULL, "al-label-ai",
        "a judge's last answer where it could not be read, else null; one an order of two, or one a completion",
    ),
    "condition": Field(
        "string", STRING, _string, "al-sample", "text put before the prompt for sampling only; `prompt` stays bare"
    ),
    "pool": Field(
        "object", {"type": "object"}, _object, "al-train-alt", "mode and tags of the data pool that keeps the record"
    ),
    "temperatures": Field(*_NUMBERS, "al-sample", "what each completion was sampled at, where there are several"),
    "search": Field(
        "object", {"type": "object"}, _object, "al-args --grid", "the method that made the completions, its settings"
    ),
    "seconds": Field(*_NUMBERS, "al-args --time, al-sample --time",
                     "one a completion: its share of the clock while it was decoded"),
    "text": Field("string", STRING, _string, "al-data --labels", "a text to classify"),
    "label": Field("string", STRING, _string, "al-data --labels", "its class, for `al-train-rm --loss classify`"),
    "domain": Field("string", STRING, _string, "al-data", "preference domain"),
    "id": Field("string", STRING, _string, "anyone", "kept; else the record is known by its line number"),
}

# Lists with one entry a completion.
ALIGNED = ("completion_ids", "finish_reasons", "temperatures", "rewards", "logps", "ref_logps", "perplexities",
           "feedbacks", "scores", "analyses")

# What goes when the completions go: a verdict on them, too.
OF_COMPLETIONS = ("completions", *ALIGNED, "rewards_temperature", "logps_temperature", "ref_logps_temperature",
                  "search", "seconds", "pool", "winner", "win_probability", "human_winner", "orders_agree", "unparsed")


def without_completions(record: Record) -> Record:
    """The record without its completions and what goes with them; the other fields keep their order."""
    return {name: value for name, value in record.items() if name not in OF_COMPLETIONS}


def require(record: dict, *names: str) -> None:
    """Check that `record` has the fields, each of its type. "prompt" is had by `messages` as well.

    Raises ValueError naming the place: "completions[2]: expected a string, got null".
    """
    for name in names:
        if name == "prompt" and "messages" in record:
            name = "messages"
        if name not in record:
            raise ValueError(f"{name}: missing")
        FIELDS[name].check(record[name], name)


def check(record: dict, *names: str) -> None:
    """As `require`, for the fields that are there."""
    require(record, *(name for name in names if name in record))


def require_completions(record: dict, *names: str) -> None:
    """`require` prompt, completions and `names`; every list that goes with the completions has their length."""
    require(record, "prompt", "completions", *names)
    present = [name for name in ALIGNED if name in record]
    check(record, *present)
    for name in present:
        if len(record[name]) != len(record["completions"]):
            raise ValueError(
                f"{name}: {len(record[name])} entries for {len(record['completions'])} completions"
            )


LARGEST = 1.7e38  # half of float32's largest number, so that two of them differ by one


def require_float32(values: list[float], name: str) -> None:
    """Check that numbers, and what two of them differ by, are no infinity in a model's arithmetic."""
    for i, value in enumerate(values):
        if abs(value) > LARGEST:
            raise ValueError(f"{name}[{i}]: {value:g} is beyond {LARGEST:g}, half of float32's range")


def schema(reads: tuple[str, ...], may: tuple[str, ...], writes: tuple[str, ...] | str) -> dict:
    """The JSON Schema of what a command reads, the fields `may` only where they are there, and of what it writes.

    `writes` names fields that are added to the records, or says in words what is written instead of records.
    """
    plain = [name for name in reads if name != "prompt"]
    either = {"anyOf": [{"required": ["prompt"]}, {"required": ["messages"]}]} if "prompt" in reads else {}
    read = _properties(("prompt", "messages", *reads, *may) if "prompt" in reads else (*reads, *may))
    if isinstance(writes, str):
        output = {"type": "object", "description": writes}
    else:
        output = {"type": "object", "properties": {**read, **_properties(writes)}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "input": {"type": "object", "properties": read, "required": plain, **either},
        "output": output,
    }


def _properties(names: tuple[str, ...]) -> dict:
    return {name: {**FIELDS[name].schema, "description": FIELDS[name].doc} for name in names}


def table() -> str:
    """The README's table of fields, in Markdown."""
    rows = [f"| `{name}` | {f.type} | {f.by} | {f.doc} |" for name, f in FIELDS.items()]
    return "\n".join(["| field | type | written by | meaning |", "|---|---|---|---|", *rows])
