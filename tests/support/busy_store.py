"""A proxy in front of an S3 server that simulates a busy store, in a process of its own.

delta-rs keeps Python's lock while it waits for an answer, so a proxy in the same process could never answer.
"""

import http.client
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

CONTROL = "/-/control"
RIVAL = json.dumps({"commitInfo": {"timestamp": 0, "operation": "RIVAL", "operationParameters": {}}}).encode()
_CODES = {
    "SlowDown": 503,
    "InternalError": 500,
    "ExpiredToken": 403,
}  # of requests that are refused before anything is done
_ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>as the test wants it</Message></Error>"


class BusyStore:
    """The control of the proxy for tests."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @contextmanager
    def failing(self, share: float, seed: int) -> Iterator[None]:
        """Fail a seeded share of requests.

        A third of the failures are throttled (503 SlowDown) and a third are errors (500), both before anything is done.
        For the last third, the request is executed and the answer is lost (500).
        """
        self._control(share=share, seed=seed)
        try:
            yield
        finally:
            self._control(share=0.0)

    def overtake(self, key: str) -> None:
        """Before the next PUT of a key with this ending, put a commit of another writer there."""
        self._control(overtaken=key)

    def lose_answer(self, key: str) -> None:
        """Execute the next PUT of a key with this ending, but answer that it failed."""
        self._control(lost=key)

    @contextmanager
    def expiring(self, at: str) -> Iterator[None]:
        """Answer that the token expired, from the first request on whose ``AGENT METHOD /KEY`` matches ``at``."""
        self._control(expires=at)
        try:
            yield
        finally:
            self._control(expires="", is_expired=False)

    def take_counts(self) -> dict[str, Any]:
        """Return the counts since the last call, and reset them.

        ``requests``: by method. ``failed``: by kind. ``expired_at``: when credentials expired, in Unix seconds.
        """
        return self._control()

    def _control(self, **settings: Any) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.endpoint}{CONTROL}", json.dumps(settings).encode(), method="POST")
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]


@contextmanager
def busy_store(server: str) -> Iterator[BusyStore]:
    """Start the proxy in front of a server."""
    command = [sys.executable, str(Path(__file__)), server]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            yield BusyStore(proxy.stdout.readline().strip())
        finally:
            proxy.terminate()


class _State:
    def __init__(self) -> None:
        self.lock, self.random, self.share = threading.Lock(), Random(0), 0.0
        self.overtaken = self.lost = self.expires = ""
        self.is_expired, self.expired_at = False, 0.0
        self.requests: dict[str, int] = {}
        self.failed: dict[str, int] = {}

    def take_counts(self, settings: dict[str, Any]) -> bytes:
        with self.lock:
            counts = {"requests": self.requests, "failed": self.failed, "expired_at": self.expired_at}
            if not settings:
                self.requests, self.failed, self.expired_at = {}, {}, 0.0
            if "seed" in settings:
                self.random = Random(settings.pop("seed"))
            vars(self).update(settings)
        return json.dumps(counts).encode()

    def fault_of(self, agent: str, method: str, path: str) -> str:
        key = path.partition("?")[0]
        with self.lock:
            self.requests[method] = self.requests.get(method, 0) + 1
            fault = ""
            if self.random.random() < self.share:
                fault = self.random.choice(["SlowDown", "InternalError", "lost"])
            if method == "PUT" and self.lost and key.endswith(self.lost):
                fault, self.lost = "lost", ""
            if method == "PUT" and self.overtaken and key.endswith(self.overtaken):
                fault, self.overtaken = "overtaken", ""
            if self.expires and re.search(self.expires, f"{agent} {method} {key}"):
                self.is_expired, self.expired_at = True, self.expired_at or time.time()
            fault = "ExpiredToken" if self.is_expired else fault
            if fault:
                self.failed[fault] = self.failed.get(fault, 0) + 1
        return fault


def _serve(server: str) -> None:
    upstream, state = urlsplit(server).netloc, _State()

    def forward(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes, Any]:
        connection = http.client.HTTPConnection(upstream, timeout=60)
        connection.request(method, path, body, headers)
        with connection.getresponse() as response:
            return response.status, response.read(), response.getheaders()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm, wbufsize = True, -1  # avoids a delay of 40 ms per answer

        def handle_expect_100(self) -> bool:
            """Flush the answer at once, since clients would wait for it for seconds."""
            may_continue = super().handle_expect_100()
            self.wfile.flush()
            return may_continue

        def do_any(self) -> None:
            body = _body(self)
            if self.path == CONTROL:
                return self._answer(200, state.take_counts(json.loads(body)))
            fault = state.fault_of(self.headers.get("User-Agent", ""), self.command, self.path)
            if fault in _CODES:
                return self._answer(_CODES[fault], _ERROR % fault.encode())
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect")}
            if fault == "overtaken":
                forward("PUT", self.path, {"Host": self.headers["Host"]}, RIVAL)
            answer = forward(self.command, self.path, headers, body)
            return self._answer(500, _ERROR % b"InternalError") if fault == "lost" else self._answer(*answer)

        def _answer(self, code: int, content: bytes, headers: Any = ()) -> None:
            self.send_response_only(code)
            kept = [(k, v) for k, v in headers if k.lower() not in ("connection", "transfer-encoding")]
            if not any(key.lower() == "content-length" for key, _ in kept):
                kept.append(("Content-Length", str(len(content))))
            for key, value in kept:
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any

    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{front.server_port}", flush=True)
    front.serve_forever()


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in request.headers.get("Transfer-Encoding", ""):
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    parts = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    while request.rfile.readline().strip():
        pass
    return b"".join(parts)


if __name__ == "__main__":
    _serve(sys.argv[1])
