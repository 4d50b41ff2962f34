"""A judge behind an OpenAI-compatible server: every answer is kept as it comes, and none is paid for twice.

    judge = ServerJudge("gpt-x", Client(None, concurrency=16, timeout=300, retries=5), cache=Cache("judge.cache"), ...)
    for line, answers in judge.answers(stream): ...        # line.data: (record, its queries)
"""

import asyncio
import itertools
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from al_label_ai.answers import AnswerForm, Parts
from al_label_ai.cache import REFUSAL, Cache, Reply, request_key
from al_label_ai.modes import Answer
from al_label_ai.questions import Query, break_controls, packaged_text
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream
from alignlib.server.ahead import in_order
from alignlib.server.client import REFUSALS, Client
from alignlib.server.parameters import with_parameters
from alignlib.server.replies import Failure, NoAnswer, choice, usage

BYTES_A_TOKEN = 4  # where nobody has counted
LONGEST = 1_000_000  # characters of an answer, with its reasoning: no model is asked for as much
LOOKS = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds between looks whether another run has its answer
Messages = list[dict[str, str]]


class Prices(NamedTuple):
    """Of a million tokens, in whatever money; `budget` is how much of it this run may spend."""

    prompt: float = 0.0
    answer: float = 0.0
    budget: float = float("inf")

    def cost(self, prompt_tokens: int, tokens: int) -> float:
        """Of a call's prompt and answer."""
        return (prompt_tokens * self.prompt + tokens * self.answer) / 1e6


