"""Servers on this machine that tests and benchmarks start, stop or kill, and start again."""

import random
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from deploy.standalone_cluster import tail_of
from userrep.errors import UserrepError

START_SECONDS = 60
STOP_SECONDS = 10
PORTS = range(20000, 32000)  # below the range of outgoing connections, which could take the port of a stopped server


class LocalServer:
    """One server on a port of 127.0.0.1, started on entry and stopped on exit. ``folder`` is not deleted.

    Subclasses define ``name``, the ``command`` that starts the server, and ``answers``, which checks that it is up.
    """

    name: str

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder.resolve()
        self.port = port or free_port()
        self.log = self.folder / f"{self.name}.log"
        self._launched: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self) -> list[object]:
        """Return the command that starts the server, and write the files it needs to ``folder``."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Return whether the server answers a request."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server, for the first time or again, on the same port and folder, and wait until it answers.

        Raises
        ------
        UserrepError
            If the port is in use, the folder cannot be created, or the server ends or does not answer within a minute
            (with the end of its log).
        """
        if not _is_free(self.port):
            raise UserrepError(f"{self.name}: port {self.port} of 127.0.0.1 is in use. Choose another, or none.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
            raise UserrepError(f"{self.name}: {self.folder} cannot be a folder ({reason}). Choose another.") from error
        try:
            self._wait_until_it_answers(self.launch(self.command()))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Terminate the server, and kill it if it does not end.

        Raises
        ------
        UserrepError
            If it is still running afterwards.
        """
        _end(self.processes(), subprocess.Popen.terminate)
        self.kill()

    def kill(self) -> None:
        """Kill the server (SIGKILL), as in a machine failure."""
        _end(self.processes(), subprocess.Popen.kill)
        if left := self.processes():
            raise UserrepError(f"{self.name}: processes {[process.pid for process in left]} could not be stopped.")

    def processes(self) -> list[subprocess.Popen[bytes]]:
        """Return the running processes. These servers start no child processes."""
        return [process for process in self._launched if process.poll() is None]

    def launch(self, command: list[object]) -> subprocess.Popen[bytes]:
        """Start a command in its own session, so that Ctrl-C reaches only this process."""
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._launched = [*self.processes(), process]
        return process

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_SECONDS
        while not self.answers():
            late = time.monotonic() > until
            if late or process.poll() is not None:
                how = f"did not answer within {START_SECONDS} s" if late else "ended at its start"
                raise UserrepError(f"{self.name}: the server {how}; its log {self.log} ends with\n{tail_of(self.log)}")
            time.sleep(0.1)


def free_port(*, but: int | None = None) -> int:
    """Return a free port of 127.0.0.1 outside the range that the system assigns by itself."""
    return next(port for port in random.sample(PORTS, len(PORTS)) if port != but and _is_free(port))


def _end(processes: list[subprocess.Popen[bytes]], end: Callable[[subprocess.Popen[bytes]], None]) -> None:
    for process in processes:
        end(process)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, to ignore closed connections
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
