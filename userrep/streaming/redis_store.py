"""The online store: the newest vector of each space and user in Redis, for low-latency services.

The key is ``userrep:SPACE:USER``. The value is a hash: ``d`` is the as-of date (days since 1970), ``t`` the time of the
newest event (microseconds since 1970, UTC), ``n`` the number of records behind the vector, and ``v`` the vector as
little-endian float32. A write takes effect only if its (d, t, n) is not smaller than the stored one. A script in Redis
makes this comparison atomic, so that concurrent writers never replace a newer vector by an older one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep.config import Stream
from userrep.config.environment import with_variables
from userrep.errors import UsageError, UserrepError
from userrep.utc import EPOCH, day_number, numbered_day

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_BATCH_SIZE = 500  # commands per pipeline
_TIMEOUT = 5.0  # seconds, for a connection and for an answer
_NEWEST_WINS = """
local old = redis.call('HMGET', KEYS[1], 'd', 't', 'n')
if old[1] then
  for k = 1, 3 do
    local was, is = tonumber(old[k]), tonumber(ARGV[k])
    if is > was then break end
    if is < was then return 0 end
  end
end
redis.call('HSET', KEYS[1], 'd', ARGV[1], 't', ARGV[2], 'n', ARGV[3], 'v', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
"""


class Embedding(NamedTuple):
    """A user's newest vector z_D. ``event_at`` is the time of its newest event (UTC), None for one of a snapshot."""

    space_id: str
    as_of: date
    event_at: datetime | None
    vector: Floats


class OnlineStore(NamedTuple):
    """A Redis store. Vectors expire after ``expires_after`` without a write. Connections are pooled per process."""

    url: str
    expires_after: timedelta

    def check(self) -> None:
        """Raise UserrepError if Redis does not answer. The message contains the address, but no password."""
        with self._translated_errors("stream"):
            _client(self.url).ping()

    @contextmanager
    def _translated_errors(self, command: str) -> Iterator[None]:
        import redis

        try:
            yield
        except redis.RedisError as error:
            raise UserrepError(
                f"{command}: Redis at {self.address} does not answer ({type(error).__name__}). Check that it is up and "
                "that stream.redis.url is right."
            ) from None

    @property
    def address(self) -> str:
        """The URL without user name and password."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"

    def write(
        self, space_id: str, as_of: date, user_ids: list[str], *, event_at_U: Ints, num_records_U: Ints, z_UD: Floats
    ) -> None:
        """Write the vectors of U users for one as-of date, except where a newer one is stored.

        ``event_at_U``: times of the newest events, in microseconds since 1970 (UTC). ``num_records_U``: numbers of
        records behind the vectors. Cost: one round trip per 500 users.

        Raises redis.RedisError if Redis does not answer.
        """
        client = _client(self.url)
        script = client.register_script(_NEWEST_WINS)
        day, expires = day_number(as_of), int(self.expires_after.total_seconds() * 1000)
        vectors = np.ascontiguousarray(z_UD, "<f4")
        rows = zip(user_ids, event_at_U.tolist(), num_records_U.tolist(), vectors, strict=True)
        while batch := list(islice(rows, _BATCH_SIZE)):
            pipeline = client.pipeline(transaction=False)
            for user_id, at, num_records, z_D in batch:
                values = [day, at, num_records, z_D.tobytes(), expires]
                script(keys=[_key(space_id, user_id)], args=values, client=pipeline)
            pipeline.execute()

    def delete(self, space_id: str, user_ids: Sequence[str]) -> int:
        """Delete the vectors of users and return their number. Cost: one round trip per 500 users."""
        client, num_deleted = _client(self.url), 0
        with self._translated_errors("forget"):
            for start in range(0, len(user_ids), _BATCH_SIZE):
                keys = [_key(space_id, user_id) for user_id in user_ids[start : start + _BATCH_SIZE]]
                num_deleted += client.unlink(*keys)
        return num_deleted

    def delete_where(self, space_id: str, is_deleted: Callable[[str], bool]) -> int:
        """Delete the vectors of all users for whom the predicate is true, and return their number.

        Cost: a scan over all keys of the database.
        """
        prefix = _key(space_id, "")
        with self._translated_errors("forget"):
            keys = _client(self.url).scan_iter(match=f"{prefix}*", count=_BATCH_SIZE)
            user_ids = [user_id for key in keys if is_deleted(user_id := key.decode().removeprefix(prefix))]
        return self.delete(space_id, user_ids)

    def read(self, space_id: str, user_ids: Sequence[str]) -> list[Embedding | None]:
        """Read the vectors of users, None for a user without one. Cost: one round trip per 500 users."""
        client, vectors = _client(self.url), []
        with self._translated_errors("lookup"):
            for start in range(0, len(user_ids), _BATCH_SIZE):
                pipeline = client.pipeline(transaction=False)
                for user_id in user_ids[start : start + _BATCH_SIZE]:
                    pipeline.hmget(_key(space_id, user_id), ["d", "t", "v"])
                vectors += [None if None in values else _parsed(space_id, *values) for values in pipeline.execute()]
        return vectors


def _parsed(space_id: str, day: bytes, at: bytes, vector: bytes) -> Embedding:
    event_at = EPOCH + timedelta(microseconds=int(at))
    return Embedding(space_id, numbered_day(int(day)), event_at, np.frombuffer(vector, "<f4"))


def _key(space_id: str, user_id: str) -> str:
    return f"userrep:{space_id}:{user_id}"


@lru_cache(maxsize=4)
def _client(url: str) -> Any:
    try:
        import redis
    except ImportError:
        raise UsageError("stream.redis: redis-py is not installed. Run: pip install 'userrep[streaming]'.") from None
    try:
        return redis.Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
    except ValueError:  # its text may contain a part of the password
        raise UsageError(
            "stream.redis.url: not a valid URL. Use redis://USER:PASSWORD@HOST:PORT/NUMBER, and in the password write "
            "%2F for /, %23 for # and %3F for ?."
        ) from None


def online_store(stream: Stream) -> OnlineStore | None:
    """Return the configured online store, or None. Raises UsageError if a variable in its URL is not set."""
    if stream.redis is None:
        return None
    return OnlineStore(with_variables(stream.redis.url, "stream.redis.url")[0], stream.redis.expires_after)


def check_online_store(stream: Stream) -> None:
    """Raise UsageError if the configured online store cannot be opened, without connecting to it."""
    if store := online_store(stream):
        _client(store.url)
