"""Work that is waited for, done ahead: many items at a time, their results in the items' order, memory bounded."""

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    items: Iterable[Item], work: Callable[[Item], Coroutine[Any, Any, Result]], ahead: int,
    close: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> Generator[tuple[Item, "Future[Result]"], None, None]:
    """Each item with the done future of `work(item)`, in the items' order.

    At most `ahead` items are in hand: read, and not yet taken by the caller. Items are read in a thread of their own,
    since reading may wait for whoever writes them, and worked on in the event loop of another; where reading raises,
    what was read before still comes first. `close` is awaited in that loop at the end, however it comes.
    """
    # (item, future); last None, or the error that ended the reading
    read: queue.SimpleQueue[tuple[Item, Future[Result]] | BaseException | None] = queue.SimpleQueue()
    places = threading.Semaphore(ahead)
    loop = _Loop(close)

    def reader() -> None:
        try:
            for _, item in zip(iter(places.acquire, False), items, strict=False):  # a place first, then the item
                if (future := loop.submit(work, item)) is None:
                    return  # nobody waits any more
                read.put((item, future))
            read.put(None)
        except BaseException as error:
            read.put(error)

    threading.Thread(target=reader, daemon=True).start()  # a read that waits for its input does not hold up the exit
    try:
        while (got := read.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            item, future = got
            future.exception()  # waits
            yield item, future
            places.release()
    finally:
        loop.end()


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self, close: Callable[[], Coroutine[Any, Any, None]] | None):
        self.close, self.lock, self.ended = close, threading.Lock(), False
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run(started)), daemon=True)
        self.thread.start()
        self.loop, self.stop = started.result()

    async def _run(self, started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
        stop = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)  # nobody asks for them any more
        if self.close:
            await self.close()

    def submit(self, work: Callable[[Item], Coroutine[Any, Any, Result]], item: Item) -> "Future[Result] | None":
        """Start `work(item)`; None, with nothing started, after the end."""
        with self.lock:
            return None if self.ended else asyncio.run_coroutine_threadsafe(work(item), self.loop)

    def end(self) -> None:
        """Let go of whatever is still at work."""
        with self.lock:
            self.ended = True
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()
