"""Conversations as a model's chat template writes them, and what ends a turn there.

    messages  user "Hi", then an answer "Hello."       (a template of ChatML's kind)
    prompt    <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n
    whole     <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello.<|im_end|>\\n
    end       <|im_end|>: the first control token behind an answer

A template is a program that comes with a folder: one that refuses a conversation makes its record bad, one that does
not end is cut off.
"""

import ctypes
import inspect
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click
import jinja2
import psutil

from alignlib.models.tokens import MARK, Tokens
from alignlib.records.fields import FIELDS
from alignlib.records.jsonl import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS, BYTES, CHARACTERS = 20.0, 2 << 30, 10_000_000  # for one conversation: time, memory, what comes of it
PAUSE = 0.2  # seconds between two looks at that
QUESTION, ANSWER = "A question?", "The answer."  # to see what comes before and behind one
SHOWN = 24  # characters of such
ASKED = [{"role": "user", "content": QUESTION}]
DATE = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
EPOCH = "SOURCE_DATE_EPOCH"  # reproducible-builds.org: seconds since 1970, for what would write today's date
Messages = Sequence[Mapping[str, Any]]


class ChatTemplate:
    """A tokenizer's chat template, or the one in `source`, under arguments of the user's.

    Of the templates that read a turn's content as parts (those of models that see), `in_parts` is true. One that asks
    for the date gets one date all its life, SOURCE_DATE_EPOCH's if that is set.

    Raises UsageError for what is no template, or leaves out what the user says.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", tokens: Tokens, source: str | None = None,
                 arguments: Mapping[str, Any] | None = None):
        self.tokenizer, self.tokens, self.arguments = tokenizer, tokens, dict(arguments or {})
        given: str = source or tokenizer.get_chat_template()
        self.source = DATE.sub(lambda call: f"{call[1]}{now().strftime(call[2])}{call[1]}", given)
        taken = {"messages", *inspect.signature(tokenizer.apply_chat_template).parameters} - {"tools", "documents"}
        if wrong := sorted(taken & set(self.arguments)):
            raise click.UsageError(f"--template-arg {wrong[0]}: not the template's to know")
        self.passed = set(re.findall(r"[A-Za-z_]\w*", self.source)) - taken - set(FIELDS)  # of a record, if it is there
        self.dated = "strftime_now" in given
        folder = "" if source else f"{tokenizer.name_or_path}: "
        self.probe = self._tried(False, folder)
        if QUESTION not in self.probe:
            in_parts = self._tried(True, folder)
            self.in_parts = QUESTION in in_parts
            self.probe = in_parts if self.in_parts else self.probe
            asked = "" if self.in_parts else self._tried(False, folder, None)  # one may write the last turn alone
            if asked and QUESTION not in asked:
                raise click.UsageError(f"{folder}the chat template leaves out what the user says")
        self.start, self.found, self.behind = self.probe.rpartition(ANSWER)  # of the answer

    def _tried(self, in_parts: bool, folder: str, answer: str | None = ANSWER) -> str:
        """A conversation; "" where so plain a one is refused, so that what ends a turn is not to be seen."""
        self.in_parts = in_parts
        try:
            return self.write(ASKED, answer)
        except ValueError as error:
            if isinstance(bad := error.__cause__, jinja2.TemplateSyntaxError):
                raise click.UsageError(f"{folder}the chat template: line {bad.lineno}: {bad.message}") from error
            return ""

    @cached_property
    def asks_the_date(self) -> bool:
        """Whether prompts would be others tomorrow: the template asks for the date, and nothing says which."""
        return self.dated and "date_string" not in self.arguments and EPOCH not in os.environ

    @cached_property
    def end(self) -> int | None:
        """The id that ends an answer: the first control token that the template puts behind it; None for none."""
        added = self.tokenizer.added_tokens_decoder
        ids = self.tokens.begin(self.behind, control=True) if self.found else []
        return next((i for i in ids if i in added), None)

    @cached_property
    def around(self) -> tuple[str, str]:
        """White space that is written before an answer, and between it and its end: of Llama 2's template " ", " "."""
        name = self.tokens.own.search(self.behind)
        if not self.found or self.end is None or name is None:
            return "", ""
        before, behind = self.start.removeprefix(self.asked), self.behind[:name.start()]
        return before if before.isspace() else "", behind if behind.isspace() else ""

    @cached_property
    def asked(self) -> str:
        """What is before an answer that is asked for; all that `start` is where no answer is to be seen."""
        return self.write(ASKED) if self.found else self.start

    @cached_property
    def leads(self) -> bool:
        """Whether it writes more than white space between a prompt and its answer: Qwen3's empty <think> block."""
        return self.start.startswith(self.asked) and bool(self.start.removeprefix(self.asked).strip())

    @cached_property
    def begins(self) -> tuple[str, str] | None:
        """The last of what is before an answer that is asked for, and of what is before one that is there.

        None where they are one, but for what `leads` to the latter: DeepSeek's has <think> in the first alone.
        """
        same = self.start.startswith(self.asked) or self.start.rstrip() == self.asked.rstrip()
        return None if same else (self.asked[-SHOWN:], self.start[-SHOWN:])

    def write(self, messages: Messages, answer: str | None = None, record: Record | None = None,
              marked: bool = False) -> str:
        """The conversation up to the answer, or with it; data's control tokens carry a MARK.

        marked: those of `messages` do already, and what there is without one is control. Fields of `record` that the
        template asks for (tools, documents, ...) reach it. Raises ValueError where it refuses them.
        """
        turns = list(messages) if answer is None else [*messages, {"role": "assistant", "content": answer}]
        turns = turns if marked else self.tokens.mark(turns)
        if self.in_parts:
            turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]}
                     if isinstance(turn.get("content"), str) else turn for turn in turns]
        given = {name: value for name, value in (record or {}).items() if name in self.passed}
        own = (record or {}).get("chat_template_kwargs")
        given |= own if isinstance(own, dict) else {}
        try:
            with cut_off():
                text = self.tokenizer.apply_chat_template(
                    turns, chat_template=self.source, add_generation_prompt=answer is None, tokenize=False,
                    **{**self.tokens.mark(given), **self.arguments})
        except CutOff as error:
            raise ValueError(f"messages: the chat template takes too {error.much}") from error
        except Exception as error:  # whatever a template's program raises
            words = " ".join(str(error).split())[:200]
            raise ValueError(f"messages: the chat template refuses them ({words})") from error
        if len(text) > CHARACTERS:
            raise ValueError(f"messages: the chat template makes {len(text):,} characters of them")
        return text

    def answered(self, messages: Messages, answer: str, record: Record) -> list[int] | None:
        """Ids from behind the prompt to the answer's last, as the template `leads` to it; its end is not among them.

        None where the conversation with the answer does not go on from the one up to it.
        """
        prompt, whole = (self.write(messages, said, record) for said in (None, answer))
        if not whole.startswith(prompt) or not whole.endswith(self.behind):
            return None
        inside = self.tokens.own.split(self.behind)[0] if self.end is not None else ""
        return self.tokens.rendered(whole[len(prompt):].removesuffix(self.behind) + inside, begins=False)

    def between(self, before: str, answer: str, after: str) -> list[int]:
        """Ids from behind an answer's end to the next answer's begin, of the conversation as written up to either.

        Raises ValueError where what is written up to the second does not go on from the first, its answer and its end.
        """
        if self.end is None:
            raise ValueError("messages: the chat template ends no answer with a control token: all but the last would "
                             "be learnt without an end (--turns last)")
        words, end = self.tokens.mark(answer), str(self.tokenizer.convert_ids_to_tokens(self.end))
        lead, trail = self.around
        starts = [f"{before}{lead}{said}{trail}{end}" for said in (words, words.strip())]  # a template may strip
        start = next(filter(after.startswith, starts), None)
        if start is None:
            raise ValueError("messages: the chat template writes earlier answers otherwise than the last one")
        return self.tokens.rendered(end + after.removeprefix(start), begins=False)[1:]

    def ids(self, messages: Messages, answer: str | None = None, record: Record | None = None) -> list[int]:
        """Ids of what `write` writes."""
        return self.tokens.rendered(self.write(messages, answer, record))

    def is_written(self, prompt: str, messages: Messages, record: Record) -> bool:
        """Whether a text is the conversation as the template writes it, up to the answer or its words."""
        text = self.write(messages, record=record).replace(MARK, "")
        bos = self.tokenizer.bos_token or ""
        return prompt.removeprefix(bos).strip() == text.removeprefix(bos).strip()


