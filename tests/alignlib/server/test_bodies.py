"""Bodies of answers: as far as they may go, unpacked, and the large ones one at a time."""

import asyncio
import gzip
import json
import threading

import openai
import pytest

from alignlib.server import bodies
from alignlib.server.bodies import ERROR, BoundedHTTP
from alignlib.server.replies import Failure
from helpers.faulty import Server
from helpers.servers import bomb, endless

MOST = 200_000


def post(action: tuple, most: int = MOST, **how: int) -> object:
    """What a server that does this answers."""

    async def once(url: str) -> object:
        async with BoundedHTTP(most=most, concurrency=how.get("concurrency", 1)) as http:
            return await http.post(url, json={"prompt": "q"}, headers={"Authorization": "Bearer secret"})

    with Server(lambda request, nth: action) as server:
        return asyncio.run(once(server.url))


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
@pytest.mark.parametrize("pieces", [False, True])
def test_a_body_is_read_whole_however_it_comes(headers, pieces):
    body = json.dumps({"text": "\u00e9" * 9000}).encode()
    sent = gzip.compress(body) if headers else body
    chunks = (sent[i:i + 100] for i in range(0, len(sent), 100))
    answer = post((200, headers | {"X-Mine": "1"}, chunks if pieces else sent))
    assert (answer.content, answer.status_code, answer.headers["x-mine"]) == (body, 200, "1")
    assert answer.reason_phrase == "OK" and "content-encoding" not in answer.headers


@pytest.mark.parametrize("action", [endless, bomb, lambda: (200, {}, b"x" * (MOST + 1))])
def test_an_answer_that_is_too_long_is_a_failure(action):
    with pytest.raises(Failure, match="an answer of more than 0.2 MB: --max-answer takes longer ones"):
        post(action())
    assert len(post((200, {}, b"x" * MOST)).content) == MOST


@pytest.mark.parametrize("action", [endless, bomb])
def test_an_error_that_is_too_long_is_cut(action):
    answer = post(action(500))
    assert answer.status_code == 500 and len(answer.content) == ERROR
    assert len(post(action(500), most=9).content) == 9


def test_nobody_is_sent_elsewhere():
    """With what the request says, and where a stranger wants it."""
    with Server(lambda request, nth: (200, {}, b"{}")) as other:
        answer = post((307, {"Location": other.url}, b""))
        assert (answer.status_code, other.calls) == (307, [])


def test_large_bodies_are_read_one_at_a_time(monkeypatch):
    """Two that are beyond their share: the second is read on once the first is there, and small ones meanwhile."""
    monkeypatch.setattr(bodies, "ROOM", ERROR)
    first, order, size = threading.Event(), [], ERROR * 40

    def half(name: str, until: threading.Event | None):
        yield b"x" * (ERROR + 1)
        if until:
            until.wait()
        yield b"x" * (size - ERROR - 1)

    def script(request, nth):
        name = request["prompt"]
        return 200, {}, b"small" if name == "small" else half(name, first if name == "first" else None)

    async def ask(http: BoundedHTTP, url: str, name: str) -> None:
        answer = await http.post(url, json={"prompt": name})
        assert len(answer.content) == (5 if name == "small" else size)
        order.append(name)

    async def all_three(server: Server) -> None:
        async with BoundedHTTP(most=size, concurrency=4) as http:
            one = asyncio.create_task(ask(http, server.url, "first"))
            while not http.larger.locked():
                await asyncio.sleep(0.001)
            two = asyncio.create_task(ask(http, server.url, "second"))
            while len(server.calls) < 2:
                await asyncio.sleep(0.001)
            await ask(http, server.url, "small")
            first.set()
            await asyncio.gather(one, two)

    with Server(script) as server:
        asyncio.run(all_three(server))
    assert order == ["small", "first", "second"]


def test_it_is_what_openai_takes():
    assert isinstance(openai.AsyncOpenAI(api_key="k", http_client=BoundedHTTP(most=1, concurrency=1)),
                      openai.AsyncOpenAI)
