"""The driver's monitor of training ranks: heartbeats, progress, and failures over TCP.

Ranks send lines of JSON: their identity, a heartbeat every two seconds, progress, and how they ended. The driver sends
nothing. It closes the connection, and a rank whose connection is closed exits at once. So no rank outlives its driver,
a rank that dies is detected within seconds under any launcher, and its traceback reaches the driver. Nothing is
unpickled. If a rank hangs in a step while its heartbeats continue, the communication of the others times out after ten
minutes.
"""

import asyncio
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from userrep.errors import PeerLostError, shortened

logger = logging.getLogger(__name__)

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


class RankMonitor:
    """The driver's end of all connections, served by an event loop in a thread.

    Logs the ranks' progress. ``stop`` is called once, after a rank has failed and all connections are closed.
    ``ranks``: the facts reported so far, by rank.
    """

    def __init__(self, host: str, bind: str, size: int, *, stop: Callable[[], None]) -> None:
        server = socket.create_server((bind, 0))
        self.address = Address(host, server.getsockname()[1], secrets.token_hex(16))
        self.ranks: dict[int, Message] = {}
        self._size, self._stop = size, stop
        self._devices_reported = False
        self._connections: set[asyncio.StreamWriter] = set()
        self._done: set[int] = set()
        self._failures: list[Failure] = []
        self._failed_at: float | None = None
        self._failed, self._outcome_known, self._settled = asyncio.Event(), threading.Event(), threading.Event()
        self._loop = asyncio.new_event_loop()
        self._serving = self._loop.create_task(self._serve(server))
        self._thread = threading.Thread(target=self._run, args=(server,), name="rank monitor", daemon=True)
        self._thread.start()

    def __enter__(self) -> "RankMonitor":
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._serving.cancel)
            self._thread.join()

    def failure(self) -> Failure | None:
        """Return the first failure that is not an echo of another rank's; None if no rank failed.

        Call this after the ranks have ended. It waits a few seconds for messages that are still in transit.
        """
        self._outcome_known.wait(SETTLE_SECONDS)
        if self._failures:
            self._settled.wait(2 * SETTLE_SECONDS)
        return min(self._failures, key=lambda failure: failure.is_echo, default=None)

    def failed_for(self) -> float:
        """Return the seconds since the first failure; 0 without one."""
        return 0.0 if self._failed_at is None else time.monotonic() - self._failed_at

    def _run(self, server: socket.socket) -> None:
        with suppress(asyncio.CancelledError), server, closing(self._loop):
            self._loop.run_until_complete(self._serving)

    async def _serve(self, server: socket.socket) -> None:
        """Read all connections. After a failure, wait for the other ranks' messages, close, and call ``stop``."""
        async with await asyncio.start_server(self._follow, sock=server, limit=_MAX_LINE):
            try:
                await self._failed.wait()
                while self._connections and self.failed_for() < SETTLE_SECONDS:
                    await asyncio.sleep(0.05)
                self._settled.set()
                await self._close_connections()
                threading.Thread(target=self._call_stop, daemon=True).start()
                await asyncio.Event().wait()  # until this task is canceled
            finally:
                self._settled.set()
                await self._close_connections()

    async def _close_connections(self) -> None:
        for connection in self._connections:
            connection.close()
        while self._connections:
            await asyncio.sleep(0.01)

    def _call_stop(self) -> None:
        with suppress(Exception):  # the rank's failure is the one to report
            self._stop()

    async def _follow(self, reader: asyncio.StreamReader, connection: asyncio.StreamWriter) -> None:
        """Read the messages of a connection until it ends, is silent for too long, or sends something malformed."""
        self._connections.add(connection)
        rank: int | None = None
        try:
            while not self._settled.is_set():  # else it is a task that Spark retries after the failure
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = _parsed(await reader.readline())
                if rank is None:
                    if not secrets.compare_digest(str(message.get("token")).encode(), self.address.token.encode()):
                        return
                    rank = int(message["rank"])
                    self.ranks[rank] = {name: message[name] for name in ("rank", "host", "pid")}
                self._handle(rank, message)
        except TimeoutError:
            self._lost(rank, f"sent no heartbeat for {SILENCE_SECONDS:.0f} s (hung, or disconnected?)")
        except (OSError, ValueError, KeyError):
            self._lost(rank, "died without an error message (killed, or out of memory?)")
        finally:
            connection.close()
            self._connections.discard(connection)

    def _handle(self, rank: int, message: Message) -> None:
        self.ranks[rank] |= message.get("facts", {})
        if "device" in message.get("facts", ()):
            self._report_devices()
        if "say" in message:
            logger.info(message["say"])
        if "failed" in message:
            self._fail(Failure(rank, message["failed"], message["kind"], message["traceback"]))
        if "done" in message or "failed" in message:
            self._done.add(rank)
        if len(self._done) == self._size:
            self._outcome_known.set()

    def _report_devices(self) -> None:
        """Report the devices of all ranks in one line, once every rank has sent its own."""
        placed = [facts for _, facts in sorted(self.ranks.items()) if "device" in facts]
        if len(placed) == self._size and not self._devices_reported:
            self._devices_reported = True
            ranks = [f"{facts['rank']} {facts['host']}: {facts['device']}" for facts in placed]
            logger.info(f"ranks: {shortened(ranks, most=_MAX_RANKS_SHOWN, separator='; ')}")

    def _lost(self, rank: int | None, reason: str) -> None:
        """Record a failure if a connection ended before its rank did."""
        if rank is not None and rank not in self._done and not self._settled.is_set():
            self._fail(Failure(rank, reason))

    def _fail(self, failure: Failure) -> None:
        self._failures.append(failure)
        self._failed_at = self._failed_at or time.monotonic()
        self._failed.set()
        self._outcome_known.set()


def _parsed(line: bytes) -> Message:
    """Parse a message. Raises ValueError if it is malformed, or empty because the connection has ended."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"expected a JSON object, got {line[:80]!r}")
    return message


def rank_name(rank: int, facts: Mapping[str, object], size: int) -> str:
    """Return a rank's name for messages, with its host and process id if they are known."""
    where = f" on {facts['host']} (pid {facts['pid']})" if "host" in facts else ""
    return f"rank {rank} of {size}{where}"
