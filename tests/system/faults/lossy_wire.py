"""A proxy in front of an object store that loses answers: ``python lossy_wire.py STORE`` prints its address.

A line ``N`` on stdin makes it lose the answers to the next N commits, after the store has made them; it prints how many
it has lost so far. It is a process because delta-rs holds Python's lock while it waits for some answers.
"""

import http.client
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Wire(ThreadingHTTPServer):
    """Forwards requests to a store."""

    def __init__(self, store: str) -> None:
        super().__init__(("127.0.0.1", 0), _Pass)
        self.store, self.to_lose, self.lost = urlsplit(store).netloc, 0, 0

    def handle_error(self, *_: object) -> None:
        """Ignore clients that hang up."""


class _Pass(BaseHTTPRequestHandler):
    server: Wire
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        store = http.client.HTTPConnection(self.server.store)
        store.request(self.command, self.path, body, dict(self.headers))
        answer = store.getresponse()
        content = answer.read()
        store.close()
        if self.command == "PUT" and "/_delta_log/" in self.path and answer.status == 200 and self.server.to_lose:
            self.server.to_lose -= 1
            self.server.lost += 1
            self.close_connection = True
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    wire = Wire(sys.argv[1])
    threading.Thread(target=wire.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{wire.server_address[1]}", flush=True)
    for line in sys.stdin:
        wire.to_lose = int(line)
        print(wire.lost, flush=True)


if __name__ == "__main__":
    main()
