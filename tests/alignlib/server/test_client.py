"""Who is next at a server: the oldest call, and no place is lost; what is read of an answer."""

import asyncio

import pytest

from alignlib.server.client import Failure, Places, choice, usage


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


# -- what is read of an answer -----------------------------------------------------------------------------------


def test_a_choice_of_either_api_is_a_text_and_a_reason():
    chat = {"choices": [{"finish_reason": "stop", "message": {"content": "Hi"}}]}
    plain = {"choices": [{"finish_reason": "stop", "text": "a"}, {"finish_reason": "length", "text": ""}]}
    thought = {"choices": [{"finish_reason": "length", "message": {"content": None}}]}  # all of it was reasoning
    assert (choice(chat), choice(plain, 1), choice(thought)) == (("Hi", "stop"), ("", "length"), ("", "length"))
    with pytest.raises(Failure, match=r"choices\[0\].finish_reason: content_filter"):
        choice({"choices": [{"finish_reason": "content_filter", "message": {"content": ""}}]})


@pytest.mark.parametrize(("body", "words"), [
    ({}, "choices: expected a list of some, got null"), ({"choices": []}, "choices: expected a list of some"),
    ({"choices": ["a"]}, r"choices\[0\]: expected an object, got a string"),
    ({"choices": [{"text": "a"}]}, r"choices\[0\].finish_reason: expected a string, got null"),
    ({"choices": [{"finish_reason": "stop", "message": {"content": None}}]},
     r"choices\[0\]: expected a text, got null"),
])
def test_garbage_is_no_choice(body, words):
    with pytest.raises(ValueError, match=words):
        choice(body)


def test_tokens_that_a_server_does_not_count_are_none():
    assert usage({"usage": {"prompt_tokens": 7, "completion_tokens": 0}}) == (7, 0)
    assert usage({"usage": {"prompt_tokens": "7", "completion_tokens": True}}) == (None, None)
    assert usage({}) == usage({"usage": None}) == usage({"usage": [1]}) == (None, None)
