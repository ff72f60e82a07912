"""Where training runs: in this process, or in ranks on Spark's executors. The loop is the same."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pyspark import InheritableThread

from userrep import errors
from userrep.config import Training
from userrep.errors import RankFailedError, SlotsError, UsageError, UserrepError, in_one_line
from userrep.logs import to_stderr
from userrep.model.tensor_file import tensor_bytes
from userrep.training.checkpoint import Checkpoint, Standing, newest_checkpoint
from userrep.training.launch.comm import LocalComm
from userrep.training.launch.horovod_launch import HorovodLaunch, num_slots
from userrep.training.launch.lifeline import SETTLE_SECONDS, Failure, Lifeline, told
from userrep.training.launch.torch_launch import TorchLaunch
from userrep.training.loop import result_of, train
from userrep.training.task import TrainingResult, TrainingTask

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SLOT_SECONDS = 40.0  # for executors to come up, or back
_GIVE_UP_SECONDS = 15.0  # after which a launcher that does not end is left behind
Report = Callable[[str], None]


def run_training(
    task: TrainingTask, *, spark: "SparkSession | None" = None, report: Report = to_stderr
) -> TrainingResult:
    """Train on the backend that the task's configuration names, from the newest checkpoint on if there is one.

    ``spark`` is needed by all backends but ``local``. When a rank fails, dies or hangs, all are stopped, its own
    traceback is reported, and the training goes on from the newest checkpoint, ``training.max_restarts`` times.

    Raises
    ------
    SlotsError
        If Spark has fewer slots than ``training.num_workers``; launchers would wait for them in vain.
    UsageError
        If Horovod is not installed.
    DivergedError
        As ``train`` does.
    RankFailedError
        If a rank failed once too often.
    """
    restarts = 0
    while True:
        found = newest_checkpoint(task.folder, task.identity, report)
        if found and found.standing.finished:
            return _result(found, [])
        if found:
            report(f"training goes on from {_where(found.standing)}")
        resume = found.name if found else None
        if task.training.backend == "local":
            return train(task, LocalComm(), report, resume=resume)
        assert spark is not None
        try:
            return _on_spark(task, spark, report, resume)
        except RankFailedError as error:
            if restarts == task.training.max_restarts:
                raise
            restarts += 1
            report(f"{error} Restart {restarts} of {task.training.max_restarts}.")


def check_backend(training: Training, spark: "SparkSession", report: Report = to_stderr) -> None:
    """Refuse a backend that cannot run here, before anything is done for it.

    Executors that are still coming up are waited for, ``SLOT_SECONDS`` at most.

    Raises
    ------
    UsageError, SlotsError
        As ``run_training`` does.
    """
    if training.backend == "local":
        return
    if training.backend == "horovod" and find_spec("horovod") is None:
        raise UsageError(
            "training.backend horovod: Horovod is not installed. Build it with deploy/build_horovod_wheel.sh, "
            "or set training.backend: torch_distributor, or local with training.num_workers: 1."
        )
    wanted, started, told_at = training.num_workers, time.monotonic(), 0.0
    is_local = (spark.conf.get("spark.master", "") or "").startswith("local")
    while (slots := num_slots(spark)) is not None and slots < wanted:
        now = time.monotonic()
        if is_local or now - started > SLOT_SECONDS:
            raise SlotsError(
                f"training.num_workers is {wanted}, but Spark can run {slots} task{'s' * (slots != 1)} at once: "
                f"set training.num_workers to {max(slots, 1)}, or give Spark more (spark.master: local[{wanted}]; "
                "on a cluster more spark.executor.instances or spark.executor.cores, or fewer spark.task.cpus or "
                "spark.task.resource.gpu.amount; with dynamic allocation as many "
                "spark.dynamicAllocation.minExecutors)."
            )
        if now - told_at > 10:
            report(f"waiting for executors: {slots} of {wanted} slots")
            told_at = now
        time.sleep(0.5)
    if slots is None and training.backend == "horovod":
        raise UsageError(
            "training.backend horovod: this is a Spark Connect session, and Horovod needs a SparkContext "
            "(on Databricks dedicated access mode). Train there, or set training.backend: torch_distributor."
        )


def _on_spark(task: TrainingTask, spark: "SparkSession", report: Report, resume: str | None) -> TrainingResult:
    """Launch the ranks once, and see them to their end."""
    check_backend(task.training, spark, report)
    launch = HorovodLaunch(spark) if task.training.backend == "horovod" else TorchLaunch(spark)
    host = spark.conf.get("spark.driver.host") or "localhost"
    bind = spark.conf.get("spark.driver.bindAddress", host) or host
    with Lifeline(host, bind, task.training.num_workers, report=report, stop=launch.stop) as line:
        error = _launched(launch, task, line, resume)
        failure = line.failure()
        if failure is not None:
            raise _as_error(failure, line, task, report)
        if error is not None:
            for word in launch.last_words:
                report(word)
            raise RankFailedError(f"training: the ranks did not start ({in_one_line(error)}).")
        ranks = [line.ranks[rank] for rank in sorted(line.ranks)]
    found = newest_checkpoint(task.folder, task.identity, report)
    if found is None or not found.standing.finished:
        raise UserrepError(
            f"training: the ranks are done, but {task.folder} holds no finished checkpoint: "
            "driver and executors must see the same root."
        )
    return _result(found, ranks)


def _launched(
    launch: HorovodLaunch | TorchLaunch, task: TrainingTask, line: Lifeline, resume: str | None
) -> BaseException | None:
    """Run a launcher in a thread, so that one that does not notice its ranks' end can be left; return its error."""
    errors_seen: list[BaseException] = []

    def run() -> None:
        try:
            launch.run(task, line.address, resume)
        except BaseException as error:  # it is told, or the lifeline's cause is
            errors_seen.append(error)

    thread = InheritableThread(target=run, name="launch", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
            if line.failed_for() > SETTLE_SECONDS + _GIVE_UP_SECONDS:
                break
    except BaseException:  # Ctrl-C
        launch.stop()
        raise
    return errors_seen[0] if errors_seen else None


def _as_error(failure: Failure, line: Lifeline, task: TrainingTask, report: Report) -> UserrepError:
    """Turn a rank's failure into an exception; a deliberate one is raised here as it was there."""
    deliberate = getattr(errors, failure.kind, None) if failure.kind else None
    if isinstance(deliberate, type) and issubclass(deliberate, UserrepError) and not failure.is_echo:
        return deliberate(failure.message)
    if failure.traceback:
        report(failure.traceback.rstrip())
    name = told(failure.rank, line.ranks.get(failure.rank, {}), task.training.num_workers)
    how = f"failed: {failure.kind}: {failure.message}" if failure.kind else failure.message
    return RankFailedError(f"training: {name} {how}".rstrip(".") + ".")


def _result(last: Checkpoint, ranks: list[dict[str, Any]]) -> TrainingResult:
    """Take a training's outcome from its last checkpoint."""
    best = {key.removeprefix("best."): tensor for key, tensor in last.tensors.items() if key.startswith("best.")}
    return result_of(last.standing, tensor_bytes(best), ranks=ranks)


def _where(standing: Standing) -> str:
    return f"its checkpoint in epoch {standing.epoch}, after {standing.step} steps of it"
