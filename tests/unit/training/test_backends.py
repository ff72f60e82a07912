"""Backends: training resumes from the last checkpoint after a rank failed, and errors name the rank and the cause."""

import importlib.util
import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.errors import PySparkAttributeError

from tests.unit.training.test_checkpoint import Cut, CutComm
from tests.unit.training.test_training import bits_of, silent, task_on
from userrep.errors import DivergedError, RankFailedError, SlotsError, UsageError, UserrepError
from userrep.training.launch import backends, rank_monitor
from userrep.training.launch.backends import check_backend, run_training
from userrep.training.launch.comm import LocalComm
from userrep.training.launch.launchers import num_slots
from userrep.training.launch.rank_monitor import Address
from userrep.training.loop import train
from userrep.training.task import TrainingTask

pytestmark = pytest.mark.fast

Script = Callable[[TrainingTask, Callable[[dict[str, Any]], None], "str | None"], None]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_monitor, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(backends, "find_spec", lambda name: name)  # installed, whether it is or not
    monkeypatch.setattr(backends, "num_slots", lambda spark: 2)


def cluster_session(master: str = "spark://host:7077") -> Any:
    """Return a stub of a session on a cluster, with settings only."""
    settings = {"spark.master": master, "spark.driver.host": "127.0.0.1"}
    return SimpleNamespace(conf=SimpleNamespace(get=lambda name, default=None: settings.get(name, default)))


def scripted(monkeypatch: pytest.MonkeyPatch, *scripts: Script) -> list[str | None]:
    """Replace Horovod by one rank that runs the next script at each launch; return the checkpoints it resumed from."""
    resumed: list[str | None] = []
    left = list(scripts)

    class Launch:
        last_output = ("ModuleNotFoundError: No module named 'userrep'",)

        def __init__(self, spark: Any) -> None:
            pass

        def run(self, task: TrainingTask, address: Address, resume: str | None) -> None:
            resumed.append(resume)
            with socket.create_connection(address[:2]) as line:

                def send(message: dict[str, Any]) -> None:
                    line.sendall(json.dumps(message).encode() + b"\n")

                script = left.pop(0)
                if script is not stays_away:
                    send({"token": address.token, "rank": 1, "host": "h", "pid": 7})
                script(task, send, resume)

        def stop(self) -> None:
            pass

    monkeypatch.setattr(backends, "HorovodLaunch", Launch)
    return resumed


def dies(task: TrainingTask, send: Callable[[dict[str, Any]], None], resume: str | None) -> None:
    """Take some steps, then disconnect without an error message."""
    with pytest.raises(Cut):
        train(task, CutComm(11 if resume is None else 15), silent, resume=resume)


def raises(kind: str) -> Script:
    def fails(task: TrainingTask, send: Callable[[dict[str, Any]], None], resume: str | None) -> None:
        send({"failed": "seven", "kind": kind, "traceback": f"Traceback ...\n{kind}: seven\n"})

    return fails


def trains(task: TrainingTask, send: Callable[[dict[str, Any]], None], resume: str | None) -> None:
    result = train(task, LocalComm(), silent, resume=resume)
    send({"facts": result.ranks[0] | {"rank": 1}})
    send({"done": True})


def stays_away(task: TrainingTask, send: Callable[[dict[str, Any]], None], resume: str | None) -> None:
    raise RuntimeError("non-zero status")


def does_nothing(task: TrainingTask, send: Callable[[dict[str, Any]], None], resume: str | None) -> None:
    send({"done": True})


def on_cluster(tmp_path: Path, **training: Any) -> TrainingTask:
    return task_on(tmp_path, backend="horovod", num_workers=2, checkpoint_every="0s", **training)


def test_a_dead_rank_is_restarted_from_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    resumed = scripted(monkeypatch, dies, dies, trains)
    task = on_cluster(tmp_path)
    result = run_training(task, spark=cluster_session())
    assert resumed == [None, "step-000000011", "step-000000024"]  # 15 means, of which two were validation's
    died = "training: rank 1 of 2 on h (pid 7) died without an error message (killed, or out of memory?)."
    assert lines == [
        f"{died} Restart 1 of 2.",
        "training resumes from its checkpoint in epoch 1, after 11 steps",
        f"{died} Restart 2 of 2.",
        "training resumes from its checkpoint in epoch 2, after 6 steps",
    ]
    undisturbed = train(task_on(tmp_path / "other"), LocalComm(), silent)
    assert bits_of(result) == bits_of(undisturbed)
    assert result.metrics["epochs"] == 2


