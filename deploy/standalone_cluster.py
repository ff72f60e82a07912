"""A Spark standalone cluster on this machine: one Master, and Workers that declare one GPU each.

    python -m deploy.standalone_cluster

prints the master's URL and runs until Ctrl-C. The GPUs are declared, not needed: Spark assigns their addresses to
tasks as it does on a cluster that has them. Everything is bound to 127.0.0.1, on free ports.
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

_MARK = "USERREP_CLUSTER"  # in the environment of each process that a cluster starts, and of what those start
_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"
_EXECUTOR = "org.apache.spark.executor.CoarseGrainedExecutorBackend"


@dataclass(frozen=True)
class Driver:
    """A process that uses the cluster, with its output, stderr included, in ``log``."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, seconds: float = 600) -> int:
        """Return the exit code; a driver that takes longer is killed.

        Raises
        ------
        UserrepError
            If it takes longer, with the end of its log.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise UserrepError(
                f"cluster: a driver did not end within {seconds:g} s; its log ends with\n{tail_of(self.log)}"
            ) from None

    def kill(self) -> None:
        """Kill the driver and the JVM it has started, or that has started it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def said(self) -> str:
        """Return what the driver has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


class StandaloneCluster:
    """One Master and ``num_workers`` Workers, started on entry and stopped on exit.

    ``cores`` and ``memory`` (as Spark writes it, such as 1536m) are what each Worker offers; Worker ``k`` declares the
    GPU ``k``. With ``own_addresses`` it is at 127.0.0.(k + 1), a host of its own to Spark; else all are at 127.0.0.1.
    Logs and work folders lie in ``folder``. Cost: 256 MiB of heap per process, about 5 s to start.
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
            If one of them ends, or is not there within a minute, with the end of its log.
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
        """Start Worker ``k`` again, which was killed, and wait until it is registered."""
        self.workers[k] = self._launch_worker(k)
        self._wait_for_registration(k)

    def kill_worker(self, k: int) -> None:
        """Kill the JVM of Worker ``k`` (SIGKILL); its executors end by themselves once they miss it."""
        self.workers[k].kill()
        self.workers[k].wait()

    def executors(self, worker: int | None = None) -> list[psutil.Process]:
        """Return the executors' JVMs, of one Worker or of all; those of a killed Worker only with all."""
        found = [process for process in self.processes() if _EXECUTOR in command_of(process)]
        return [process for process in found if worker is None or process.ppid() == self.workers[worker].pid]

    def state(self) -> dict[str, Any]:
        """Return what the Master knows of Workers (``workers``) and applications, as its web page's JSON."""
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{self._web_url}/json/") as answer:
            state: dict[str, Any] = json.load(answer)
        return state

    def submit(
        self, script: Path | str, *arguments: object, properties: Path, conf: Mapping[str, str] | None = None
    ) -> Driver:
        """Start a script by spark-submit, in client mode, with a properties file and settings that go before it."""
        settings = [word for key, value in (conf or {}).items() for word in ("--conf", f"{key}={value}")]
        submit = [SPARK_HOME / "bin" / "spark-submit", "--master", self.master_url, "--properties-file", properties]
        return self.run(*submit, *settings, script, *arguments)

    def run(self, *command: object) -> Driver:
        """Start a command from the repository's root, with Spark bound to this machine, as a user would."""
        self._num_drivers += 1
        log = self.folder / f"driver-{self._num_drivers}.log"
        return Driver(self._launch(log, *command, PYTHONPATH=str(REPOSITORY), PYSPARK_PYTHON=sys.executable), log)

    def stop(self) -> None:
        """Stop all processes that the cluster has started, executors, ranks and drivers too.

        Raises
        ------
        UserrepError
            If one of them is left.
        """
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in self.processes():
                with suppress(psutil.NoSuchProcess):
                    end(process)
            until = time.monotonic() + STOP_SECONDS
            while self.processes() and time.monotonic() < until:
                time.sleep(0.1)
        for launched in self._launched:
            with suppress(subprocess.TimeoutExpired):
                launched.wait(STOP_SECONDS)  # lest it stays as a zombie
        if left := self.processes():
            raise UserrepError(f"cluster: processes {[process.pid for process in left]} could not be stopped.")

    def _start_master(self) -> None:
        settings = self._properties("master.conf", {"spark.master.rest.enabled": "false"})
        log = self.folder / "master.log"
        options = ("--host", "127.0.0.1", "--port", 0, "--webui-port", 0, "--properties-file", settings)
        master = self._launch(log, SPARK_HOME / "bin" / "spark-class", _MASTER, *options)
        pattern = r"Starting Spark master at (spark://\S+)(?s:.*) and started at (http://\S+)"
        self.master_url, self._web_url = _said_at_start("the Master", master, log, pattern).groups()

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
        _said_at_start(f"Worker {k}", self.workers[k], log, r"Successfully registered with master")

    def _properties(self, name: str, settings: Mapping[str, str]) -> Path:
        path = self.folder / "conf" / name
        path.write_text("".join(f"{key} {value}\n" for key, value in settings.items()), encoding="utf-8")
        return path

    def _launch(self, log: Path, *command: object, **more: str) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, so that Ctrl-C reaches this process alone."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_"))}
        local = {
            _MARK: self._id,
            "SPARK_HOME": str(SPARK_HOME),
            "SPARK_CONF_DIR": str(self.folder / "conf"),  # nothing of what this machine may have set
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_PUBLIC_DNS": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "256m",
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=REPOSITORY,
                env=inherited | local | more,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._launched.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """Return all running processes of this cluster, by the mark in their environment: parents may be gone."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == self._id:
                    found.append(process)
            except psutil.Error:  # gone, or someone else's
                continue
        return found


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _said_at_start(name: str, process: subprocess.Popen[bytes], log: Path, pattern: str) -> re.Match[str]:
    """Wait until a process has written what the pattern finds; raise where it ends, or takes too long."""
    until = time.monotonic() + START_SECONDS
    while not (found := re.search(pattern, log.read_text(encoding="utf-8", errors="replace"))):
        late = time.monotonic() > until
        if late or process.poll() is not None:
            how = f"was not there after {START_SECONDS} s" if late else "ended at its start"
            raise UserrepError(f"cluster: {name} {how}; its log {log} ends with\n{tail_of(log)}")
        time.sleep(0.1)
    return found


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