def now() -> datetime:
    """The time of SOURCE_DATE_EPOCH, else this one."""
    epoch = os.environ.get(EPOCH, "")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now()


class CutOff(BaseException):
    """Raised in a thread whose work takes too much; no handler of a template's own is to catch it."""

    much = "long"


class CutOffMemory(CutOff):
    much = "much memory"


_at_work: dict[int, tuple[float, int]] = {}  # threads with what they began at: the clock, the process's memory
_lock = threading.Lock()


@contextmanager
def cut_off() -> Iterator[None]:
    """In its body work is given up after SECONDS, or once it has taken BYTES; raises CutOff."""
    _watch_over()
    thread = threading.get_ident()
    with _lock:
        _at_work[thread] = time.monotonic(), _memory()
    try:
        yield
    finally:
        with _lock:  # whoever is cut off now raises here at the latest
            _at_work.pop(thread, None)


_watchers: list[threading.Thread] = []


def _watch_over() -> None:
    """See that a thread of this process looks after the others; a fork has none of its parent's."""
    if not (_watchers and _watchers[-1].is_alive()):
        _watchers.append(threading.Thread(target=_watch, daemon=True))
        _watchers[-1].start()


def _watch() -> None:
    while True:
        time.sleep(PAUSE)
        with _lock:
            for thread, (start, memory) in list(_at_work.items()):
                too_big = _memory() - memory > BYTES
                if too_big or time.monotonic() - start > SECONDS:
                    why = ctypes.py_object(CutOffMemory if too_big else CutOff)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), why)
                    del _at_work[thread]


def _memory() -> int:
    """Bytes of memory that this process has now; its peak would not do: that is inherited, and may be a model's."""
    return int(psutil.Process().memory_info().rss)
