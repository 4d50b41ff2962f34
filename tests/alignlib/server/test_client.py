"""Who is next at a server: the oldest call, and no place is lost."""

import asyncio

from alignlib.server.client import Places


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
