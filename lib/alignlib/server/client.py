"""A client of OpenAI-compatible servers, many calls at a time: retries, time limits, and no word of the key.

    client = Client("http://localhost:8000/v1", concurrency=16, timeout=300, retries=5)
    text = await client.ask("chat", {"model": "m", "messages": [...]}, read)     # read: dict -> str, or ValueError
"""

import asyncio
import email.utils
import heapq
import itertools
import math
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
import openai

from alignlib.records.jsonl import Record
from alignlib.server.bodies import BoundedHTTP
from alignlib.server.key import Key
from alignlib.server.replies import FILTERED, ErrorBody, Failure, NoAnswer, error_words, read_body

QUICK, BUSY_WAIT = (0.125, 3), (0.5, 2)  # the first wait before another try, in seconds, and how it grows
LONGEST_WAIT = 60.0
PATIENCE = 600.0  # seconds: who is told to come back later than that gives up
REFUSALS = (400, 422)  # of a request as it is: another one may do
ABOUT_ALL = (301, 302, 303, 307, 308, 401, 403, 404)  # answers that every other call would get too
PASSING = (408, 409, 425, 429)  # and 500 and above: worth another try
BUSY = (429, 503, 529)
WORDS = 160  # characters of an answer that is none, to know it by
SEEN = 65_536  # characters of what a server says that are looked at for that, and to find the key in

Reading = TypeVar("Reading")


