"""An OpenAI-compatible server that does to each call what its script says: answer, refuse, drop, babble, wait.

    with Server(script) as server:         # script(request, nth) -> an action; nth: how often this was asked before
        run("al-sample", "m", "--backend", "openai", "--base-url", server.url, ...)
    server.calls                            # what was asked, in order: (path, headers, request)
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def subject(request: dict) -> str:
    """The prompt, or the last message."""
    return request.get("prompt") or request["messages"][-1]["content"]


def answer(request: dict, texts: list[str] | None = None, reason: str = "stop", **more) -> dict:
    """A right answer: as many choices as asked for, which echo the prompt."""
    texts = [f"{subject(request)}/{i}" for i in range(request.get("n", 1))] if texts is None else texts
    chat = "messages" in request
    choices = [{"index": i, "finish_reason": reason,
                **({"message": {"role": "assistant", "content": text}} if chat else {"text": text})}
               for i, text in enumerate(texts)]
    usage = {"prompt_tokens": 7, "completion_tokens": 3 * len(texts), "total_tokens": 7 + 3 * len(texts)}
    return {"id": "x", "object": "text_completion", "created": 1, "model": request["model"], "choices": choices,
            "usage": usage, **more}


def ok(request: dict, *args, **more) -> tuple:
    return 200, {}, json.dumps(answer(request, *args, **more)).encode()


def refuse(status: int, message: str = "no", **headers: str) -> tuple:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps({"error": {"message": message, "code": None}}).encode()


DROP = None  # close the connection without a word
CUT = "cut"  # promise more than is sent


class HTTP(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # callers that connect at once: it is the scripts that turn them away


class Server:
    def __init__(self, script: Callable[[dict, int], object]):
        self.script, self.calls, self.counts, self.lock = script, [], Counter(), threading.Lock()
        self.over = threading.Event()  # what waits for ever waits until then
        handler = type("Handler", (Handler,), {"owner": self})
        self.http = HTTP(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> "Server":
        often = 0.01  # seconds between looks for the end
        threading.Thread(target=self.http.serve_forever, args=(often,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


class Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes

    def handle(self) -> None:
        with suppress(ConnectionResetError):  # by a caller that was killed
            super().handle()

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # a caller that was killed
            self.close_connection = True
            return
        request = json.loads(body)
        with self.owner.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.owner.calls.append((self.path, headers, request))
            nth = self.owner.counts[subject(request)]
            self.owner.counts[subject(request)] += 1
        action = self.owner.script(request, nth)
        if action is DROP or action == CUT:
            if action == CUT:
                self.reply(200, {"Content-Length": "1000"}, b'{"choices": [')
            self.close_connection = True
            self.connection.close()
        else:
            self.reply(*action)

    def reply(self, status: int, headers: dict, body: bytes | Iterator[bytes]) -> None:
        """Of a body in pieces nobody knows the length: it goes on until the caller has had enough."""
        whole = isinstance(body, bytes)
        length = {"Content-Length": str(len(body))} if whole else {"Transfer-Encoding": "chunked"}
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **length, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for piece in [body] if whole else body:
                self.wfile.write(piece if whole else b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"" if whole else b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the caller did not wait

    def log_message(self, *_) -> None:
        """Nothing: the tests read what there is to read."""
