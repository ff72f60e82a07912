"""Horovod's launcher: how many ranks Spark has room for, and the last words of ranks. Real ranks: test_training.py."""

from types import SimpleNamespace
from typing import Any

import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PySparkAttributeError

from userrep.training.launch.horovod_launch import HorovodLaunch, num_slots

pytestmark = pytest.mark.fast


def session(**context: Any) -> Any:
    return SimpleNamespace(sparkContext=SimpleNamespace(**context))


def test_slots_are_what_the_scheduler_says_of_the_default_profile() -> None:
    scheduler = SimpleNamespace(
        resourceProfileManager=lambda: SimpleNamespace(defaultResourceProfile=lambda: "the default"),
        maxNumConcurrentTasks={"the default": 3}.__getitem__,
    )
    assert num_slots(session(_jsc=SimpleNamespace(sc=lambda: scheduler), defaultParallelism=99)) == 3


def test_slots_are_counted_without_the_scheduler_where_it_may_not_be_asked() -> None:
    def sc() -> None:
        raise Py4JError("not on the allow-list")

    context = {"defaultParallelism": 9, "_jsc": SimpleNamespace(sc=sc)}
    assert num_slots(session(**context, getConf=lambda: {"spark.task.cpus": "4"})) == 2
    assert num_slots(session(**context, getConf=dict)) == 9


def test_spark_connect_does_not_say_how_many_slots_there_are() -> None:
    class Connected:
        @property
        def sparkContext(self) -> None:
            raise PySparkAttributeError("JVM_ATTRIBUTE_NOT_SUPPORTED")

    connected: Any = Connected()
    assert num_slots(connected) is None


def test_the_last_40_lines_of_ranks_are_kept() -> None:
    launch = HorovodLaunch(session())
    launch.write(b"[1]<stderr>:MemoryError: 7\n\n \xff\n")
    assert list(launch.last_words) == ["[1]<stderr>:MemoryError: 7", " \ufffd"]
    launch.write("\n".join(map(str, range(100))))
    assert list(launch.last_words) == [str(k) for k in range(60, 100)]
