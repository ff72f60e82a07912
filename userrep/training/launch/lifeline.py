"""The line between the driver and the ranks of a training: who is cut off from the other end stops.

Ranks send lines of JSON over TCP: who they are, a beat every two seconds, progress, how it ended. The driver answers
nothing; it closes the line, and a rank whose line is closed ends at once. So no rank outlives its driver, a rank that
dies or hangs is known in seconds whatever launched it, and its own traceback reaches the driver. Nothing is unpickled.
"""

import json
import os
import secrets
import selectors
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from userrep.errors import PeerLostError

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 30.0  # after which a rank counts as hung
SETTLE_SECONDS = 3.0  # for which the driver hears the other ranks out, when one has failed
_CUT_OFF = 70  # exit code of a rank without a driver
_MAX_LINE = 1 << 20  # bytes
_SHOWN = 8  # ranks, in the line that says where they compute
Message = dict[str, Any]


class Address(NamedTuple):
    """Where the driver listens, and the word by which it knows its ranks."""

    host: str
    port: int
    token: str


@dataclass(frozen=True)
class Failure:
    """How a rank ended. ``kind``: its exception's class; none where it was not heard of again."""

    rank: int
    message: str
    kind: str = ""
    traceback: str = ""

    @property
    def is_echo(self) -> bool:
        """Whether it only says that another rank has failed."""
        return self.kind == PeerLostError.__name__


