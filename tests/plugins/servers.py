"""Real servers for tests: a Kafka broker and Redis. A test that stops a server must start it again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from deploy.services import KafkaBroker, RedisServer


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker without topics; each test creates its own."""
    from deploy.services import KafkaBroker

    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker
    assert broker.processes() == []


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """An empty server; each test uses its own keys."""
    from deploy.services import RedisServer

    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server: `make setup` installs it")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
