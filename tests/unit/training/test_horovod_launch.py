"""Horovod's launcher: the number of slots, and the last output of ranks. test_training.py runs real ranks."""

from types import SimpleNamespace
from typing import Any

import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PySparkAttributeError

from userrep.training.launch.launchers import HorovodLaunch, num_slots

pytestmark = pytest.mark.fast


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