def must_be_address(url: str, name: str) -> None:
    """Refuse an address that is none, before it is looked for again and again."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of the port, or of brackets
        good = False
    if not good:
        raise click.UsageError(f"{name} {url}: expected http://... or https://...")


class Client:
    """Asks one server. The key comes from OPENAI_API_KEY; without one, none is sent.

    base_url     None: OPENAI_BASE_URL, or OpenAI's own
    concurrency  calls at a time; one that waits because the server is busy keeps its place, so that a server which
                 asks for patience is asked less
    timeout      seconds, for each try as a whole
    retries      further tries of a call that was refused in passing, dropped, late, or answered with garbage
    max_answer   megabytes of an answer's body, unpacked
    """

    def __init__(self, base_url: str | None, *, concurrency: int, timeout: float, retries: int, max_answer: int = 16):
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not (key.isascii() and key.isprintable()):
            raise click.UsageError("OPENAI_API_KEY: no key has such characters")
        if base_url is not None:
            must_be_address(base_url, "--base-url")
        elif "OPENAI_BASE_URL" in os.environ:
            must_be_address(os.environ["OPENAI_BASE_URL"], "OPENAI_BASE_URL")
        # The library's own retries know nothing of garbage: all are made here, so that none is made twice over.
        http = BoundedHTTP(most=max_answer * 1_000_000, concurrency=concurrency)
        self.openai = openai.AsyncOpenAI(api_key=key or "none", base_url=base_url, max_retries=0, timeout=timeout,
                                         http_client=http)
        self.key = Key(key)
        self.headers: dict[str, Any] = {} if key else {"Authorization": openai.omit}
        self.timeout, self.retries, self.places = timeout, retries, Places(concurrency)
        self.counts = {"calls": 0, "retried": 0}
        self.flying, self.ages = 0, itertools.count()  # calls under way; the order in which they were asked for
        self.allow: Callable[[Record], None] = lambda request: None  # asked before every try; raises Failure for none

    async def ask(self, api: str, request: Record, read: Callable[[Record], Reading]) -> Reading:
        """What `read` makes of the answer to a request to the API, "chat" or "completions". Raises Failure.

        `read` raises ValueError for an answer that is not what it should be, and the call is made again; Failure, like
        NoAnswer, for one that would be no better then.
        """
        age = next(self.ages)
        for tries in itertools.count():
            async with self.places.hold(age):
                self.allow(request)
                self.counts["calls"] += 1
                self.flying += 1
                try:
                    return await self.once(api, request, read)
                except (openai.APIError, TimeoutError, ValueError, Failure) as error:
                    problem, wait = self.weigh(error, tries)
                finally:
                    self.flying -= 1
                if wait is None or tries >= self.retries:
                    break
                self.counts["retried"] += 1
                if problem.status in BUSY:
                    await asyncio.sleep(wait)
            if problem.status not in BUSY:
                await asyncio.sleep(wait)
        # Outside the handler: what the server said there may quote the key, and a traceback would show it.
        tried = f" ({tries + 1} tries)" if tries and wait is not None else ""
        raise problem.reworded(f"{problem.message}{tried}")

    async def once(self, api: str, request: Record, read: Callable[[Record], Reading]) -> Reading:
        """One try, in a frame of its own: a Failure waits for its turn with its frames, and they with their bodies."""
        endpoint: Any = self.openai.chat.completions if api == "chat" else self.openai.completions
        about = {name: request[name] for name in ("model", "messages", "prompt") if name in request}
        # The library refuses parameters that it does not know, but in a body of the caller's own.
        more = {name: value for name, value in request.items() if name not in about}
        async with asyncio.timeout(self.timeout):  # the library's own starts anew with each byte
            reply = await endpoint.with_raw_response.create(**about, extra_body=more, extra_headers=self.headers)
        return read(self.key.strike_all(read_body(reply.content, reply.headers.get("content-type", ""))))

    def weigh(self, error: Exception, tries: int) -> tuple[Failure, float | None]:
        """The error as a Failure without the key, and the seconds to wait before another try; None: there is none."""
        if isinstance(error.__cause__, Failure):  # openai 2 takes whatever comes for a broken connection
            error = error.__cause__
        wait = delay(tries, *QUICK)
        if isinstance(error, openai.APIStatusError):
            words, headers = error_words(error.body or error.response.reason_phrase), error.response.headers
            if error.response.has_redirect_location:
                words = f"it sends elsewhere, which is for --base-url to say: {headers['location']}"
            return self.weigh_status(f"the server says {error.status_code}: {words}", words, error.status_code,
                                     error.code, tries, _retry_after(headers))
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return Failure(f"no answer within {self.timeout:g} s"), wait
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return Failure(self.clean(f"no connection, or a broken one: {str(cause) or type(cause).__name__}")), wait
        if isinstance(error, Failure):  # of `read`
            return error.reworded(self.clean(error.message)), None
        if isinstance(error, ErrorBody):
            return self.weigh_status(str(error), error.words, error.status, error.code, tries)
        return Failure(self.clean(f"an answer that is none: {error}", WORDS)), wait

    def weigh_status(self, message: str, words: str, status: int | None, code: object, tries: int,
                     requested: float | None = None) -> tuple[Failure, float | None]:
        """Of an error that the server gives, with a status or, in a body under 200, without."""
        if code in FILTERED:
            return NoAnswer(self.clean(message), self.clean(words)), None
        spent = code == "insufficient_quota"
        problem = Failure(self.clean(message), status, everything=spent or status in ABOUT_ALL)
        if spent or not (status is None or status in PASSING or status >= 500):
            return problem, None
        if requested is not None and requested > PATIENCE:
            return problem, None
        # A busy server that says for how long is taken at its word; of another nobody knows, and it is left alone.
        growing = BUSY_WAIT if status in BUSY and requested is None else QUICK
        return problem, max(requested or 0.0, delay(tries, *growing))

    def clean(self, text: str, most: int = 500) -> str:
        """One line of what can be printed, without the key."""
        text = self.key.strike(text[:SEEN])  # while it is whole
        return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:most]

    async def close(self) -> None:
        await self.openai.close()


class Places:
    """So many at a time; of those that wait, the oldest is next, however late it came to wait.

    A call that is made again goes before those asked for after it, which an output in order has to wait with anyway.
    """

    def __init__(self, count: int):
        self.free = count
        self.waiting: list[tuple[int, asyncio.Future[None]]] = []  # a heap of (age, place)

    @asynccontextmanager
    async def hold(self, age: int) -> AsyncIterator[None]:
        await self.take(age)
        try:
            yield
        finally:
            self.give()

    async def take(self, age: int) -> None:
        if self.free:
            self.free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        heapq.heappush(self.waiting, (age, place))
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given just before
                self.give()
            raise

    def give(self) -> None:
        while self.waiting:
            _, place = heapq.heappop(self.waiting)
            if not place.done():
                place.set_result(None)
                return
        self.free += 1


def delay(tries: int, first: float, growth: float) -> float:
    """Seconds before the try after so many, drawn: calls that have failed together are not made again together."""
    return min(first * growth**min(tries, 16), LONGEST_WAIT) * random.uniform(0.5, 1)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait for, as a number or until a date; None where it does not say."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(headers["retry-after-ms"]) / 1000 if "retry-after-ms" in headers else float(text)
    except ValueError:
        try:
            return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):  # neither
            return None
    return None if math.isnan(seconds) else seconds
