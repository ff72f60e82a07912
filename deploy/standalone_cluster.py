"""A Spark standalone cluster on this machine: one Master, and Workers that declare one GPU each.

    python -m deploy.standalone_cluster

prints the master's URL and runs until Ctrl-C. The GPUs are only declared and need not exist: Spark assigns their
addresses to tasks as on a cluster with GPUs. Everything is bound to 127.0.0.1, on free ports.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyspark

from userrep.errors import UserrepError

REPOSITORY = Path(__file__).parents[1]
SPARK_HOME = Path(pyspark.__file__).parent
START_SECONDS = 60
STOP_SECONDS = 10

_MARK = "USERREP_CLUSTER"  # environment variable of all processes that a cluster starts, and of their children
_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"
_EXECUTOR = "org.apache.spark.executor.CoarseGrainedExecutorBackend"


@dataclass(frozen=True)
class Driver:
    """A process that uses the cluster, with its output, stderr included, in ``log``."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, seconds: float = 600) -> int:
        """Return the exit code. A driver that takes longer than ``seconds`` is killed.

        Raises
        ------
        UserrepError
            If it takes longer than ``seconds``, with the end of its log.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise UserrepError(
                f"cluster: a driver did not end within {seconds:g} s; its log ends with\n{tail_of(self.log)}"
            ) from None

    def kill(self) -> None:
        """Kill the driver and its JVM."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def said(self) -> str:
        """Return the driver's output so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


class StandaloneCluster:
    """One Master and ``num_workers`` Workers, started on entry and stopped on exit.

    Each Worker offers ``cores`` and ``memory`` (in Spark's notation, such as 1536m). Worker ``k`` declares GPU ``k``.
    With ``own_addresses`` it listens on 127.0.0.(k + 1), which Spark treats as a separate host; else all use 127.0.0.1.
    Logs and work folders are in ``folder``. Cost: 256 MiB of heap per process, about 5 s to start.
    """

    master_url: str
    workers: list[subprocess.Popen[bytes]]  # the JVMs; a Worker's executors are its children

    def __init__(
        self,
        folder: Path,
        *,
        num_workers: int = 2,
        cores: int = 1,
        memory: str = "1536m",
        own_addresses: bool = False,
    ) -> None:
        self.folder = folder.resolve()
        self._num_workers, self._cores, self._memory = num_workers, cores, memory
        self._own_addresses = own_addresses
        self._id = uuid.uuid4().hex
        self._launched: list[subprocess.Popen[bytes]] = []
        self._num_drivers = 0

    def __enter__(self) -> "StandaloneCluster":
        """Start the Master, then the Workers, and wait until all of them are registered.

        Raises
        ------
        UserrepError
            If one of them ends or is not ready within a minute, with the end of its log.
        """
        (self.folder / "conf").mkdir(parents=True, exist_ok=True)
        try:
            self._start_master()
            self.workers = [self._launch_worker(k) for k in range(self._num_workers)]
            for k in range(self._num_workers):
                self._wait_for_registration(k)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_worker(self, k: int) -> None:
        """Start the killed Worker ``k`` again, and wait until it is registered."""
        self.workers[k] = self._launch_worker(k)
        self._wait_for_registration(k)

    def kill_worker(self, k: int) -> None:
        """Kill the JVM of Worker ``k`` (SIGKILL). Its executors end by themselves when they lose the connection."""
        self.workers[k].kill()
        self.workers[k].wait()

    def executors(self, worker: int | None = None) -> list[psutil.Process]:
        """Return the executors' JVMs of one Worker, or of all, including those of killed Workers."""
        executors = [process for process in self.processes() if _EXECUTOR in command_of(process)]
        return [process for process in executors if worker is None or process.ppid() == self.workers[worker].pid]

    def state(self) -> dict[str, Any]:
        """Return the Master's state as JSON, with its Workers (``workers``) and applications."""
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{self._web_url}/json/") as answer:
            state: dict[str, Any] = json.load(answer)
        return state

    def submit(
        self, script: Path | str, *arguments: object, properties: Path, conf: Mapping[str, str] | None = None
    ) -> Driver:
        """Start a script with spark-submit in client mode. ``conf`` takes precedence over the properties file."""
        settings = [word for key, value in (conf or {}).items() for word in ("--conf", f"{key}={value}")]
        submit = [SPARK_HOME / "bin" / "spark-submit", "--master", self.master_url, "--properties-file", properties]
        return self.run(*submit, *settings, script, *arguments)

    def run(self, *command: object) -> Driver:
        """Start a command in the root of the repository, with Spark bound to this machine."""
        self._num_drivers += 1
        log = self.folder / f"driver-{self._num_drivers}.log"
        return Driver(self._launch(log, *command, PYTHONPATH=str(REPOSITORY), PYSPARK_PYTHON=sys.executable), log)

    def stop(self) -> None:
        """Stop all processes that the cluster has started, including executors, ranks and drivers.

        Raises
        ------
        UserrepError
            If one of them is still running.
        """
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in self.processes():
                with suppress(psutil.NoSuchProcess):
                    end(process)
            deadline = time.monotonic() + STOP_SECONDS
            while self.processes() and time.monotonic() < deadline:
                time.sleep(0.1)
        for launched in self._launched:
            with suppress(subprocess.TimeoutExpired):
                launched.wait(STOP_SECONDS)  # so that it does not remain a zombie
        if left := self.processes():
            raise UserrepError(f"cluster: processes {[process.pid for process in left]} could not be stopped.")

    def _start_master(self) -> None:
        settings = self._properties("master.conf", {"spark.master.rest.enabled": "false"})
        log = self.folder / "master.log"
        options = ("--host", "127.0.0.1", "--port", 0, "--webui-port", 0, "--properties-file", settings)
        master = self._launch(log, SPARK_HOME / "bin" / "spark-class", _MASTER, *options)
        pattern = r"Starting Spark master at (spark://\S+)(?s:.*) and started at (http://\S+)"
        self.master_url, self._web_url = _wait_for_log("the Master", master, log, pattern).groups()

    def _launch_worker(self, k: int) -> subprocess.Popen[bytes]:
        discovery = REPOSITORY / "deploy" / "gpu_addresses.sh"
        gpu = {"spark.worker.resource.gpu.amount": "1", "spark.worker.resource.gpu.discoveryScript": str(discovery)}
        host = f"127.0.0.{k + 1 if self._own_addresses else 1}"
        options = {
            "--host": host, "--port": 0, "--webui-port": 0, "--cores": self._cores, "--memory": self._memory,
            "--work-dir": self.folder / f"worker-{k}", "--properties-file": self._properties("worker.conf", gpu),
        }  # fmt: skip
        words = [word for option in options.items() for word in option]
        command = (SPARK_HOME / "bin" / "spark-class", _WORKER, *words, self.master_url)
        return self._launch(self.folder / f"worker-{k}.log", *command, GPU_ADDRESSES=str(k))

    def _wait_for_registration(self, k: int) -> None:
        log = self.folder / f"worker-{k}.log"
        _wait_for_log(f"Worker {k}", self.workers[k], log, r"Successfully registered with master")

    def _properties(self, name: str, settings: Mapping[str, str]) -> Path:
        path = self.folder / "conf" / name
        path.write_text("".join(f"{key} {value}\n" for key, value in settings.items()), encoding="utf-8")
        return path

    def _launch(self, log: Path, *command: object, **more: str) -> subprocess.Popen[bytes]:
        """Start a command in its own session, so that Ctrl-C reaches only this process."""
        local = {
            _MARK: self._id,
            "SPARK_HOME": str(SPARK_HOME),
            "SPARK_CONF_DIR": str(self.folder / "conf"),  # ignores this machine's own configuration
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_PUBLIC_DNS": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "256m",
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=REPOSITORY,
                env=without_spark_settings() | local | more,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._launched.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """Return all running processes of this cluster, by their environment, since parents may have ended."""
        running = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == self._id:
                    running.append(process)
            except psutil.Error:  # it has ended, or belongs to another user
                continue
        return running


def without_spark_settings() -> dict[str, str]:
    """Return the environment of this process without its settings of Spark."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_"))}


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _wait_for_log(name: str, process: subprocess.Popen[bytes], log: Path, pattern: str) -> re.Match[str]:
    """Wait until a process has logged a text that matches the pattern. Raise if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not (match := re.search(pattern, log.read_text(encoding="utf-8", errors="replace"))):
        late = time.monotonic() > deadline
        if late or process.poll() is not None:
            how = f"was not ready after {START_SECONDS} s" if late else "ended at its start"
            raise UserrepError(f"cluster: {name} {how}; its log {log} ends with\n{tail_of(log)}")
        time.sleep(0.1)
    return match


def tail_of(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="number of Workers (%(default)s)")
    parser.add_argument("--cores", type=int, default=1, help="cores of each (%(default)s)")
    parser.add_argument("--memory", default="1536m", help="memory of each for executors (%(default)s)")
    parser.add_argument("--folder", type=Path, help="for logs and work folders (default: a temporary one)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        with StandaloneCluster(folder, num_workers=args.workers, cores=args.cores, memory=args.memory) as cluster:
            print(cluster.master_url, flush=True)
            try:
                signal.pause()
            except KeyboardInterrupt:
                print("stopping", file=sys.stderr)


if __name__ == "__main__":
    main()