class ServerJudge:
    """A server's `model`.

    cache       where answers are kept; None: nowhere, and only calls that are in hand together are made once
    parameters  of the requests: temperature, max_tokens, ...; None takes one out
    structured  ask for the form's JSON schema, as long as the server takes one
    ask_again   how often an answer that cannot be read is asked for anew
    window      records in hand
    """

    def __init__(self, model: str, client: Client, *, cache: Cache | None, parameters: dict[str, Any], structured: bool,
                 ask_again: int, prices: Prices, window: int):
        self.model, self.client, self.cache, self.prices = model, client, cache, prices
        self.parameters, self.structured, self.ask_again, self.window = parameters, structured, ask_again, window
        self.pending: dict[str, asyncio.Future[Reply]] = {}  # the calls in hand
        self.stopped: Failure | None = None  # why no more calls are made
        self.spent = self.dearest = 0.0  # in all; for one call
        # Is it known whether the server takes a schema, what a call costs? The call that finds out holds the lock.
        self.schema_known, self.price_known = not structured, prices.budget == float("inf")
        self.probing = asyncio.Lock()
        self.hits, self.used = 0, {"prompt_tokens": 0, "tokens": 0}
        self.waited = False  # for another run
        client.allow = self.allow

    def prepare(self, queries: list[Query]) -> list[Query]:
        """With no control token in them: whether a server's tokenizer reads those in a text is not ours to say."""
        return [replace(query, messages=[message | {"content": break_controls(message["content"])}
                                         for message in query.messages]) for query in queries]

    # -- records -----------------------------------------------------------------------------------------

    def answers(self, stream: Stream) -> Generator[tuple[Line, list[Answer]], None, None]:
        """Every line with the answers to its queries, in order. Raises Failure once what is in hand has come in."""
        with closing(in_order(self.until_stopped(stream), self.judge, self.window, self.close)) as done:
            for line, future in done:
                try:
                    answers = future.result()
                except Failure as error:
                    if not self.stopped and stream.skip and not error.everything:
                        stream.reject(line, ValueError(error.message))
                    else:
                        self.stop(error, line)
                else:
                    if not self.stopped:
                        yield line, answers
        if self.stopped:
            raise self.stopped
        stream.finish()

    def until_stopped(self, stream: Stream) -> Iterator[Line]:
        for line in stream.ahead():
            yield line
            if self.stopped:
                return

    def stop(self, error: Failure, line: Line) -> None:
        """Begin no more calls: those under way are paid for, and still go into the cache."""
        if not self.stopped:
            self.stopped, self.client.retries = Failure(f"{line.where}: {error.message}", everything=True), 0

    async def judge(self, line: Line) -> list[Answer]:
        """The answers to the line's queries; where one fails, the others under way still come in: they are paid for."""
        _, queries = line.data
        calls = [asyncio.ensure_future(self.ask(query)) for query in queries]
        await asyncio.gather(*calls, return_exceptions=True)
        return [call.result() for call in calls]

    # -- calls -------------------------------------------------------------------------------------------

    async def ask(self, query: Query) -> Answer:
        """The answer, asked for anew, with what came before, where it cannot be read; not if the judge refuses.

        Raises Failure.
        """
        messages = query.messages
        for _ in range(1 + self.ask_again):
            reply = await self.reply(messages, query.form)
            if reply.reason == REFUSAL:
                break
            try:
                return Answer(read_parts(reply, query.form))
            except ValueError:
                said = break_controls(reply.text.strip()) or "..."
                messages = [*messages, {"role": "assistant", "content": said},
                            {"role": "user", "content": packaged_text("again").strip()}]
        return Answer(None, reply.text)

    async def reply(self, messages: Messages, form: AnswerForm) -> Reply:
        """From the cache, from a call in hand, or from the server."""
        key = request_key(self.request(messages, form))
        if reply := self.cached(messages, form):
            self.hits += 1
            return reply
        if key in self.pending:
            self.hits += 1
            return await self.pending[key]
        self.pending[key] = asyncio.ensure_future(self.settle(messages, form))
        try:
            return await self.pending[key]
        finally:
            self.pending.pop(key, None)

    def cached(self, messages: Messages, form: AnswerForm) -> Reply | None:
        """From the cache: the answer to a structured request, or to the plain one it fell back to."""
        return next(filter(None, map(self.cache.get, self.keys(messages, form))), None) if self.cache else None

    def keys(self, messages: Messages, form: AnswerForm) -> list[str]:
        """Of the request, and of the one that it falls back to."""
        return [request_key(self.request(messages, one)) for one in ((form, None) if self.structured else (None,))]

    async def settle(self, messages: Messages, form: AnswerForm) -> Reply:
        """Wait for a run that shares the cache and has the call under way, as long as it lives; or make the call."""
        if not self.cache:
            return await self.pay(messages, form)
        keys = self.keys(messages, form)
        for wait in itertools.chain(LOOKS, itertools.repeat(LOOKS[-1])):
            if self.stopped:
                raise Failure("stopped", everything=True)
            claimed = self.cache.claim(keys)
            if isinstance(claimed, Reply):
                self.hits += 1
                return claimed
            if claimed:
                break
            self.say_waiting(self.cache.path)
            await asyncio.sleep(wait)
        try:
            return await self.pay(messages, form)
        finally:
            self.cache.release(keys[0])

    def say_waiting(self, path: str) -> None:
        """Once a run."""
        if not self.waited:
            print(f"{path}: another run asks the same: waiting for its answers", file=sys.stderr)
        self.waited = True

    async def pay(self, messages: Messages, form: AnswerForm) -> Reply:
        """Ask the server. The first call of all goes alone where it finds something out; the others wait for that."""
        if not (self.schema_known and self.price_known):
            async with self.probing:
                if not self.schema_known:
                    return await self.probe(messages, form)
                if not self.price_known:
                    return await self.call(messages, form)
        return await self.call(messages, form)

    async def probe(self, messages: Messages, form: AnswerForm) -> Reply:
        try:
            reply = await self.call(messages, form)
        except Failure as error:
            if error.status not in REFUSALS:
                raise
            reply = await self.call(messages, None)  # was it the schema that the server did not take?
            self.structured = False
        self.schema_known = reply.reason != REFUSAL  # which a filter may give before the request is looked at
        return reply

    async def call(self, messages: Messages, form: AnswerForm | None) -> Reply:
        request = self.request(messages, form)
        try:
            reply = await self.client.ask("chat", request, partial(read_reply, messages=messages))
        except NoAnswer as error:  # the question was filtered: nothing was charged
            reply = Reply(error.words, REFUSAL, 0, 0)
        if self.cache:
            self.cache.put(request_key(request), self.model, reply)
        price = self.prices.cost(reply.prompt_tokens, reply.tokens)
        self.spent, self.dearest = self.spent + price, max(self.dearest, price)
        self.price_known = self.price_known or reply.tokens + reply.prompt_tokens > 0
        self.used["prompt_tokens"] += reply.prompt_tokens
        self.used["tokens"] += reply.tokens
        return reply

    def request(self, messages: Messages, form: AnswerForm | None) -> Record:
        schema = {"response_format": form.response_format} if form and self.structured else {}
        return with_parameters({"model": self.model, "messages": messages}, {**self.parameters, **schema})

    def allow(self, request: Record) -> None:
        """Before every try of a call. Raises Failure where there is to be none.

        A call under way may cost what the dearest one did, and is reckoned with, so that the budget holds.
        """
        if self.stopped:
            raise Failure("stopped", everything=True)
        price = max(self.dearest, self.prices.cost(estimate_tokens(request["messages"]), 0))
        if self.spent + (self.client.flying + 1) * price > self.prices.budget:
            raise Failure(f"the budget of {self.prices.budget:g} is spent: a call is about {price:.3g}",
                          everything=True)

    async def close(self) -> None:
        await self.client.close()
        if self.cache:
            self.cache.close()

    def counts(self) -> dict[str, float]:
        money = {"spent": round(self.spent, 6)} if self.prices.prompt or self.prices.answer else {}
        return {**self.used, **self.client.counts, "cache_hits": self.hits, **money}

    # -- beforehand --------------------------------------------------------------------------------------

    def estimate(self, query: Query) -> tuple[str, int]:
        """The key of the query's first call, and about the tokens of its prompt: 0 where the answer is in the cache."""
        cached = self.cached(query.messages, query.form)
        key = request_key(self.request(query.messages, query.form))
        return key, 0 if cached else estimate_tokens(query.messages)


def read_parts(reply: Reply, form: AnswerForm) -> Parts:
    """The parts of an answer. Raises ValueError; for one that was cut too: "Score: 1" may have become 10."""
    if reply.reason == "length":
        raise ValueError("cut")
    return form.read(reply.text)


def read_reply(body: Record, messages: Messages) -> Reply:
    """A refusal is a Reply too, and so is an answer of nothing but reasoning.

    Raises ValueError for garbage, and Failure for an answer that is longer than any.
    """
    try:
        text, reason, reasoning = choice(body)
    except NoAnswer as error:
        text, reason, reasoning = error.words, REFUSAL, ""
    if not text.strip() and reasoning:
        text = f"<think>\n{reasoning}\n</think>"  # as it comes from servers that leave it in the text: no answer
    if len(text) > LONGEST:
        raise Failure(f"an answer of {len(text):,} characters, where {LONGEST:,} are the most")
    prompt_tokens, tokens = usage(body)
    if prompt_tokens is None or tokens is None or not prompt_tokens + tokens:  # a call of nothing is beyond sense too
        prompt_tokens, tokens = estimate_tokens(messages), len(text.encode()) // BYTES_A_TOKEN + 1
    return Reply(text, reason, prompt_tokens, tokens)


def estimate_tokens(messages: Messages) -> int:
    """About how many tokens a prompt has."""
    return sum(len(message["content"].encode()) // BYTES_A_TOKEN + 4 for message in messages)
