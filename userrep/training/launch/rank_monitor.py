"""The driver's monitor of training ranks: heartbeats, progress, and failures over TCP.

Ranks send lines of JSON: their identity, a heartbeat every two seconds, progress, and how they ended. The driver sends
nothing. It closes the connection, and a rank whose connection is closed exits at once. So no rank outlives its driver,
a rank that dies or hangs is detected within seconds under any launcher, and its traceback reaches the driver. Nothing
is unpickled.
"""

import json
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from userrep.errors import PeerLostError

HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 30.0  # without a heartbeat, after which a rank counts as hung
SETTLE_SECONDS = 3.0  # after a failure, during which the driver still reads messages of the other ranks
_MAX_LINE = 1 << 20  # bytes
_MAX_RANKS_SHOWN = 8  # in the log line that lists the devices
Message = dict[str, Any]


class Address(NamedTuple):
    """Where the driver listens, and the token that authenticates its ranks."""

    host: str
    port: int
    token: str


@dataclass(frozen=True)
class Failure:
    """How a rank failed. ``kind``: the class name of its exception; empty if the connection was lost."""

    rank: int
    message: str
    kind: str = ""
    traceback: str = ""

    @property
    def is_echo(self) -> bool:
        """Whether the rank failed only because another rank did."""
        return self.kind == PeerLostError.__name__


@dataclass
class _Connection:
    """The driver's state of one connection. ``rank``: None until the token was accepted."""

    unread: bytes = b""
    rank: int | None = None
    facts: Message = field(default_factory=dict)
    received_at: float = field(default_factory=time.monotonic)
    done: bool = False


