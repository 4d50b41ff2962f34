"""A record becomes an Example: the prompt's ids once, and the ids of each of its completions.

Prompt and completion are encoded apart and joined as ids, so that training and scoring see what sampling saw:

    prompt  "Q: 2+2? A:"   [bos] Q : 2 + 2 ? A :
    " 4"    finished                              4 [end]      trained on, to the end
    " 4 or" cut                                   4 or         trained on; no end

A completion ends with the token that was drawn as its end, where the record has that; else with the tokenizer's
end-of-sequence, or, in a conversation, with the token that the chat template puts behind an answer.
"""

import sys
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from alignlib import ranks
from alignlib.models.chat import ChatTemplate
from alignlib.models.example import Example
from alignlib.models.limits import Limits
from alignlib.models.tokens import MARK, Tokens
from alignlib.records.conversations import with_condition
from alignlib.records.jsonl import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Encoder(Limits):
    """Records to Examples, for one tokenizer and its limits.

    max_length ...  see Limits; `closing` is the tokenizer's
    eos             whether a finished completion gets its end (reward models read without)
    ends            what the model's generation configuration ends a text with, besides the tokenizer's end
    rows            how many tokens the model has embeddings of; None: of all
    template        a chat template instead of the tokenizer's; `template_args`, (name, value), reach either
    control_tokens  their names in plain prompts and in completions are those tokens, not text
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, max_prompt: int | None = None,
                 max_completion: int | None = None, keep: str = "end", on_long: str = "truncate", eos: bool = True,
                 ends: Collection[int] = (), rows: int | None = None, template: str | None = None,
                 template_args: Collection[tuple[str, Any]] = (), control_tokens: bool = False):
        super().__init__(max_length, max_prompt, max_completion, keep, on_long)
        self.tokenizer, self.rows, self.control = tokenizer, rows, control_tokens
        self.tokens, self.template = Tokens(tokenizer, ends), None
        if template or tokenizer.chat_template:
            self.template = ChatTemplate(tokenizer, self.tokens, template, dict(template_args))
            end = self.template.end
            if end is not None and end not in self.tokens.control.values():  # control, though it is not called special
                self.tokens = self.template.tokens = Tokens(tokenizer, (*ends, end))
        elif template_args:
            raise ValueError("--template-arg: the tokenizer has no chat template (--template FILE gives one)")
        self.eos: int | None = tokenizer.eos_token_id if eos else None
        self.bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
        probe, bare = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (True, False))
        # What it begins a text with: a BOS, nothing, or more than one token (GLM's [gMASK]<sop>).
        self.prefix = probe[:next((i for i in range(len(probe)) if probe[i:i + len(bare)] == bare), 0)]
        # The tokenizers of BERT and its like end every text with a [SEP], and their models want it there.
        self.closing = [i for i in probe[-1:] if i == tokenizer.sep_token_id]
        if eos and self.eos is None:
            raise ValueError(f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token; its "
                             "tokenizer_config.json should name one, as eos_token")
        if self.eos is not None and rows is not None and self.eos >= rows:
            raise ValueError(f"{tokenizer.name_or_path}: its tokenizer ends texts with token {self.eos} "
                             f"({tokenizer.eos_token}), and the model knows {rows} tokens")
        self.turn_end = (self.template and self.template.end or self.eos) if eos else None
        usual = (*ends, tokenizer.eos_token_id, self.template and self.template.end)
        self.ends = frozenset(i for i in usual if i is not None)  # any of them ends what is sampled

    # -- prompts -----------------------------------------------------------------------------------------

    def prompt(self, record: Record, condition: str = "", role: str = "user") -> list[int]:
        """Ids of the prompt, or of the conversation by its template, under a condition; one BOS where it is due."""
        return self.begin(record, condition, role).prompt

    def begin(self, record: Record, condition: str = "", role: str = "user") -> Example:
        """An Example of the prompt alone, whose condition stays when it is cut.

        A plain prompt begins as the tokenizer begins texts; a conversation has what its template writes.
        `role`: in whose turn of a conversation the condition stands, "user" or "system".
        """
        if "messages" in record:
            return self._begin_chat(record, condition, role)
        if record["prompt"] and self.template and not self.control:
            self.note("a plain prompt goes past it, and messages through it")
        text = condition + (record["prompt"] if self.control else self.tokens.mark(record["prompt"]))
        ids = self.tokens.rendered(text)
        covered = 0
        if condition and MARK in text:
            covered = len(self.tokens.rendered(condition))
        elif condition:
            offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            covered = sum(start < len(condition) for start, _ in offsets)
        # Without a token before it, a first token has no probability: an empty prompt gets a BOS from any tokenizer.
        before = self.prefix or ([self.bos] if not ids and self.bos is not None else [])
        begun = ids if ids[:len(before)] == before else [*before, *ids]
        head = len(begun) - len(ids) + covered if condition else self.head(begun)
        return Example(self.embedded(begun), [], head=head)

    def _begin_chat(self, record: Record, condition: str, role: str) -> Example:
        template, messages = self.chat_template(), record["messages"]
        if "prompt" in record and not template.is_written(record["prompt"], messages, record):
            raise ValueError("prompt: neither the user's first or last turn of messages, nor what the chat template "
                             "writes of them")
        if template.asks_the_date:
            self.note("it writes today's date, so that prompts are others tomorrow; SOURCE_DATE_EPOCH says which one, "
                      "or an argument of its own (--template-arg date_string=...)")
        marked = {**record, "messages": self.tokens.mark(messages)}
        if condition:
            marked = with_condition(marked, condition, role)
        text = template.write(marked["messages"], record=record, marked=True)
        ids = self.tokens.rendered(text)
        head, tail = self.head(ids), 0
        if condition:
            place = (str.find if role == "system" else str.rfind)(text, condition.strip())
            if place < 0:
                raise ValueError("messages: the chat template leaves the condition out")
            if role == "system":
                head = len(self.tokens.rendered(text[:place + len(condition.strip())]))
            else:
                tail = len(ids) - len(self.tokens.rendered(text[:place]))
        return Example(self.embedded(ids), [], head=head, tail=tail)

    def head(self, prompt: list[int]) -> int:
        """How many ids at a prompt's begin stay when it is cut: those that the tokenizer begins texts with."""
        begins = bool(self.prefix) and prompt[:len(self.prefix)] == self.prefix
        return len(self.prefix) if begins else int(prompt[:1] == [self.bos])

    def chat_template(self) -> ChatTemplate:
        """What writes conversations. Raises ValueError where there is none."""
        if self.template is None:
            raise ValueError("messages: the tokenizer has no chat template (--template FILE gives one)")
        return self.template

    def embedded(self, ids: list[int]) -> list[int]:
        """The ids. Raises ValueError for one that the model has no row for: a token added to its tokenizer alone."""
        if self.rows is not None and max(ids, default=0) >= self.rows:
            new = next(i for i in ids if i >= self.rows)
            token = self.tokenizer.convert_ids_to_tokens(new)
            raise ValueError(f"token {new} ({token}) has no row in the model, which knows {self.rows} tokens")
        return ids

    # -- completions -------------------------------------------------------------------------------------

    def completion(self, text: str, end: int | None = None, ids: list[int] | None = None,
                   around: tuple[str, str] = ("", "")) -> list[int]:
        """Ids of a completion and of its end; stored `ids` are taken if they can be this model's and say the same.

        around: white space that a template has before and behind an answer; where the text lacks it, it is put there.
        """
        if ids is None or not self.has_drawn(ids, text):
            before, behind = around
            text = text if text.startswith(before) else before + text
            if end is not None and self.ends_itself(text):
                text, end = text.rstrip(), None
            elif end is not None and not text.endswith(behind):
                text += behind
            ids = self.tokens.go_on(text, self.control)
        if self.closing:
            ids = [*ids, *self.closing]
        elif end is not None:
            ids = [*ids, end]
        return self.embedded(ids)

    def led_to(self, record: Record, text: str, end: int | None) -> list[int]:
        """Ids of an answer and its end as the chat template leads to it; none where it does not, visibly."""
        template = self.chat_template()
        if template.begins:
            asked, written = template.begins
            self.note(f"it asks for an answer behind {asked!r}, and writes one that is there behind {written!r}; here "
                      "both are read behind the former (--template-arg enable_thinking=false may make them one)")
        said = template.answered(record["messages"], text, record) if template.leads else None
        return self.embedded([*said, *([] if end is None else [end])]) if said else []

    def has(self, ids: list[int]) -> bool:
        """Whether they are the tokenizer's, or of rows that a model has beyond it: drawn, those leave no text."""
        most = max(self.rows or 0, self.tokens.inside.get_vocab_size())
        return all(0 <= i < most for i in ids)

    def has_drawn(self, ids: list[int], text: str) -> bool:
        """Whether stored ids can be this model's, and say the same as the text."""
        return self.has(ids) and self.tokens.decode(ids) == text

    def ends_itself(self, text: str) -> bool:
        """Whether a text whose control tokens are heeded has an end of its own; white space may follow it."""
        if not self.control:
            return False
        return text.rstrip().endswith(tuple(name for name, i in self.tokens.control.items() if i in self.ends))

    def ends_of(self, record: Record, number: int) -> list[int | None]:
        """What ends each of a record's completions: what was drawn, else what ends one that is not cut; None: nothing.

        An end that is no control token of this tokenizer, or stands beside ids that are not its, was another's: it says
        only that there was one.
        """
        usual = self.turn_end if "messages" in record else self.eos
        if usual is None:
            return [None] * number
        known = self.tokens.control.values()
        if ends := record.get("end_ids"):
            drawn = zip(record.get("completion_ids") or [None] * number, record.get("completions", ()), strict=False)
            mine = [ids is None or self.has_drawn(ids, text) for ids, text in drawn] or [True] * number
            return [end if end is None or end in known and own else usual for end, own in zip(ends, mine, strict=True)]
        reasons = record.get("finish_reasons") or ["stop"] * number
        return [usual if reason == "stop" else None for reason in reasons]

    def encode(self, record: Record, completions: list[str], condition: str = "", role: str = "user") -> Example:
        """The Example of a record whose prompt, `finish_reasons`, `completion_ids`, `end_ids` go with `completions`."""
        stored = record.get("completion_ids") or [None] * len(completions)
        ends = self.ends_of(record, len(completions))
        before, behind = self.chat_template().around if "messages" in record else ("", "")
        around = before, "" if "finish_reasons" in record else behind  # what was drawn has behind it what it has
        rows = [self.completion(*row, around) for row in zip(completions, ends, stored, strict=True)]
        if "messages" in record and "finish_reasons" not in record and not self.control:
            rows = [row if ids and self.has_drawn(ids, text) else self.led_to(record, text, end) or row
                    for row, text, end, ids in zip(rows, completions, ends, stored, strict=True)]
        return self.fit(replace(self.begin(record, condition, role), completions=rows))

    def encode_turns(self, record: Record, answer: str) -> Example:
        """The Example of a conversation whose every assistant's turn is learnt: all before the first is the prompt.

        A turn with the `weight` 0, as OpenAI's fine-tuning files have them, is read and not learnt.
        Each answer is encoded as `encode` would do it after what comes before; raises ValueError where the template
        writes earlier turns in another way than last ones, so that they are not what would be sampled.
        """
        messages = [*record["messages"], {"role": "assistant", "content": answer}]
        places = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not places[0]:
            raise ValueError("messages: begin with the assistant")
        template, first = self.chat_template(), self.begin({**record, "messages": messages[:places[0]]})
        row: list[int] = []
        given: set[int] = set()
        written = last = ""
        for i in places:
            before, text = template.write(messages[:i], record=record), messages[i].get("content") or ""
            read = template.between(written, last, before) if row else []
            ids = self.completion(text, self.turn_end, around=template.around)
            given |= set(range(len(row), len(row) + len(read) + len(ids) * (messages[i].get("weight") == 0)))
            row += read + ids
            written, last = before, text
        return self.fit(replace(first, completions=[row], given=frozenset(given)))

    def note(self, words: str) -> None:
        """Say once, of a model with a chat template, what becomes of plain prompts."""
        note(f"{self.tokenizer.name_or_path} has a chat template: {words}")


@cache
def note(words: str) -> None:
    """A note on stderr, once, from one process."""
    if ranks.first():
        print(f"note: {words}", file=sys.stderr)
