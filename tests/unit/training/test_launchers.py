"""The launchers: slots and output of Horovod, tags of TorchDistributor. test_training.py runs real ranks."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyspark.ml.torch.distributor
import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PySparkAttributeError

from tests.unit.training.test_training import LAYOUT, TARGETS
from userrep import config
from userrep.training.launch.launchers import HorovodLaunch, TorchLaunch, num_slots
from userrep.training.launch.rank_monitor import Address
from userrep.training.launch.ranks import train_rank
from userrep.training.task import TrainingTask

pytestmark = pytest.mark.fast

ADDRESS = Address("host", 1, "token")


# Horovod


def session(**context: Any) -> Any:
    return SimpleNamespace(sparkContext=SimpleNamespace(**context))


def test_slots_are_those_of_the_scheduler_s_default_profile() -> None:
    scheduler = SimpleNamespace(
        resourceProfileManager=lambda: SimpleNamespace(defaultResourceProfile=lambda: "the default"),
        maxNumConcurrentTasks={"the default": 3}.__getitem__,
    )
    assert num_slots(session(_jsc=SimpleNamespace(sc=lambda: scheduler), defaultParallelism=99)) == 3


def test_slots_are_counted_from_settings_if_the_scheduler_is_not_accessible() -> None:
    def sc() -> None:
        raise Py4JError("not on the allow-list")

    context = {"defaultParallelism": 9, "_jsc": SimpleNamespace(sc=sc)}
    assert num_slots(session(**context, getConf=lambda: {"spark.task.cpus": "4"})) == 2
    assert num_slots(session(**context, getConf=dict)) == 9


def test_the_number_of_slots_is_unknown_under_spark_connect() -> None:
    class Connected:
        @property
        def sparkContext(self) -> None:
            raise PySparkAttributeError("JVM_ATTRIBUTE_NOT_SUPPORTED")

    connected: Any = Connected()
    assert num_slots(connected) is None


def test_the_last_40_lines_of_ranks_are_kept() -> None:
    launch = HorovodLaunch(session())
    launch.write(b"[1]<stderr>:MemoryError: 7\n\n \xff\n")
    assert list(launch.last_output) == ["[1]<stderr>:MemoryError: 7", " \ufffd"]
    launch.write("\n".join(map(str, range(100))))
    assert list(launch.last_output) == [str(k) for k in range(60, 100)]


# TorchDistributor


class Session:
    """A stub of a session that records its tags and the tags it was asked to interrupt."""

    def __init__(self, gpus: str | None = None) -> None:
        self.conf: Any = SimpleNamespace(get={"spark.task.resource.gpu.amount": gpus}.get)
        self.tags: list[str] = []
        self.ended: list[str] = []

    def addTag(self, tag: str) -> None:
        self.tags.append(tag)

    def removeTag(self, tag: str) -> None:
        self.tags.remove(tag)

    def interruptTag(self, tag: str) -> None:
        self.ended.append(tag)


class Job:
    """A stub of TorchDistributor that records its arguments."""

    asked: "list[Job]"

    def __init__(self, num_processes: int, *, local_mode: bool, use_gpu: bool) -> None:
        self.num_processes, self.local_mode, self.use_gpu = num_processes, local_mode, use_gpu
        self.spark: Any = None
        self.tags: list[str] = []
        type(self).asked.append(self)

    def run(self, *arguments: Any) -> None:
        self.arguments, self.tags = arguments, list(self.spark.tags)
        self.work()

    work: Callable[[], None] = staticmethod(lambda: None)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> type[Job]:
    jobs = type("Jobs", (Job,), {"asked": []})
    monkeypatch.setattr(pyspark.ml.torch.distributor, "TorchDistributor", jobs)
    return jobs


def task_with(num_workers: int) -> TrainingTask:
    training = config.Training(backend="torch_distributor", num_workers=num_workers, num_shards=num_workers)
    return TrainingTask({}, 1, LAYOUT, TARGETS, config.Model(), training, np.zeros(LAYOUT.width, np.float32), "")


@pytest.mark.parametrize(("gpus", "use_gpu"), [(None, False), ("0", False), ("1", True)])
def test_a_rank_per_worker_is_launched_on_executors_with_the_gpus_that_tasks_get(
    jobs: type[Job], gpus: str | None, use_gpu: bool
) -> None:
    session: Any = Session(gpus)
    task = task_with(4)
    TorchLaunch(session).run(task, ADDRESS, "step-000000007")
    (job,) = jobs.asked
    assert (job.num_processes, job.local_mode, job.use_gpu) == (4, False, use_gpu)
    assert job.arguments == (train_rank, task, ADDRESS, "step-000000007")
    assert job.spark is session
    assert logging.getLogger("TorchDistributor").propagate is False


def test_a_job_has_a_tag_of_its_own_that_is_removed_afterwards(
    jobs: type[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    session: Any = Session()
    first, second = TorchLaunch(session), TorchLaunch(session)
    first.run(task_with(2), ADDRESS, None)
    first.stop()
    assert (session.tags, jobs.asked[0].tags) == ([], session.ended)
    second.run(task_with(2), ADDRESS, None)
    assert jobs.asked[1].tags != session.ended


def test_a_new_session_is_tagged_instead_of_the_caller_s(jobs: type[Job]) -> None:
    session: Any = Session()
    own: Any = Session()
    session.newSession = lambda: own
    TorchLaunch(session).run(task_with(2), ADDRESS, None)
    assert jobs.asked[0].spark is own


def test_the_output_of_a_failed_job_is_kept_and_its_tag_is_removed(
    jobs: type[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise RuntimeError("\n".join(["", *map(str, range(50)), " "]))

    monkeypatch.setattr(jobs, "work", staticmethod(fails))
    session: Any = Session()
    launch = TorchLaunch(session)
    with pytest.raises(RuntimeError, match="49"):
        launch.run(task_with(2), ADDRESS, None)
    assert list(launch.last_output) == [str(k) for k in range(10, 50)]
    assert session.tags == []
