"""Bodies of answers, read no further than they may go: a server's bytes are a stranger's, and may never end.

    http = BoundedHTTP(most=16_000_000, concurrency=16)
    client = openai.AsyncOpenAI(http_client=http, ...)
"""

import asyncio
from contextlib import aclosing
from typing import Any

import openai

from alignlib.server.replies import Failure

ROOM = 64_000_000  # bytes of bodies that are being read, all together, beside the one that may be larger than its share
ERROR = 65_536  # bytes of an error, or of whatever else is no answer: more would not be shown


class BoundedHTTP(openai.DefaultAsyncHttpxClient):
    """openai's HTTP client, which reads a body as it is unpacked, and goes nowhere that a server sends it.

    most         bytes of an answer's body; a longer one is a Failure, an error's is cut
    concurrency  calls at a time: each body has its share of ROOM, and of those that are longer one at a time is read
    """

    def __init__(self, *, most: int, concurrency: int):
        super().__init__(follow_redirects=False)
        self.most, self.share, self.larger = most, max(ROOM // concurrency, ERROR), asyncio.Semaphore()

    async def send(self, request: Any, *, stream: bool = False, **how: Any) -> Any:  # of httpx's types, or httpx2's
        """The response to a request, its body read. Raises Failure for one that is too long."""
        response = await super().send(request, stream=True, **how)
        try:
            body = await self.read(response)
        finally:
            await response.aclose()
        headers = [(name, value) for name, value in response.headers.multi_items()
                   if name not in ("content-encoding", "content-length", "transfer-encoding")]
        return type(response)(response.status_code, headers=headers, content=bytes(body), request=request,
                              extensions=response.extensions)

    async def read(self, response: Any) -> bytearray:
        """The body; what is beyond the answer's share waits until no other such is read."""
        most, body = self.most if response.is_success else min(ERROR, self.most), bytearray()
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > min(self.share, most):
                    break
            if self.share < len(body) <= most:
                async with self.larger:
                    async for chunk in chunks:
                        body += chunk
                        if len(body) > most:
                            break
            too_long = len(body) > most
            del body[0 if too_long and response.is_success else most:]  # now: to close a connection takes its time
        if too_long and response.is_success:
            raise Failure(f"an answer of more than {most / 1e6:g} MB: --max-answer takes longer ones")
        return body
