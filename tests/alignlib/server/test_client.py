"""Who is next at a server: the oldest call, and no place is lost; what is said of a failure."""

import asyncio
import json

import httpx2 as httpx
import openai
import pytest

from alignlib.server.client import WORDS, Client, Places
from alignlib.server.replies import ErrorBody, Failure, NoAnswer, choice
from helpers.faulty import Server, ok
from helpers.servers import HOSTILE


def test_the_oldest_goes_first_however_late_it_comes():
    async def turns() -> list[int]:
        places, order = Places(2), []

        async def call(age: int) -> None:
            async with places.hold(age):
                order.append(age)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for age in (5, 9, 7, 8, 3, 6):  # the first two get the places
                group.create_task(call(age))
        assert places.free == 2 and not places.waiting
        return order

    assert asyncio.run(turns()) == [5, 9, 3, 6, 7, 8]


def test_who_stops_waiting_takes_no_place():
    """Cancelled while it waits, and in the very moment that it is given one."""

    async def give_up() -> None:
        places = Places(1)
        await places.take(0)
        waiting, given, last = (asyncio.create_task(places.take(age)) for age in (1, 2, 3))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        places.give()  # to the second, which is cancelled before it can use it
        given.cancel()
        await asyncio.gather(given, return_exceptions=True)
        await last
        places.give()
        assert places.free == 1

    asyncio.run(give_up())


def test_a_call_that_fails_gives_its_place_back():
    async def fail() -> int:
        places = Places(1)
        try:
            async with places.hold(0):
                raise ValueError
        except ValueError:
            return places.free

    assert asyncio.run(fail()) == 1


# -- what is said of a failure -----------------------------------------------------------------------------------

KEY = "sk-a-secret-that-nobody-may-see"


def client(monkeypatch) -> Client:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return Client("http://localhost/v1", concurrency=1, timeout=1, retries=0)


def test_it_is_one_line_of_what_can_be_printed_without_the_key(monkeypatch):
    """The key is cut out before the rest is cut off: half of it is no better."""
    ours = client(monkeypatch)
    assert ours.clean(f"a\x00b\x1b[31m\n\u2028c {KEY}d") == "a b [31m c ***d"
    for room in range(1, len(KEY) + 2):
        text = "x" * (WORDS - room) + KEY
        assert ours.clean(text, WORDS) == ("x" * (WORDS - room) + "***")[:WORDS]
    problem, wait = ours.weigh(ValueError(f"{KEY}\n" + "y" * 1000), 0)
    assert problem.message.startswith("an answer that is none: *** yyy") and len(problem.message) == WORDS and wait
    refused, wait = ours.weigh(NoAnswer(f"no, {KEY}\x07", "no"), 0)
    assert (type(refused), refused.message, refused.words, wait) == (NoAnswer, "no, ***", "no", None)


def test_an_error_under_200_is_weighed_by_the_status_that_it_says(monkeypatch):
    ours = client(monkeypatch)

    def weighed(status: int | None, code: object) -> tuple[bool, bool]:
        problem, wait = ours.weigh(ErrorBody("an error", "no", status, code), 0)
        return problem.everything, wait is not None

    assert [weighed(status, status) for status in (None, 503, 429, 400, 404)] == [
        (False, True), (False, True), (False, True), (False, False), (True, False)]
    assert weighed(None, "insufficient_quota") == (True, False)
    filtered, wait = ours.weigh(ErrorBody("an error", "filtered", None, "content_filter"), 0)
    assert (type(filtered), filtered.words, wait) == (NoAnswer, "filtered", None)


# -- when it is asked again ------------------------------------------------------------------------------------------


def waits(ours: Client, error: Exception) -> list[float | None]:
    """Before the second try, the third, ...; at their longest, which is what is drawn here."""
    return [ours.weigh(error, tries)[1] for tries in range(5)]


def refused(status: int, headers: dict | None = None, body: object = None) -> openai.APIStatusError:
    request = httpx.Request("POST", "http://localhost/v1")
    response = httpx.Response(status, headers=headers, request=request)
    return openai.APIStatusError("no", response=response, body=body)


def test_passing_faults_are_tried_again_soon_and_busy_servers_left_alone(monkeypatch):
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    ours = client(monkeypatch)
    soon, busy = [0.125, 0.375, 1.125, 3.375, 10.125], [0.5, 1, 2, 4, 8]
    for error in (ValueError("garbage"), TimeoutError(), openai.APIConnectionError(request=None), refused(500),
                  refused(429, {"Retry-After": "0"}), refused(503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})):
        assert waits(ours, error) == soon
    for error in (refused(429), refused(503), refused(529), refused(429, {"Retry-After": "soon"}),
                  refused(429, {"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"})):
        assert waits(ours, error) == busy
    assert waits(ours, refused(429, {"Retry-After": "2"})) == [2, 2, 2, 3.375, 10.125]
    assert waits(ours, refused(429, {"Retry-After": "inf"})) == [None] * 5 == waits(ours, refused(400))
    assert ours.weigh(ValueError(""), 10**6)[1] == 60


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_who_is_sent_elsewhere_is_told_where(monkeypatch, status):
    problem, wait = client(monkeypatch).weigh(refused(status, {"Location": "https://b.org/\x1b[2J"}), 0)
    assert problem.message == (f"the server says {status}: it sends elsewhere, which is for --base-url to say: "
                               "https://b.org/ [2J")
    assert problem.everything and wait is None


def test_a_failure_within_the_library_is_itself(monkeypatch):
    """openai 2 takes an answer that is too long for a broken connection."""
    error = openai.APIConnectionError(request=None)
    error.__cause__ = Failure("too long")
    problem, wait = client(monkeypatch).weigh(error, 0)
    assert (problem.message, wait) == ("too long", None)


def answer(monkeypatch, script) -> str:
    """The text that a server's answer to one call has."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def ask(url: str) -> str:
        ours = Client(url, concurrency=1, timeout=9, retries=0)
        try:
            return await ours.ask("chat", {"model": "m", "messages": [{"role": "user", "content": "q"}]},
                                  lambda body: choice(body).text)
        finally:
            await ours.close()

    with Server(script) as server:
        text = asyncio.run(ask(server.url))
    assert [headers["authorization"] for _, headers, _ in server.calls] == [f"Bearer {KEY}"]
    return text


def test_what_is_read_of_an_answer_holds_no_key(monkeypatch):
    text = f"I see {KEY}, {KEY[1:]} and {json.dumps(KEY)}."
    assert answer(monkeypatch, lambda request, nth: ok(request, [text])) == 'I see ***, *** and "***".'


@pytest.mark.parametrize("name", HOSTILE)
def test_what_means_harm_is_a_failure_by_name(monkeypatch, name):
    action, says = HOSTILE[name]
    with pytest.raises(Failure) as failed:
        answer(monkeypatch, lambda request, nth: action())
    assert says in failed.value.message and len(failed.value.message) < 550 and failed.value.message.isprintable()


def test_of_a_page_its_beginning_is_looked_at(monkeypatch):
    """A message is no longer than it may be, however long the page is."""
    problem, _ = client(monkeypatch).weigh(ValueError("x " * 10_000_000), 0)
    assert len(problem.message) == WORDS
