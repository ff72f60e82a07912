"""Training backends: run the training loop in this process, or in ranks on Spark's executors."""

import logging
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pyspark import InheritableThread

from userrep import errors
from userrep.config import Training
from userrep.errors import RankFailedError, SlotsError, UsageError, UserrepError, in_one_line, plural
from userrep.training.checkpoint import Checkpoint, drop_others, newest_checkpoint
from userrep.training.launch.comm import LocalComm
from userrep.training.launch.launchers import HorovodLaunch, TorchLaunch, num_slots
from userrep.training.launch.rank_monitor import SETTLE_SECONDS, Failure, RankMonitor, rank_name
from userrep.training.loop import train
from userrep.training.task import TrainingResult, TrainingTask

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

SLOT_SECONDS = 40.0  # for executors to start, or to be replaced
_GIVE_UP_SECONDS = 15.0  # after which a launcher that does not return is abandoned


def run_training(task: TrainingTask, *, spark: "SparkSession | None" = None) -> TrainingResult:
    """Train on the backend that the task's configuration names, resuming from the newest checkpoint if there is one.

    All backends but ``local`` need ``spark``. If a rank fails or dies, all ranks are stopped, its traceback is
    reported, and training resumes from the newest checkpoint, at most ``training.max_restarts`` times.

    Raises
    ------
    SlotsError
        If Spark has fewer slots than ``training.num_workers``; a launcher would wait for them forever.
    UsageError
        If Horovod is not installed.
    DivergedError
        As ``train`` does.
    RankFailedError
        If a rank fails after the last restart.
    """
    restarts = 0
    while True:
        resume, checkpoint = None, newest_checkpoint(task.folder, task.identity)
        if checkpoint is None:
            drop_others(task.folder, task.identity)
        else:
            state, resume = checkpoint.state, checkpoint.name
            if state.finished:
                return _result(checkpoint, [])
            logger.info(f"training resumes from its checkpoint in epoch {state.epoch}, after {state.step} steps")
        if task.training.backend == "local":
            return train(task, LocalComm(), logger.info, resume=resume)
        assert spark is not None
        try:
            return _train_on_spark(task, spark, resume)
        except RankFailedError as error:
            if restarts == task.training.max_restarts:
                raise
            restarts += 1
            logger.warning(f"{error} Restart {restarts} of {task.training.max_restarts}.")


def check_backend(training: Training, spark: "SparkSession") -> None:
    """Check that the backend can run here, before any work is done for it.

    Waits up to ``SLOT_SECONDS`` for executors that are still starting.

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
    if not _wait_for_slots(training.num_workers, spark) and training.backend == "horovod":
        raise UsageError(
            "training.backend horovod: this is a Spark Connect session, and Horovod needs a SparkContext "
            "(on Databricks dedicated access mode). Train there, or set training.backend: torch_distributor."
        )


def _wait_for_slots(num_workers: int, spark: "SparkSession") -> bool:
    """Wait until Spark has enough slots. Return False if they cannot be counted, as under Spark Connect."""
    started, reported_at = time.monotonic(), 0.0
    is_local = (spark.conf.get("spark.master", "") or "").startswith("local")
    while (slots := num_slots(spark)) is not None and slots < num_workers:
        now = time.monotonic()
        if is_local or now - started > SLOT_SECONDS:
            raise SlotsError(
                f"training.num_workers is {num_workers}, but Spark can run {plural(slots, 'task')} at once. "
                f"Set training.num_workers to {max(slots, 1)}, or give Spark more slots (spark.master: "
                f"local[{num_workers}]; on a cluster, more spark.executor.instances or spark.executor.cores, or fewer "
                "spark.task.cpus or spark.task.resource.gpu.amount; with dynamic allocation, as many "
                "spark.dynamicAllocation.minExecutors)."
            )
        if now - reported_at > 10:
            logger.info(f"waiting for executors: {slots} of {num_workers} slots")
            reported_at = now
        time.sleep(0.5)
    return slots is not None


def _train_on_spark(task: TrainingTask, spark: "SparkSession", resume: str | None) -> TrainingResult:
    """Launch the ranks once and wait until they end."""
    check_backend(task.training, spark)
    launch = HorovodLaunch(spark) if task.training.backend == "horovod" else TorchLaunch(spark)
    host = spark.conf.get("spark.driver.host") or "localhost"
    bind = spark.conf.get("spark.driver.bindAddress", host) or host
    with RankMonitor(host, bind, task.training.num_workers, stop=launch.stop) as monitor:
        error = _run_launcher(launch, task, monitor, resume)
        failure = monitor.failure()
        if failure is not None:
            raise _as_error(failure, monitor, task)
        if error is not None:
            for line in launch.last_output:
                logger.warning(line)
            raise RankFailedError(f"training: the ranks did not start ({in_one_line(error)}).")
        ranks = [monitor.ranks[rank] for rank in sorted(monitor.ranks)]
    checkpoint = newest_checkpoint(task.folder, task.identity)
    if checkpoint is None or not checkpoint.state.finished:
        raise UserrepError(
            f"training: the ranks finished, but {task.folder} contains no finished checkpoint. "
            "Driver and executors must see the same root."
        )
    return _result(checkpoint, ranks)


def _run_launcher(
    launch: HorovodLaunch | TorchLaunch, task: TrainingTask, monitor: RankMonitor, resume: str | None
) -> BaseException | None:
    """Run a launcher in a thread and return its error.

    A launcher that does not notice that its ranks have ended is abandoned in that thread.
    """
    launch_errors: list[BaseException] = []

    def run() -> None:
        try:
            launch.run(task, monitor.address, resume)
        except BaseException as error:  # the caller reports it, unless the monitor knows the cause
            launch_errors.append(error)

    thread = InheritableThread(target=run, name="launch", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
            if monitor.failed_for() > SETTLE_SECONDS + _GIVE_UP_SECONDS:
                break
    except BaseException:  # Ctrl-C
        launch.stop()
        raise
    return launch_errors[0] if launch_errors else None


def _as_error(failure: Failure, monitor: RankMonitor, task: TrainingTask) -> UserrepError:
    """Convert a rank's failure to an exception. Exceptions of ``userrep.errors`` keep their class and message."""
    deliberate = getattr(errors, failure.kind, None) if failure.kind else None
    if isinstance(deliberate, type) and issubclass(deliberate, UserrepError) and not failure.is_echo:
        return deliberate(failure.message)
    if failure.traceback:
        logger.warning(failure.traceback.rstrip())
    name = rank_name(failure.rank, monitor.ranks.get(failure.rank, {}), task.training.num_workers)
    reason = f"failed: {failure.kind}: {failure.message}" if failure.kind else failure.message
    return RankFailedError(f"training: {name} {reason}".rstrip(".") + ".")


def _result(last: Checkpoint, ranks: list[dict[str, Any]]) -> TrainingResult:
    """Read the result of a finished training from its last checkpoint."""
    best = {key.removeprefix("best."): tensor for key, tensor in last.tensors.items() if key.startswith("best.")}
    return TrainingResult.of(last.state, best, ranks=ranks)
