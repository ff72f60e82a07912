"""The process of one rank of a distributed training, under any launcher."""

import json
import os
import select
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from userrep.training.launch.rank_monitor import HEARTBEAT_SECONDS, SILENCE_SECONDS, Address

if TYPE_CHECKING:
    from userrep.training.task import TrainingTask

RANK_VARIABLES = {"horovod": "HOROVOD_RANK", "torch_distributor": "RANK"}  # set by each launcher
_DRIVER_LOST = 70  # exit code


class DriverConnection:
    """A rank's connection to the driver's ``RankMonitor``. While it is open, this process exits when the driver does.

    A thread sends heartbeats and watches the connection. It exits the process with code 70 once the driver has closed
    the connection or cannot be reached.
    """

    def __init__(self, address: Address, rank: int) -> None:
        self._socket = socket.create_connection(address[:2], timeout=SILENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * SILENCE_SECONDS))
        self._lock = threading.Lock()
        self.send(token=address.token, rank=rank, host=socket.gethostname(), pid=os.getpid())
        threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True).start()

    def send(self, **message: object) -> None:
        """Send a message: ``facts`` about this rank, a line to ``say``, that it is ``done``, or none, a heartbeat."""
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def send_failure(self, error: BaseException) -> None:
        """Send the exception that ended this rank, with at most 100,000 characters of its traceback."""
        trace = "".join(traceback.format_exception(error))
        self.send(failed=str(error), kind=type(error).__name__, traceback=trace[-100_000:])

    def _send_heartbeats(self) -> None:
        closed = select.poll()
        closed.register(self._socket, select.POLLIN)  # the driver sends nothing, so only an end can be read
        with suppress(OSError):
            while not closed.poll(1000 * HEARTBEAT_SECONDS):
                self.send()
        os._exit(_DRIVER_LOST)


def train_rank(task: "TrainingTask", address: Address, resume: str | None) -> None:
    """Train as one rank and report progress and the outcome to the driver, which reads the last checkpoint itself.

    On failure, the rank sends its traceback and exits with code 1 at once. Launchers only see an exit code, and their
    clean-up may wait for other ranks.
    """
    backend = task.training.backend
    driver = DriverConnection(address, int(os.environ[RANK_VARIABLES[backend]]))
    try:
        from userrep.training.launch.comm import HorovodComm, TorchComm
        from userrep.training.loop import train

        comm = HorovodComm() if backend == "horovod" else TorchComm()
        driver.send(facts={"device": comm.device_name})
        result = train(task, comm, lambda line: driver.send(say=line), resume=resume)
        driver.send(facts=result.ranks[0], done=True)
        comm.close()
    except BaseException as error:
        with suppress(OSError):  # the driver is gone
            driver.send_failure(error)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
