"""The rank monitor: lost ranks are detected, a lost driver ends its ranks, and foreign connections have no effect."""

import gc
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.log_lines import messages_to
from userrep.errors import PeerLostError
from userrep.training.launch import rank_monitor
from userrep.training.launch.rank_monitor import HEARTBEAT_SECONDS, Address, Failure, RankMonitor, rank_name

pytestmark = pytest.mark.default


class Driver:
    """A driver with its rank monitor, and a record of what it reported."""

    def __init__(self, size: int = 2) -> None:
        self.lines: list[str] = []
        self.stopped = threading.Event()
        self.sockets: list[socket.socket] = []
        self.monitor = RankMonitor("127.0.0.1", "127.0.0.1", size, stop=self.stopped.set)

    def stranger(self) -> socket.socket:
        """Connect without sending anything."""
        self.sockets.append(socket.create_connection(self.monitor.address[:2]))
        return self.sockets[-1]

    def rank(self, number: int) -> socket.socket:
        """Connect as a rank that sends no heartbeats."""
        connection = self.stranger()
        send(connection, {"token": self.monitor.address.token, "rank": number, "host": "h", "pid": 7})
        return connection


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.setattr(rank_monitor, "SETTLE_SECONDS", 0.5)
    driver = Driver()
    with driver.monitor, messages_to(driver.lines.append):
        yield driver
    for connection in driver.sockets:
        connection.close()


def send(connection: socket.socket, message: object) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def soon(condition: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "the condition did not become true within 10 s"
        time.sleep(0.01)


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(10)
    return connection.recv(1) == b""


RANK = """
import os, sys, threading, time
from userrep.training.launch.rank_monitor import Address
from userrep.training.launch.ranks import DriverConnection
driver = DriverConnection(Address(sys.argv[1], int(sys.argv[2]), sys.argv[3]), 0)
driver.send(say="here")
{then}
"""


def rank_process(address: Address, then: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", RANK.format(then=then), *map(str, address)])


def test_a_rank_process_exits_when_the_driver_closes_the_connection(driver: Driver) -> None:
    process = rank_process(driver.monitor.address, "threading.Event().wait()")
    soon(lambda: driver.lines == ["here"])
    driver.monitor.__exit__()
    assert process.wait(10) == 70


def test_a_killed_rank_is_detected_and_the_other_connections_are_closed(driver: Driver) -> None:
    process, other = rank_process(driver.monitor.address, "threading.Event().wait()"), driver.rank(1)
    soon(lambda: driver.lines == ["here"])
    process.kill()
    process.wait()
    assert is_closed(other)
    assert driver.stopped.wait(10)
    failure = driver.monitor.failure()
    assert failure == Failure(0, "died without an error message (killed, or out of memory?)")
    assert rank_name(0, driver.monitor.ranks[0], 2) == f"rank 0 of 2 on {socket.gethostname()} (pid {process.pid})"


def test_the_original_exception_is_reported_with_its_traceback_instead_of_its_echoes(
    driver: Driver, tmp_path: Path
) -> None:
    then = f"while not os.path.exists({str(tmp_path / 'go')!r}):\n    time.sleep(0.02)\n"
    then += "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    driver.send_failure(error)"
    echo, process = driver.rank(1), rank_process(driver.monitor.address, then)
    soon(lambda: driver.lines == ["here"])
    send(echo, {"failed": "a peer is gone", "kind": PeerLostError.__name__, "traceback": ""})
    soon(lambda: driver.monitor.failed_for() > 0)
    (tmp_path / "go").touch()
    assert process.wait(30) == 0
    failure = driver.monitor.failure()
    assert failure is not None
    assert (failure.rank, failure.kind, failure.message) == (0, "ZeroDivisionError", "division by zero")
    assert "1 / 0" in failure.traceback or "<string>" in failure.traceback


def test_a_finished_rank_may_disconnect(driver: Driver) -> None:
    assert rank_process(driver.monitor.address, "driver.send(facts=dict(rows_per_second=2.5), done=True)").wait(30) == 0
    soon(lambda: driver.monitor.ranks.get(0, {}).get("rows_per_second") == 2.5)
    assert driver.monitor.failure() is None


def test_a_rank_without_heartbeats_has_failed(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_monitor, "SILENCE_SECONDS", 0.5)
    line = driver.rank(1)
    assert is_closed(line)
    failure = driver.monitor.failure()
    assert failure is not None
    assert "sent no heartbeat for" in failure.message


def test_a_rank_sends_heartbeats_in_the_background(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_monitor, "SILENCE_SECONDS", 3 * HEARTBEAT_SECONDS / 2)
    process = rank_process(driver.monitor.address, "threading.Event().wait(5)\ndriver.send(done=True)")
    assert process.wait(30) == 0
    assert driver.monitor.failure() is None


def test_devices_are_reported_once_after_all_ranks_have_sent_them(driver: Driver) -> None:
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
    [
        b"", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"token": "guess", "rank": 0}\n', '{"token": "é"}\n'.encode(),
        b"\xff\n", b"x" * (2 << 20),
    ],
    ids=["nothing", "http", "list", "token", "accent", "bytes", "endless"],
)  # fmt: skip
def test_a_foreign_connection_is_dropped_without_effect(
    driver: Driver, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = driver.stranger()
    try:
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        assert is_closed(stranger)
    except OSError:
        pass  # dropped while sending
    line = driver.rank(0)
    send(line, {"say": "still here"})
    soon(lambda: driver.lines == ["still here"])
    assert driver.monitor.failure() is None
    assert list(driver.monitor.ranks) == [0]
    gc.collect()  # asyncio logs the exception of a task once the task is deleted
    assert "asyncio" not in {record.name for record in caplog.records}


def test_connections_after_a_failure_are_closed(driver: Driver) -> None:
    driver.rank(0).close()
    assert driver.stopped.wait(10)
    assert is_closed(driver.stranger())


def test_a_rank_without_a_driver_fails_to_connect(driver: Driver) -> None:
    driver.monitor.__exit__()
    with pytest.raises(OSError, match="refused"):
        driver.rank(0)
