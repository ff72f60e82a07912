"""The online store, on a real Redis: the newest vector wins, for any writer and order of writes."""

import itertools
import threading
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import redis

from deploy.local_server import free_port
from deploy.services import RedisServer
from userrep.errors import UsageError, UserrepError
from userrep.streaming.redis_store import Embedding, OnlineStore

pytestmark = pytest.mark.default

DAY = date(2024, 3, 16)
EPOCH = datetime(1970, 1, 1)


@pytest.fixture
def store(redis_server: RedisServer) -> OnlineStore:
    return OnlineStore(redis_server.url, timedelta(hours=1))


def write(
    store: OnlineStore, space: str, user: str, value: float, *, as_of: date = DAY, at: int = 0, num: int = 1
) -> None:
    vector = np.full((1, 4), value, np.float32)
    store.write(space, as_of, [user], event_at_U=np.array([at]), num_records_U=np.array([num]), z_UD=vector)


def value_of(store: OnlineStore, space: str, user: str) -> float:
    (found,) = store.read(space, [user])
    assert found is not None
    return float(found.vector[0])


def test_the_newest_vector_wins_in_whichever_order_they_are_written(store: OnlineStore) -> None:
    late = 1_710_547_200_000_000  # microseconds
    ascending: list[dict[str, Any]] = [
        {"as_of": DAY, "at": late, "num": 9},
        {"as_of": DAY, "at": late + 1, "num": 2},
        {"as_of": DAY, "at": late + 1, "num": 10},
        {"as_of": DAY + timedelta(days=1), "at": late - 1, "num": 1},
    ]
    for k, order in enumerate(itertools.permutations(range(4))):
        for place in order:
            write(store, "order", f"u{k}", float(place), **ascending[place])
        assert value_of(store, "order", f"u{k}") == 3.0
    for k, order in enumerate(itertools.permutations(range(3))):
        for place in order:
            write(store, "order", f"v{k}", float(place), **ascending[place])
        assert value_of(store, "order", f"v{k}") == 2.0


def test_a_vector_of_the_same_records_is_written_again(store: OnlineStore) -> None:
    write(store, "again", "u", 1.0, at=5, num=2)
    write(store, "again", "u", 2.0, at=5, num=2)
    assert value_of(store, "again", "u") == 2.0


def test_what_is_written_is_read_to_the_bit_and_absent_users_are_none(store: OnlineStore) -> None:
    users = [f"u{k}" for k in range(1203)]  # more than one round trip
    z_UD = np.random.default_rng(3).normal(size=(1203, 7)).astype(np.float32)
    at_U = 1_710_547_200_000_000 + np.arange(1203)
    store.write("whole", DAY, users, event_at_U=at_U, num_records_U=np.ones(1203, np.int64), z_UD=z_UD)
    found = store.read("whole", ["nobody", *users, "u0"])
    assert found[0] is None
    assert isinstance(found[1], Embedding)
    assert found[1].as_of == DAY
    assert found[1].event_at == EPOCH + timedelta(microseconds=int(at_U[0]))
    assert np.array_equal(np.stack([of.vector for of in found[1:] if of is not None]), np.vstack([z_UD, z_UD[:1]]))
    assert store.read("another space", ["u0"]) == [None]
    assert store.read("whole", []) == []


def test_a_hash_without_a_time_or_a_vector_is_no_vector(store: OnlineStore, redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset("userrep:partial:u", mapping={"d": 1, "t": 1})
        client.hset("userrep:partial:v", mapping={"d": 1, "v": b"1234"})
    assert store.read("partial", ["u", "v"]) == [None, None]


def test_any_text_is_a_user(store: OnlineStore) -> None:
    users = ["", " ", "a:b", "ö\0\n", "x" * 100_000]
    z_UD = np.arange(5, dtype=np.float32)[:, None]
    store.write("texts", DAY, users, event_at_U=np.zeros(5, np.int64), num_records_U=np.ones(5, np.int64), z_UD=z_UD)
    assert [of and float(of.vector[0]) for of in store.read("texts", users)] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_of_two_threads_that_write_at_once_the_newest_vector_stays(store: OnlineStore) -> None:
    users = [f"u{k}" for k in range(40)]

    def write_all(versions: list[int]) -> None:
        for version in versions:
            z_UD = np.full((40, 3), version, np.float32)
            store.write(
                "threads", DAY, users, event_at_U=np.full(40, version), num_records_U=np.ones(40, np.int64), z_UD=z_UD
            )

    orders = [list(range(0, 100, 2)), list(range(99, 0, -2))]
    threads = [threading.Thread(target=write_all, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [of and float(of.vector[0]) for of in store.read("threads", users)] == [99.0] * 40


def test_a_vector_expires_which_each_write_puts_off(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        write(OnlineStore(redis_server.url, timedelta(seconds=60)), "expiry", "u", 1.0, at=1)
        assert 50_000 < client.pttl("userrep:expiry:u") <= 60_000
        write(OnlineStore(redis_server.url, timedelta(days=3)), "expiry", "u", 2.0, at=2)
        assert client.pttl("userrep:expiry:u") > 70 * 3600 * 1000
        write(OnlineStore(redis_server.url, timedelta(milliseconds=50)), "expiry", "v", 1.0)
        threading.Event().wait(0.1)
        assert OnlineStore(redis_server.url, timedelta(days=3)).read("expiry", ["u", "v"])[1] is None


def test_a_server_that_was_away_is_written_to_again(redis_server: RedisServer, store: OnlineStore) -> None:
    write(store, "away", "u", 1.0)
    redis_server.stop()
    try:
        with pytest.raises(redis.exceptions.RedisError):
            write(store, "away", "u", 1.0)
    finally:
        redis_server.start()
    assert store.read("away", ["u"]) == [None]
    write(store, "away", "u", 2.0)
    assert value_of(store, "away", "u") == 2.0


def test_an_address_that_does_not_answer_is_one_line_without_the_password() -> None:
    port = free_port()
    absent = OnlineStore(f"redis://me:secret@127.0.0.1:{port}/0?socket_timeout=1", timedelta(days=1))
    wanted = rf"^stream: Redis at redis://127.0.0.1:{port}/0 does not answer \(ConnectionError\). Check that it is up "
    with pytest.raises(UserrepError, match=wanted) as raised:
        absent.check()
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is None
    with pytest.raises(UserrepError, match=r"^lookup: Redis at \S+ does not answer"):
        absent.read("space", ["u"])


@pytest.mark.parametrize("url", ["redis://:sec/ret@127.0.0.1/0", "redis://:sec#ret@h", "redis://:x@h:secret"])
def test_an_address_that_is_none_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(UsageError, match=r"^stream.redis.url: not a valid URL. Use redis://") as raised:
        OnlineStore(url, timedelta(days=1)).check()
    assert "sec" not in str(raised.value)


def test_a_wrong_password_is_one_line_without_it(redis_server: RedisServer) -> None:
    url = redis_server.url.replace("redis://", "redis://me:secret@")
    with pytest.raises(UserrepError, match=r"Redis at \S+ does not answer \(AuthenticationError\)") as raised:
        OnlineStore(url, timedelta(days=1)).check()
    assert "secret" not in str(raised.value)
