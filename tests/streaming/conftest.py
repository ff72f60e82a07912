"""A Kafka broker and a Redis server for all tests, who takes one away starts it again; and tables to stream over."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from deploy.services import KafkaBroker, RedisServer
from tests.streaming_world import World
from userrep.config import Config
from userrep.pipeline import Pipeline

NewWorld = Callable[..., World]


@pytest.fixture(scope="session")
def new_world(
    spark: SparkSession, log: Path, done: tuple[Pipeline, Config], tmp_path_factory: pytest.TempPathFactory
) -> NewWorld:
    """Copy the shared pipeline's tables, for a stream with these settings; with ``own_log``, the log too."""
    root = done[1].root
    assert root is not None

    def new(folder: Path | None = None, *, own_log: bool = False, **stream: Any) -> World:
        folder = folder or tmp_path_factory.mktemp("world")
        mine = shutil.copytree(log, folder / "log") if own_log else log
        return World(spark, mine, root, folder, stream)

    return new


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker without topics: each test makes its own."""
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker
    assert broker.processes() == []


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that is empty at first: each test takes keys of its own."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server; deploy/redis_server.sh says how to have one")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
