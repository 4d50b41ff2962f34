"""al-label-ai and a server that fails in three calls of ten: how near it comes to what that can give; ten kills."""

import threading
import time

import pytest

from helpers.commands import lines, read
from helpers.faulty import Server
from helpers.judging import faulty, judge_job, labelled, pairs, right
from helpers.kills import survive
from helpers.process import call

LATENCY = 0.25  # seconds of each call, failed ones too


@pytest.mark.parametrize(("concurrency", "count"), [(16, 2000), (32, 2000), (64, 2000), (64, 8000)])
def test_throughput_is_concurrency_over_latency(concurrency, count):
    """Calls a second, from the first to the last, against `concurrency / LATENCY`."""
    records, times, lock = pairs(count), [], threading.Lock()

    def script(request, nth):
        began = time.monotonic()
        time.sleep(LATENCY)
        with lock:
            times.append((began, time.monotonic()))
        return faulty(request, nth)

    with Server(script) as server:
        done = call("al-label-ai", "--judge", "overall", "--base-url", server.url, "--one-order", "--concurrency",
                    concurrency, stdin=lines(*records))
    assert read(done.stdout) == [{**labelled(record), "orders_agree": None} for record in records]
    seconds = max(end for _, end in times) - min(began for began, _ in times)
    ratio = len(times) / seconds / (concurrency / LATENCY)
    print(f"\n{concurrency} at a time: {len(times)} calls for {len(records)} records in {seconds:.1f} s, "
          f"{ratio:.2f} of what the server can give")
    assert ratio > 0.8


def test_ten_kills(tmp_path):
    kills, concurrency, count = 10, 8, 150

    def script(request, nth):
        time.sleep(0.01)
        return right(request)

    with Server(script) as server:
        runs = survive(judge_job(tmp_path, server, count, concurrency), kills, seed=5)
    twice = len(server.calls) - 2 * count * (runs + 1)
    print(f"\n{kills} kills in {runs} runs, no byte differs; {twice} calls made again, {kills * concurrency} at most")
    assert 0 <= twice <= kills * concurrency