def test_after_the_last_restart_the_rank_s_failure_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    scripted(monkeypatch, raises("MemoryError"), raises("MemoryError"))
    said = r"training: rank 1 of 2 on h \(pid 7\) failed: MemoryError: seven\.$"
    with pytest.raises(RankFailedError, match=said):
        run_training(on_cluster(tmp_path, max_restarts=1), spark=cluster_session())
    assert lines[0] == "Traceback ...\nMemoryError: seven"
    assert lines[1].endswith("Restart 1 of 1.")
    assert lines[2:] == lines[:1]


def test_a_deliberate_exception_of_a_rank_is_raised_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = scripted(monkeypatch, raises("DivergedError"))
    with pytest.raises(DivergedError, match=r"^seven$"):
        run_training(on_cluster(tmp_path), spark=cluster_session())
    assert resumed == [None]


def test_the_last_output_of_a_launcher_is_reported_if_no_rank_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    scripted(monkeypatch, stays_away)
    with pytest.raises(RankFailedError, match=r"the ranks did not start \(RuntimeError: non-zero status\)"):
        run_training(on_cluster(tmp_path, max_restarts=0), spark=cluster_session())
    assert lines == ["ModuleNotFoundError: No module named 'userrep'"]


def test_ranks_that_share_no_folder_with_the_driver_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, does_nothing)
    with pytest.raises(UserrepError, match=r"contains no finished checkpoint. Driver and executors must see the same"):
        run_training(on_cluster(tmp_path), spark=cluster_session())


def test_a_launcher_that_does_not_return_is_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_GIVE_UP_SECONDS", 0.3)
    over = threading.Event()

    def hangs(task: TrainingTask, send: Callable[[dict[str, Any]], None], resume: str | None) -> None:
        raises("OSError")(task, send, resume)
        over.wait(30)

    scripted(monkeypatch, hangs)
    with pytest.raises(RankFailedError, match="failed: OSError: seven"):
        run_training(on_cluster(tmp_path, max_restarts=0), spark=cluster_session())
    over.set()


def test_the_check_waits_for_executors_that_are_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    slots = iter([0, 1, 2])
    monkeypatch.setattr(backends, "num_slots", lambda spark: next(slots))
    check_backend(on_cluster(tmp_path).training, cluster_session())
    assert lines == ["waiting for executors: 0 of 2 slots"]


def test_too_few_executors_are_refused_after_a_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "num_slots", lambda spark: 1)
    monkeypatch.setattr(backends, "SLOT_SECONDS", 0.1)
    said = (
        r"num_workers is 2, but Spark can run 1 task at once. Set training.num_workers to 1, or give Spark more slots"
    )
    with pytest.raises(SlotsError, match=said):
        check_backend(on_cluster(tmp_path).training, cluster_session())


def test_the_check_does_not_wait_for_slots_of_a_local_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "time", SimpleNamespace(monotonic=lambda: 0.0))  # nothing to sleep with
    training = on_cluster(tmp_path).training.model_copy(update={"num_workers": 4})
    with pytest.raises(SlotsError, match=r"num_workers is 4, but Spark can run 2 tasks at once\. .* local\[4\]"):
        check_backend(training, cluster_session("local[2]"))
    monkeypatch.setattr(backends, "num_slots", lambda spark: 0)
    with pytest.raises(SlotsError, match=r"can run 0 tasks at once. Set training.num_workers to 1, or give"):
        check_backend(training, cluster_session("local-cluster[0,1,1]"))


def test_a_spark_connect_session_trains_with_torch_distributor_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "num_slots", num_slots)

    class Connected:
        conf = cluster_session().conf

        @property
        def sparkContext(self) -> None:
            raise PySparkAttributeError("JVM_ATTRIBUTE_NOT_SUPPORTED")

    session: Any = Connected()
    training = on_cluster(tmp_path).training
    check_backend(training.model_copy(update={"backend": "torch_distributor"}), session)
    with pytest.raises(UsageError, match=r"Spark Connect session, and Horovod needs a SparkContext"):
        check_backend(training, session)


def test_a_missing_horovod_is_refused_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", importlib.util.find_spec)
    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setitem(sys.modules, "horovod.spark", None)
    with pytest.raises(UsageError, match=r"Horovod is not installed. Build it with deploy/build_horovod_wheel.sh"):
        check_backend(on_cluster(tmp_path).training, cluster_session())
