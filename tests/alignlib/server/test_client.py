"""Who is next at a server: the oldest call, and no place is lost; what is said of a failure."""

import asyncio

from alignlib.server.client import WORDS, Client, Places
from alignlib.server.replies import ErrorBody, NoAnswer


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