class RankLine:
    """A rank's end. From now on the process ends when the driver's end is closed."""

    def __init__(self, address: Address, rank: int) -> None:
        self._socket = socket.create_connection(address[:2], timeout=SILENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * SILENCE_SECONDS))
        self._lock = threading.Lock()
        self._send({"token": address.token, "rank": rank, "host": socket.gethostname(), "pid": os.getpid()})
        threading.Thread(target=self._live, name="lifeline", daemon=True).start()

    def tell(self, **facts: object) -> None:
        """Tell the driver facts about this rank."""
        self._send({"facts": facts})

    def say(self, line: str) -> None:
        """Have the driver print a line of progress."""
        self._send({"say": line})

    def done(self) -> None:
        """Say that this rank has done its part."""
        self._send({"done": True})

    def failed(self, error: BaseException) -> None:
        """Say how this rank failed."""
        said = "".join(traceback.format_exception(error))
        self._send({"failed": str(error), "kind": type(error).__name__, "traceback": said[-100_000:]})

    def _live(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            while True:
                try:
                    self._send({})
                    if selector.select(BEAT_SECONDS) and not self._socket.recv(1):
                        os._exit(_CUT_OFF)
                except OSError:
                    os._exit(_CUT_OFF)

    def _send(self, message: Message) -> None:
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")


@dataclass
class _Line:
    """One rank as the driver knows it."""

    unread: bytes = b""
    rank: int | None = None
    facts: Message = field(default_factory=dict)
    heard_at: float = field(default_factory=time.monotonic)
    done: bool = False


class Lifeline:
    """The driver's end, served by a thread.

    ``report`` gets the ranks' progress; ``stop`` is called once when a rank has failed and all lines are cut.
    """

    def __init__(
        self, host: str, bind: str, size: int, *, report: Callable[[str], None], stop: Callable[[], None]
    ) -> None:
        self._server = socket.create_server((bind, 0))
        self.address = Address(host, self._server.getsockname()[1], secrets.token_hex(16))
        self._size, self._report, self._stop = size, report, stop
        self._told_devices = False
        self._selector = selectors.DefaultSelector()
        self._lines: dict[socket.socket, _Line] = {}
        self._failures: list[Failure] = []
        self._failed_at: float | None = None
        self._closing, self._settled, self._heard_out = threading.Event(), threading.Event(), threading.Event()
        self._done: set[int] = set()
        self.ranks: dict[int, Message] = {}
        self._thread = threading.Thread(target=self._serve, name="lifeline", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Lifeline":
        return self

    def __exit__(self, *_: object) -> None:
        """Cut all lines."""
        self._closing.set()
        self._thread.join()

    def failure(self) -> Failure | None:
        """Return what made the training fail, if anything: the first failure that is no echo of another's.

        To be asked when the ranks have ended: their last words may be on the way, and are waited for.
        """
        self._heard_out.wait(SETTLE_SECONDS)
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
                        self._hear(key.fileobj)
                self._look_for_silence()
                if self._failed_at is not None and not self._settled.is_set():
                    self._settle()
            self._cut()

    def _accept(self) -> None:
        line, _ = self._server.accept()
        if self._settled.is_set():  # a task that Spark has tried again
            line.close()
            return
        line.setblocking(False)
        self._lines[line] = _Line()
        self._selector.register(line, selectors.EVENT_READ)

    def _hear(self, line: socket.socket) -> None:
        try:
            received = line.recv(1 << 16)
        except OSError:
            received = b""
        mine = self._lines[line]
        mine.heard_at = time.monotonic()
        *messages, mine.unread = (mine.unread + received).split(b"\n")
        for message in messages:
            if not self._understand(mine, message):
                received = b""
                break
        if not received or len(mine.unread) > _MAX_LINE:
            self._drop(line, "died without a word (killed, or out of memory?)")

    def _understand(self, mine: _Line, text: bytes) -> bool:
        """Take one message; say whether it is one of a rank of ours."""
        try:
            message = json.loads(text)
        except ValueError:
            return False
        if not isinstance(message, dict):
            return False
        if mine.rank is None:
            if not secrets.compare_digest(str(message.get("token")), self.address.token):
                return False
            mine.rank = int(message["rank"])
            mine.facts = {name: message[name] for name in ("rank", "host", "pid")}
        mine.facts |= message.get("facts", {})
        self.ranks[mine.rank] = mine.facts
        if "device" in message.get("facts", ()):
            self._tell_devices()
        if "say" in message:
            self._report(message["say"])
        if "failed" in message:
            self._fail(Failure(mine.rank, message["failed"], message["kind"], message["traceback"]))
        mine.done = mine.done or "done" in message or "failed" in message
        if "done" in message:
            self._done.add(mine.rank)
            if len(self._done) == self._size:
                self._heard_out.set()
        return True

    def _tell_devices(self) -> None:
        """Say once, when all ranks have said it, where they compute."""
        placed = [facts for _, facts in sorted(self.ranks.items()) if "device" in facts]
        if len(placed) == self._size and not self._told_devices:
            self._told_devices = True
            shown = [f"{facts['rank']} {facts['host']}: {facts['device']}" for facts in placed[:_SHOWN]]
            more = f"; and {len(placed) - _SHOWN} more" if len(placed) > _SHOWN else ""
            self._report(f"ranks: {'; '.join(shown)}{more}")

    def _look_for_silence(self) -> None:
        now = time.monotonic()
        for line, mine in list(self._lines.items()):
            if now - mine.heard_at > SILENCE_SECONDS:
                self._drop(line, f"has not been heard of for {SILENCE_SECONDS:.0f} s (hung, or cut off?)")

    def _drop(self, line: socket.socket, reason: str) -> None:
        mine = self._lines.pop(line)
        self._selector.unregister(line)
        line.close()
        if mine.rank is not None and not mine.done and not self._closing.is_set():
            self._fail(Failure(mine.rank, reason))

    def _fail(self, failure: Failure) -> None:
        self._failures.append(failure)
        self._failed_at = self._failed_at or time.monotonic()
        self._heard_out.set()  # nothing to wait for any more

    def _settle(self) -> None:
        """Hear the other ranks out for a while, then cut all lines and stop what launched the ranks."""
        assert self._failed_at is not None
        if self._lines and time.monotonic() - self._failed_at < SETTLE_SECONDS:
            return
        self._settled.set()
        self._cut()
        threading.Thread(target=self._call_stop, daemon=True).start()

    def _call_stop(self) -> None:
        with suppress(Exception):  # the failure is the one to tell
            self._stop()

    def _cut(self) -> None:
        for line in list(self._lines):
            self._selector.unregister(line)
            line.close()
        self._lines.clear()


def told(rank: int, facts: Mapping[str, object], size: int) -> str:
    """Name a rank for people."""
    where = f" on {facts['host']} (pid {facts['pid']})" if "host" in facts else ""
    return f"rank {rank} of {size}{where}"