class RankMonitor:
    """The driver's end of all connections, served by a thread.

    ``report`` receives the ranks' progress. ``stop`` is called once, after a rank has failed and all connections are
    closed. ``ranks``: the facts reported so far, by rank.
    """

    def __init__(
        self, host: str, bind: str, size: int, *, report: Callable[[str], None], stop: Callable[[], None]
    ) -> None:
        self._server = socket.create_server((bind, 0))
        self.address = Address(host, self._server.getsockname()[1], secrets.token_hex(16))
        self._size, self._report, self._stop = size, report, stop
        self._devices_reported = False
        self._selector = selectors.DefaultSelector()
        self._connections: dict[socket.socket, _Connection] = {}
        self._failures: list[Failure] = []
        self._failed_at: float | None = None
        self._closing, self._settled, self._outcome_known = threading.Event(), threading.Event(), threading.Event()
        self._done: set[int] = set()
        self.ranks: dict[int, Message] = {}
        self._thread = threading.Thread(target=self._serve, name="rank monitor", daemon=True)
        self._thread.start()

    def __enter__(self) -> "RankMonitor":
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._closing.set()
        self._thread.join()

    def failure(self) -> Failure | None:
        """Return the first failure that is not an echo of another rank's; None if no rank failed.

        Call this after the ranks have ended. It waits a few seconds for messages that are still in transit.
        """
        self._outcome_known.wait(SETTLE_SECONDS)
        if self._failed_at is not None:
            self._settled.wait(2 * SETTLE_SECONDS)
        return min(self._failures, key=lambda failure: failure.is_echo, default=None)

    def failed_for(self) -> float:
        """Return the seconds since the first failure; 0 without one."""
        return 0.0 if self._failed_at is None else time.monotonic() - self._failed_at

    def _serve(self) -> None:
        with self._selector, self._server:
            self._selector.register(self._server, selectors.EVENT_READ)
            while not self._closing.is_set():
                for key, _ in self._selector.select(timeout=0.2):
                    if key.fileobj is self._server:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket):
                        self._receive(key.fileobj)
                self._drop_silent_ranks()
                if self._failed_at is not None and not self._settled.is_set():
                    self._settle()
            self._close_connections()

    def _accept(self) -> None:
        client, _ = self._server.accept()
        if self._settled.is_set():  # a task that Spark retries after the failure
            client.close()
            return
        client.setblocking(False)
        self._connections[client] = _Connection()
        self._selector.register(client, selectors.EVENT_READ)

    def _receive(self, client: socket.socket) -> None:
        try:
            received = client.recv(1 << 16)
        except OSError:
            received = b""
        connection = self._connections[client]
        connection.received_at = time.monotonic()
        *messages, connection.unread = (connection.unread + received).split(b"\n")
        for message in messages:
            if not self._handle(connection, message):
                received = b""
                break
        if not received or len(connection.unread) > _MAX_LINE:
            self._drop(client, "died without an error message (killed, or out of memory?)")

    def _handle(self, connection: _Connection, text: bytes) -> bool:
        """Process one message. Return False if it is malformed or the token is wrong."""
        try:
            message = json.loads(text)
        except ValueError:
            return False
        if not isinstance(message, dict):
            return False
        if connection.rank is None:
            if not secrets.compare_digest(str(message.get("token")), self.address.token):
                return False
            connection.rank = int(message["rank"])
            connection.facts = {name: message[name] for name in ("rank", "host", "pid")}
        connection.facts |= message.get("facts", {})
        self.ranks[connection.rank] = connection.facts
        if "device" in message.get("facts", ()):
            self._report_devices()
        if "say" in message:
            self._report(message["say"])
        if "failed" in message:
            self._fail(Failure(connection.rank, message["failed"], message["kind"], message["traceback"]))
        connection.done = connection.done or "done" in message or "failed" in message
        if "done" in message:
            self._done.add(connection.rank)
            if len(self._done) == self._size:
                self._outcome_known.set()
        return True

    def _report_devices(self) -> None:
        """Report the devices of all ranks in one line, once every rank has sent its own."""
        placed = [facts for _, facts in sorted(self.ranks.items()) if "device" in facts]
        if len(placed) == self._size and not self._devices_reported:
            self._devices_reported = True
            shown = [f"{facts['rank']} {facts['host']}: {facts['device']}" for facts in placed[:_MAX_RANKS_SHOWN]]
            more = f"; and {len(placed) - _MAX_RANKS_SHOWN} more" if len(placed) > _MAX_RANKS_SHOWN else ""
            self._report(f"ranks: {'; '.join(shown)}{more}")

    def _drop_silent_ranks(self) -> None:
        now = time.monotonic()
        for client, connection in list(self._connections.items()):
            if now - connection.received_at > SILENCE_SECONDS:
                self._drop(client, f"sent no heartbeat for {SILENCE_SECONDS:.0f} s (hung, or disconnected?)")

    def _drop(self, client: socket.socket, reason: str) -> None:
        connection = self._connections.pop(client)
        self._selector.unregister(client)
        client.close()
        if connection.rank is not None and not connection.done and not self._closing.is_set():
            self._fail(Failure(connection.rank, reason))

    def _fail(self, failure: Failure) -> None:
        self._failures.append(failure)
        self._failed_at = self._failed_at or time.monotonic()
        self._outcome_known.set()

    def _settle(self) -> None:
        """Wait ``SETTLE_SECONDS`` for the other ranks' messages, then close all connections and call ``stop``."""
        assert self._failed_at is not None
        if self._connections and time.monotonic() - self._failed_at < SETTLE_SECONDS:
            return
        self._settled.set()
        self._close_connections()
        threading.Thread(target=self._call_stop, daemon=True).start()

    def _call_stop(self) -> None:
        with suppress(Exception):  # the rank's failure is the one to report
            self._stop()

    def _close_connections(self) -> None:
        for client in list(self._connections):
            self._selector.unregister(client)
            client.close()
        self._connections.clear()


def rank_name(rank: int, facts: Mapping[str, object], size: int) -> str:
    """Return a rank's name for messages, with its host and process id if they are known."""
    where = f" on {facts['host']} (pid {facts['pid']})" if "host" in facts else ""
    return f"rank {rank} of {size}{where}"
