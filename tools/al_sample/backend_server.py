"""The sampler of --backend openai: any server with OpenAI's completions or chat completions."""

import asyncio
from collections.abc import Generator
from contextlib import closing
from functools import partial

import click

from alignlib.decoding.conditions import Condition
from alignlib.decoding.draws import Draw, Sampling, seed_for, stop_place
from alignlib.records import fields
from alignlib.records.conversations import with_condition
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream
from alignlib.server.ahead import in_order
from alignlib.server.client import REFUSALS, Client
from alignlib.server.parameters import read_parameters, with_parameters
from alignlib.server.replies import Failure, NoAnswer, choice, usage

OWN_PARAMETERS = ("model", "messages", "prompt", "n", "stream")
SEED_BITS = 31  # servers keep seeds in integers of different sizes


class Sampler:
    """Draws from a server's `model`. How often a prompt is asked for all its completions is the server's to say.

    parameters  JSON: what else the requests hold, or in place of what they would; null takes one out
    """

    def __init__(self, model: str, how: Sampling, client: Client, *, condition: Condition | None, api: str,
                 window: int, parameters: str):
        self.parameters = read_parameters(parameters, OWN_PARAMETERS)
        if "temperature" in self.parameters and len(set(how.temperatures)) > 1:
            raise click.UsageError("--parameters: temperature goes with one --temperature")
        self.model, self.how, self.client, self.condition, self.api = model, how, client, condition, api
        self.window = window
        self.most = max(how.temperatures.count(temperature) for temperature in how.temperatures)  # completions a call
        self.used = {"prompt_tokens": 0, "tokens": 0}

    def prepare(self, record: Record) -> tuple[str, Record]:
        """The API to ask, and the request's part that says what about."""
        fields.require(record, "prompt")
        if "messages" in record and self.api == "completions":
            raise ValueError("messages: --api completions takes a prompt")
        if self.condition:
            record = with_condition(record, self.condition.text_for(record), self.condition.role)
        if "messages" in record:
            return "chat", {name: record[name] for name in ("messages", "tools") if name in record}
        if self.api == "chat":
            return "chat", {"messages": [{"role": "user", "content": record["prompt"]}]}
        return "completions", {"prompt": record["prompt"]}

    def draws(self, stream: Stream) -> Generator[tuple[Line, list[Draw]], None, None]:
        with closing(in_order(stream.ahead(), self.sample, self.window, self.client.close)) as done:
            for line, future in done:
                try:
                    draws = future.result()
                except Failure as error:
                    if error.everything or not stream.skip:
                        message = f"{line.where}: {error.message}"
                        raise Failure(message, error.status, error.everything) from error
                    stream.reject(line, ValueError(error.message))
                else:
                    yield line, draws
        stream.finish()

    async def sample(self, line: Line) -> list[Draw]:
        """All the completions of a record; those of one temperature together."""
        groups: dict[float, list[Draw]] = {}
        draws = [Draw(line.index, i, [], t, where=line.where) for i, t in enumerate(self.how.temperatures)]
        for draw in draws:
            groups.setdefault(draw.temperature, []).append(draw)
        api, about = line.data
        await asyncio.gather(*(self.fill(api, about, group) for group in groups.values()))
        return draws

    async def fill(self, api: str, about: Record, draws: list[Draw]) -> None:
        """Ask until every draw of one temperature is done: a server may give fewer than are asked for.

        Where it refuses several at once, it may be their number, or the prompt: it is asked for one.
        """
        refused = False
        while draws:
            count = 1 if refused else min(len(draws), self.most)
            try:
                choices = await self.client.ask(api, self.request(about, draws[0], count), partial(self.read, api))
            except Failure as error:
                if count == 1 or error.status not in REFUSALS:
                    raise
                refused = True
                continue
            if refused:
                self.most = 1  # it was `n` that the server does not take
            for draw, (text, reason) in zip(draws, choices, strict=False):
                draw.text, draw.reason = text, reason
            draws = draws[len(choices):]

    def request(self, about: Record, first: Draw, count: int) -> Record:
        seed = seed_for(self.how.seed, first.record, first.number, SEED_BITS)
        request = {"model": self.model, **about, "max_tokens": self.how.max_new_tokens, "seed": seed,
                   "temperature": first.temperature}
        # What is the default goes unsaid: some servers refuse whatever they do not know.
        if count > 1:
            request["n"] = count
        if self.how.top_p < 1:
            request["top_p"] = self.how.top_p
        if self.how.stop:
            request["stop"] = list(self.how.stop)
        return with_parameters(request, self.parameters)

    def read(self, api: str, body: Record) -> list[tuple[str, str]]:
        """Texts and reasons of an answer's choices.

        Raises ValueError for garbage, and Failure for an answer that is no completion.
        """
        choices = [completion(body, 0, api)]  # which sees to it that there are choices
        choices += [completion(body, i, api) for i in range(1, len(body["choices"]))]
        for name, count in zip(self.used, usage(body), strict=True):
            self.used[name] += count or 0
        return [self.cut_at_stop(text, reason) for text, reason in choices]

    def cut_at_stop(self, text: str, reason: str) -> tuple[str, str]:
        """A stop string ends the text and is left out, whether the server sees to it or not."""
        place = stop_place(text, self.how.stop)
        return (text, reason) if place is None else (text[:place], "stop")

    def counts(self) -> dict[str, int]:
        return {**self.used, **self.client.counts}


def completion(body: Record, number: int, api: str) -> tuple[str, str]:
    """The text and the reason of one choice; a prompt may be gone on with by nothing, a chat is not answered by it.

    Raises as `choice` does, and NoAnswer for an empty message.
    """
    text, reason, reasoning = choice(body, number)
    if api == "chat" and not text:
        words = "nothing but reasoning" if reasoning else "an empty answer"
        cure = ", cut: --max-new-tokens counts reasoning in" if reason == "length" else ""
        raise NoAnswer(f"choices[{number}]: {words}{cure}", reasoning)
    return text, reason
