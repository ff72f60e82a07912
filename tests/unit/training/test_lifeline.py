"""The line between driver and ranks: a lost rank is known, a lost driver ends the rank, strangers change nothing."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from userrep.errors import PeerLostError
from userrep.training.launch import lifeline
from userrep.training.launch.lifeline import Address, Failure, Lifeline, told

pytestmark = pytest.mark.default


class Driver:
    """A lifeline's driver end, and what came of it."""

    def __init__(self, size: int = 2) -> None:
        self.lines: list[str] = []
        self.stopped = threading.Event()
        self.sockets: list[socket.socket] = []
        self.end = Lifeline("127.0.0.1", "127.0.0.1", size, report=self.lines.append, stop=self.stopped.set)

    def stranger(self) -> socket.socket:
        """Connect, and say nothing."""
        self.sockets.append(socket.create_connection(self.end.address[:2]))
        return self.sockets[-1]

    def rank(self, number: int) -> socket.socket:
        """Connect as a rank that sends nothing by itself."""
        line = self.stranger()
        send(line, {"token": self.end.address.token, "rank": number, "host": "h", "pid": 7})
        return line


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.setattr(lifeline, "SETTLE_SECONDS", 0.5)
    driver = Driver()
    with driver.end:
        yield driver
    for line in driver.sockets:
        line.close()


def send(line: socket.socket, message: object) -> None:
    line.sendall(json.dumps(message).encode() + b"\n")


def soon(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def is_closed(line: socket.socket) -> bool:
    line.settimeout(10)
    return line.recv(1) == b""


RANK = """
import sys, threading
from userrep.training.launch.lifeline import Address, RankLine
line = RankLine(Address(sys.argv[1], int(sys.argv[2]), sys.argv[3]), 0)
line.say("here")
{then}
"""


def rank_process(address: Address, then: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", RANK.format(then=then), *map(str, address)])


def test_a_rank_process_ends_when_the_driver_cuts_the_line(driver: Driver) -> None:
    process = rank_process(driver.end.address, "threading.Event().wait()")
    soon(lambda: driver.lines == ["here"])
    driver.end.__exit__()
    assert process.wait(10) == 70


def test_a_killed_rank_is_known_and_the_others_are_cut_off(driver: Driver) -> None:
    process, other = rank_process(driver.end.address, "threading.Event().wait()"), driver.rank(1)
    soon(lambda: driver.lines == ["here"])
    process.kill()
    process.wait()
    assert is_closed(other)
    assert driver.stopped.wait(10)
    failure = driver.end.failure()
    assert failure == Failure(0, "died without a word (killed, or out of memory?)")
    assert told(0, driver.end.ranks[0], 2) == f"rank 0 of 2 on {socket.gethostname()} (pid {process.pid})"


def test_a_rank_s_own_exception_comes_with_its_traceback_and_before_its_echoes(driver: Driver) -> None:
    echo = driver.rank(1)
    send(echo, {"failed": "a peer is gone", "kind": PeerLostError.__name__, "traceback": ""})
    soon(lambda: driver.end.failed_for() > 0)
    then = "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    line.failed(error)"
    assert rank_process(driver.end.address, then).wait(30) == 0
    failure = driver.end.failure()
    assert failure is not None
    assert (failure.rank, failure.kind, failure.message) == (0, "ZeroDivisionError", "division by zero")
    assert "1 / 0" in failure.traceback or "<string>" in failure.traceback


def test_a_rank_that_is_done_may_leave(driver: Driver) -> None:
    assert rank_process(driver.end.address, "line.tell(rows_per_second=2.5)\nline.done()").wait(30) == 0
    soon(lambda: driver.end.ranks.get(0, {}).get("rows_per_second") == 2.5)
    assert driver.end.failure() is None


def test_a_rank_that_falls_silent_has_failed(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "SILENCE_SECONDS", 0.5)
    line = driver.rank(1)
    assert is_closed(line)
    failure = driver.end.failure()
    assert failure is not None
    assert "has not been heard of" in failure.message


def test_a_rank_beats_by_itself(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "SILENCE_SECONDS", 3 * lifeline.BEAT_SECONDS / 2)
    process = rank_process(driver.end.address, "threading.Event().wait(5)\nline.done()")
    assert process.wait(30) == 0
    assert driver.end.failure() is None


def test_where_ranks_compute_is_told_once_all_have_said_it(driver: Driver) -> None:
    lines = [driver.rank(number) for number in (1, 0)]
    send(lines[0], {"facts": {"device": "CPU"}})
    send(lines[1], {"facts": {"device": "H100 (cuda:3)"}})
    soon(lambda: driver.lines)
    send(lines[1], {"facts": {"device": "H100 (cuda:3)"}})
    send(lines[1], {"say": "epoch 1"})
    soon(lambda: "epoch 1" in driver.lines)
    assert driver.lines == ["ranks: 0 h: H100 (cuda:3); 1 h: CPU", "epoch 1"]


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"token": "guess", "rank": 0}\n', b"\xff\n", b"x" * (2 << 20)],
    ids=["nothing", "http", "list", "token", "bytes", "endless"],
)
def test_a_stranger_is_dropped_and_changes_nothing(driver: Driver, said: bytes) -> None:
    stranger = driver.stranger()
    try:
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        assert is_closed(stranger)
    except OSError:
        pass  # dropped before it was done
    line = driver.rank(0)
    send(line, {"say": "still here"})
    soon(lambda: driver.lines == ["still here"])
    assert driver.end.failure() is None
    assert list(driver.end.ranks) == [0]


def test_ranks_that_come_after_a_failure_are_turned_away(driver: Driver) -> None:
    driver.rank(0).close()
    assert driver.stopped.wait(10)
    assert is_closed(driver.stranger())


def test_a_rank_without_a_driver_says_so(driver: Driver) -> None:
    driver.end.__exit__()
    with pytest.raises(OSError, match="refused"):
        driver.rank(0)
