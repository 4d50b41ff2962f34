"""Work done ahead: in order, so many at a time and no more, and what ends it."""

import asyncio
import threading

import pytest

from alignlib.records.jsonl import DataError, dumps
from alignlib.records.stream import Stream
from alignlib.server.ahead import in_order


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_results_come_in_the_items_order():
    """The last of those in hand is done first."""
    count, done, all_there = 5, [], []

    async def backwards(number):
        all_there.append(number)
        while len(all_there) < count or len(done) < count - 1 - number:
            await asyncio.sleep(0)
        done.append(number)
        return 2 * number

    assert [(item, future.result()) for item, future in in_order(range(count), backwards, count)] == [
        (i, 2 * i) for i in range(count)]
    assert done == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_are_read_than_may_be_in_hand(ahead):
    read = []

    def source():
        for i in range(20):
            read.append(i)
            yield i

    for taken, (item, future) in enumerate(in_order(source(), double, ahead)):
        assert len(read) <= taken + ahead
        assert future.result() == 2 * item
    assert len(read) == 20


def test_a_failure_belongs_to_its_item():
    async def odd_ones_fail(number):
        if number % 2:
            raise ValueError(str(number))
        return number

    errors = [future.exception() for _, future in in_order(range(4), odd_ones_fail, 4)]
    assert [type(error) for error in errors] == [type(None), ValueError, type(None), ValueError]


def test_what_was_read_before_a_broken_input_comes_first():
    def source():
        yield 1
        yield 2
        raise DataError("in:3: broken")

    results = []
    with pytest.raises(DataError, match="in:3"):
        for _, future in in_order(source(), double, 10):
            results.append(future.result())
    assert results == [2, 4]


def test_leaving_early_ends_the_work_and_closes():
    """Though the input is still waited for, and the work would never be done."""
    more, cancelled, closed = threading.Event(), [], []

    def source():
        yield 0
        yield 1
        more.wait()

    async def work(number):
        try:
            while number:
                await asyncio.sleep(0)
            return number
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    async def close():
        closed.append(True)

    results = in_order(source(), work, 4, close)
    assert next(results)[0] == 0
    results.close()
    assert cancelled in ([], [1])  # it may not have begun
    assert closed == [True]
    more.set()


# -- a Stream that is read ahead -------------------------------------------------------------------------------

BAD = b"{broken\n"


def stream(folder, *raw: bytes, **settings) -> Stream:
    (folder / "in").write_bytes(b"".join(raw))
    return Stream([str(folder / "in")], str(folder / "out"), skip=True, rejects=str(folder / "bad"), **settings)


def test_bad_lines_and_failures_leave_in_their_turn_though_all_is_read_first(tmp_path):
    good = [dumps({"n": n}) for n in range(5)]
    with stream(tmp_path, BAD, good[0], b"[]\n", good[1], good[2], good[3], b"[1]\n", good[4], BAD) as source:
        lines = list(source.ahead())
        assert (tmp_path / "bad").read_bytes() == BAD  # nothing good comes before it
        for line in lines:
            if line.record["n"] in (1, 4):
                source.reject(line, ValueError("no answer"))
            else:
                source.write(line, line.record)
        source.finish()
        assert (source.written, source.rejected) == (3, 6)
    assert (tmp_path / "out").read_bytes() == good[0] + good[2] + good[3]
    assert (tmp_path / "bad").read_bytes() == BAD + b"[]\n" + good[1] + b"[1]\n" + good[4] + BAD


def test_what_was_put_aside_is_not_tried_again(tmp_path):
    """Once a later record has left; before that, a killed run does not know."""
    good = [dumps({"n": n}) for n in range(4)]
    killed = stream(tmp_path, *good)
    for line in list(killed.ahead())[:3]:
        killed.reject(line, ValueError("no")) if line.record["n"] == 1 else killed.write(line, line.record)
    for held in (killed._state.held, *(sink.lock for sink in killed._sinks)):
        held.close()  # as a kill would
    with stream(tmp_path, *good, resume=True) as resumed:
        (line,) = resumed.ahead()
        resumed.write(line, line.record)
        resumed.finish()
    assert (tmp_path / "out").read_bytes() == good[0] + good[2] + good[3]
    assert (tmp_path / "bad").read_bytes() == good[1]
