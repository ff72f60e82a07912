"""The online store: the newest vector of each space and user in Redis, for services that cannot wait.

A key is ``userrep:SPACE:USER``, its value a hash: ``d`` the as-of date (days since 1970), ``t`` the newest event's time
(microseconds since 1970, UTC), ``n`` how many records the vector is made of, ``v`` the vector as little-endian float32.
A write counts if its (d, t, n) is not smaller than what is there: decided in Redis itself, so that of two writers
neither puts an older vector over a newer one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep.config import Stream
from userrep.config.variables import with_variables
from userrep.errors import UsageError, UserrepError
from userrep.utc import day_number, numbered_day

_EPOCH = datetime.fromisoformat("1970-01-01")
_AT_ONCE = 500  # commands of a pipeline
_TIMEOUT = 5.0  # seconds, of a connection and of an answer
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


class Found(NamedTuple):
    """A vector of the online store: of an as-of date, with the time of its newest event (UTC)."""

    as_of: date
    event_at: datetime
    vector: NDArray[np.float32]


class Vectors(NamedTuple):
    """Vectors z_UD of U users, of one space and as-of date, with the newest event's time (microseconds since 1970, UTC)
    and the number of records that each is made of.
    """

    user_ids: Sequence[str]
    event_at_U: NDArray[np.int64]
    num_records_U: NDArray[np.int64]
    z_UD: NDArray[np.float32]


class OnlineStore(NamedTuple):
    """A Redis by its URL, and how long vectors stay that nothing renews. Connections are kept, one pool a process."""

    url: str
    expires_after: timedelta

    def check(self) -> None:
        """Ask whether it answers. Raises UserrepError with the address, never with a password."""
        with self._answering("stream"):
            _client(self.url).ping()

    @contextmanager
    def _answering(self, who: str) -> Iterator[None]:
        import redis

        try:
            yield
        except redis.RedisError as error:
            raise UserrepError(
                f"{who}: no answer from Redis at {self.shown} ({type(error).__name__}). Is it up, and "
                "stream.redis.url right?"
            ) from None

    @property
    def shown(self) -> str:
        """The address without name and password."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"

    def write(self, space_id: str, as_of: date, vectors: Vectors) -> None:
        """Write vectors of one date; older ones give way. Cost: one round trip for some hundred users."""
        client = _client(self.url)
        script = client.register_script(_NEWEST_WINS)
        day, expires = day_number(as_of), int(self.expires_after.total_seconds() * 1000)
        contents = np.ascontiguousarray(vectors.z_UD, "<f4")
        places = list(zip(vectors.user_ids, vectors.event_at_U.tolist(), vectors.num_records_U.tolist(), strict=True))
        for start in range(0, len(places), _AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for k, (user_id, at, num) in enumerate(places[start : start + _AT_ONCE], start):
                values = [day, at, num, contents[k].tobytes(), expires]
                script(keys=[_key(space_id, user_id)], args=values, client=pipeline)
            pipeline.execute()

    def delete(self, space_id: str, user_ids: Sequence[str]) -> int:
        """Delete the vectors of users, and return how many there were. Cost: one round trip for some hundred users."""
        client, num = _client(self.url), 0
        with self._answering("forget"):
            for start in range(0, len(user_ids), _AT_ONCE):
                num += client.unlink(*(_key(space_id, user_id) for user_id in user_ids[start : start + _AT_ONCE]))
        return num

    def delete_where(self, space_id: str, holds: Callable[[str], bool]) -> int:
        """Delete the vectors of users of whom only this can be asked. Cost: a walk over all keys of the space."""
        prefix = _key(space_id, "")
        with self._answering("forget"):
            keys = _client(self.url).scan_iter(match=f"{prefix}*", count=_AT_ONCE)
            found = [user for key in keys if holds(user := key.decode().removeprefix(prefix))]
        return self.delete(space_id, found)

    def read(self, space_id: str, user_ids: Sequence[str]) -> list[Found | None]:
        """Read vectors of a space; None for a user who is not there. Cost: one round trip for some hundred users."""
        client, found = _client(self.url), []
        with self._answering("lookup"):
            for start in range(0, len(user_ids), _AT_ONCE):
                pipeline = client.pipeline(transaction=False)
                for user_id in user_ids[start : start + _AT_ONCE]:
                    pipeline.hmget(_key(space_id, user_id), ["d", "t", "v"])
                found += [_found(*values) for values in pipeline.execute()]
        return found


def _found(day: bytes | None, at: bytes | None, vector: bytes | None) -> Found | None:
    if day is None or at is None or vector is None:
        return None
    event_at = _EPOCH + timedelta(microseconds=int(at))
    return Found(numbered_day(int(day)), event_at, np.frombuffer(vector, "<f4"))


def _key(space_id: str, user_id: str) -> str:
    return f"userrep:{space_id}:{user_id}"


@lru_cache(maxsize=4)
def _client(url: str) -> Any:
    try:
        import redis
    except ImportError:
        raise UsageError("stream.redis: redis-py is not installed; pip install 'userrep[streaming]'.") from None
    try:
        return redis.Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
    except ValueError:  # its text may hold a part of the password
        raise UsageError(
            "stream.redis.url: not an address; write redis://USER:PASSWORD@HOST:PORT/NUMBER, and in the password %2F "
            "for /, %23 for # and %3F for ?."
        ) from None


def online_store(stream: Stream) -> OnlineStore | None:
    """Return the configured online store. Raises UsageError if a variable of its URL is not set."""
    if stream.redis is None:
        return None
    return OnlineStore(with_variables(stream.redis.url, "stream.redis.url")[0], stream.redis.expires_after)
