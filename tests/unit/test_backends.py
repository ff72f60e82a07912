"""What the driver makes of its ranks' ends: it goes on from the last checkpoint, or says which rank failed and how."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import PySparkAttributeError
from pyspark.sql import SparkSession

from tests.unit.test_checkpoint import Cut, CutComm
from tests.unit.test_training import silent, task_on
from userrep.errors import DivergedError, RankFailedError, SlotsError, UsageError, UserrepError
from userrep.training import backends, horovod_launch, lifeline
from userrep.training.backends import check_backend, run_training
from userrep.training.comm import LocalComm
from userrep.training.horovod_launch import HorovodLaunch
from userrep.training.lifeline import Address
from userrep.training.loop import train
from userrep.training.task import TrainingTask

pytestmark = pytest.mark.default

Script = Callable[[TrainingTask, Callable[[dict[str, Any]], None], "str | None"], None]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "SETTLE_SECONDS", 0.3)


def scripted(monkeypatch: pytest.MonkeyPatch, *scripts: Script) -> list[str | None]:
    """Replace Horovod by one rank that does what a script says, one a launch; return the checkpoints it was given."""
    resumed: list[str | None] = []
    left = list(scripts)

    class Launch:
        last_words = ("ModuleNotFoundError: No module named 'userrep'",)

        def __init__(self, spark: SparkSession) -> None:
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
    """Take some steps, then end without a word."""
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
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = scripted(monkeypatch, dies, dies, trains)
    lines: list[str] = []
    task = on_cluster(tmp_path)
    result = run_training(task, spark=spark, report=lines.append)
    assert resumed == [None, "step-000000011", "step-000000024"]  # 15 means, of which two were validation's
    died = "training: rank 1 of 2 on h (pid 7) died without a word (killed, or out of memory?)."
    assert lines == [
        f"{died} Restart 1 of 2.",
        "training goes on from its checkpoint in epoch 1, after 11 steps of it",
        f"{died} Restart 2 of 2.",
        "training goes on from its checkpoint in epoch 2, after 6 steps of it",
    ]
    undisturbed = train(task_on(tmp_path / "other"), LocalComm(), silent)
    assert result.weights == undisturbed.weights
    assert result.metrics["epochs"] == 2


def test_after_the_last_restart_the_rank_s_own_failure_is_told(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, raises("MemoryError"), raises("MemoryError"))
    lines: list[str] = []
    said = r"training: rank 1 of 2 on h \(pid 7\) failed: MemoryError: seven\.$"
    with pytest.raises(RankFailedError, match=said):
        run_training(on_cluster(tmp_path, max_restarts=1), spark=spark, report=lines.append)
    assert lines[0] == "Traceback ...\nMemoryError: seven"
    assert lines[1].endswith("Restart 1 of 1.")
    assert lines[2:] == lines[:1]


def test_what_all_ranks_have_met_is_raised_as_it_is_and_not_tried_again(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = scripted(monkeypatch, raises("DivergedError"))
    with pytest.raises(DivergedError, match=r"^seven$"):
        run_training(on_cluster(tmp_path), spark=spark, report=silent)
    assert resumed == [None]


def test_a_launcher_s_last_words_are_told_where_no_rank_came_up(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, stays_away)
    lines: list[str] = []
    with pytest.raises(RankFailedError, match=r"the ranks did not start \(RuntimeError: non-zero status\)"):
        run_training(on_cluster(tmp_path, max_restarts=0), spark=spark, report=lines.append)
    assert lines == ["ModuleNotFoundError: No module named 'userrep'"]


def test_ranks_that_share_no_folder_with_the_driver_are_told(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, does_nothing)
    with pytest.raises(UserrepError, match=r"holds no finished checkpoint: driver and executors must see the same"):
        run_training(on_cluster(tmp_path), spark=spark, report=silent)


def test_a_launcher_that_does_not_notice_is_left_behind(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_GIVE_UP_SECONDS", 0.3)
    over = threading.Event()

    def hangs(task: TrainingTask, send: Callable[[dict[str, Any]], None], resume: str | None) -> None:
        raises("OSError")(task, send, resume)
        over.wait(30)

    scripted(monkeypatch, hangs)
    with pytest.raises(RankFailedError, match="failed: OSError: seven"):
        run_training(on_cluster(tmp_path, max_restarts=0), spark=spark, report=silent)
    over.set()


def test_executors_that_are_coming_up_are_waited_for(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = iter([0, 1, 2])
    monkeypatch.setattr(backends, "num_slots", lambda spark: next(slots))
    lines: list[str] = []
    check_backend(on_cluster(tmp_path).training, cluster_session(), lines.append)
    assert lines == ["waiting for executors: 0 of 2 slots"]


def test_too_few_executors_are_told_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "num_slots", lambda spark: 1)
    monkeypatch.setattr(backends, "SLOT_SECONDS", 0.1)
    said = r"num_workers is 2, but Spark can run 1 task at once: set training.num_workers to 1, or give Spark more"
    with pytest.raises(SlotsError, match=said):
        check_backend(on_cluster(tmp_path).training, cluster_session(), silent)


def test_a_spark_connect_session_trains_with_torch_distributor_alone(tmp_path: Path) -> None:
    class Connected:
        conf = cluster_session().conf

        @property
        def sparkContext(self) -> None:
            raise PySparkAttributeError("JVM_ATTRIBUTE_NOT_SUPPORTED")

    session: Any = Connected()
    training = on_cluster(tmp_path).training
    check_backend(training.model_copy(update={"backend": "torch_distributor"}), session, silent)
    with pytest.raises(UsageError, match=r"Spark Connect session, and Horovod needs a SparkContext"):
        check_backend(training, session, silent)


def cluster_session() -> Any:
    class Conf:
        @staticmethod
        def get(name: str, default: str | None = None) -> str | None:
            return "spark://host:7077" if name == "spark.master" else default

    class Session:
        conf = Conf()

    return Session()


def test_the_launcher_keeps_to_itself(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Horovod's signal handlers, and the tracebacks of its threads."""
    import horovod.runner.gloo_run
    import horovod.spark

    seen: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.thread.name))

    def run(fn: Any, **_: Any) -> None:
        assert isinstance(horovod.runner.gloo_run.register_shutdown_event(), threading.Event)
        for name in ("Thread-7 (run_spark)", "someone else's"):
            thread = threading.Thread(target=lambda: 1 / 0, name=name)
            thread.start()
            thread.join()

    monkeypatch.setattr(horovod.spark, "run", run)
    launch = HorovodLaunch(spark)
    launch.run(task_on(tmp_path), Address("h", 1, "t"), None)
    assert seen == ["someone else's"]
    assert horovod_launch.threading.excepthook is threading.excepthook


def test_the_last_words_of_ranks_are_kept(spark: SparkSession) -> None:
    launch = HorovodLaunch(spark)
    launch.write(b"[1]<stderr>:MemoryError: 7\n\n")
    launch.write("\n".join(map(str, range(100))))
    assert list(launch.last_words) == [str(k) for k in range(60, 100)]
