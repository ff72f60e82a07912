"""Embeddings for services, without Spark: the newest of each user, from the online store or the newest snapshot."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.config import Config, load_config
from userrep.errors import UsageError, UserrepError
from userrep.spaces.registry import RETIRED, find_space
from userrep.spaces.snapshots import Snapshot, list_snapshots
from userrep.store.arrow import combined, stacked
from userrep.store.file_tables import FileTables
from userrep.store.places import open_tables
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.streaming.online import OnlineStore, online_store
from userrep.streaming.opening_rows import OpeningFile, rows_of_users, user_files

_FRESH = 10.0  # seconds, for which what serves is taken to be what it was


class Embedding(NamedTuple):
    """A user's newest vector z_D. ``event_at``: its newest event (UTC), of streamed ones; None: from a snapshot."""

    space_id: str
    as_of: date
    event_at: datetime | None
    vector: NDArray[np.float32]


def lookup(
    user_ids: Sequence[str], *, config: str | Path | None = None, space: str | None = None
) -> list[Embedding | None]:
    """Return each user's newest embedding, None for a user whom neither the online store nor the snapshot has.

    Of a streamed vector and one of the newest snapshot that of the later as-of date counts; of one date the snapshot's.
    ``config``: the configuration's path (default: the variable USERREP_CONFIG of the environment), read once a process.
    ``space``: the id of the space that the service's model was trained on (default: the one that serves, named in what
    comes back). Vectors of no other space are returned.

    Cost: one round trip to Redis for some hundred users; for users whom it does not have, a row group of the snapshot
    each (of up to 16 MB); every ten seconds a look at two ledgers. Needs no Spark, and nothing but the files of the
    root and the online store.

    Raises
    ------
    UsageError
        If no configuration is named, the space is unknown, retired or has no snapshot yet, or the tables are in a
        catalog.
    UserrepError
        If the online store does not answer, or holds vectors of another width than the space's.
    """
    path = config or os.environ.get("USERREP_CONFIG")
    if path is None:
        raise UsageError("lookup: name a configuration file, by config= or by USERREP_CONFIG in the environment.")
    return _service(str(path), space).lookup(list(user_ids))


@lru_cache(maxsize=8)
def _service(config: str, space: str | None) -> "Service":
    return Service.of(load_config(config), space)


@dataclass
class Service:
    """What one process looks embeddings of one space up with."""

    tables: FileTables
    wanted: str | None
    online: OnlineStore | None
    _seen: "tuple[float, Snapshot, tuple[OpeningFile, ...]] | None" = None

    @classmethod
    def of(cls, config: Config, space: str | None) -> "Service":
        tables = open_tables(config, None)
        if not isinstance(tables, FileTables):
            raise UsageError("lookup: reads snapshots from files, which it cannot in a catalog; join them by Spark.")
        return cls(tables, space, online_store(config.streaming))

    def lookup(self, user_ids: list[str]) -> list[Embedding | None]:
        """Return each user's newest embedding."""
        snapshot, files = self._newest()
        store = self.online
        streamed = store.read(snapshot.space_id, user_ids) if store is not None else [None] * len(user_ids)
        for found in streamed:
            if found is not None and snapshot.dim not in (None, len(found.vector)):
                raise UserrepError(
                    f"lookup: the online store has vectors of {len(found.vector)} numbers for space "
                    f"{snapshot.space_id}, which has {snapshot.dim}. Does another root write to it? Give each its own."
                )
        is_older = [found is None or found.as_of <= snapshot.as_of for found in streamed]
        asked = [user for user, older in zip(user_ids, is_older, strict=True) if older]
        published = _published(snapshot, files, asked)
        embeddings: list[Embedding | None] = []
        for user_id, found, older in zip(user_ids, streamed, is_older, strict=True):
            if older and user_id in published:
                embeddings.append(Embedding(snapshot.space_id, snapshot.as_of, None, published[user_id]))
            else:
                embeddings.append(None if found is None else Embedding(snapshot.space_id, *found))
        return embeddings

    def _newest(self) -> tuple[Snapshot, tuple[OpeningFile, ...]]:
        """Return the newest snapshot of the space and its files, as they were within the last seconds."""
        if self._seen is None or time.monotonic() - self._seen[0] > _FRESH:
            space = find_space(self.tables, self.wanted)
            if space.state == RETIRED:
                raise UsageError(f"lookup: space {space.space_id} is retired; move to the one that serves.")
            published = list_snapshots(self.tables, space.space_id)
            if not published:
                raise UsageError(f"lookup: space {space.space_id} has no snapshot yet.")
            newest = published[-1]
            key = (newest.space_id, newest.as_of, newest.revision)
            files = user_files(
                self.tables, USER_EMBEDDINGS, lambda of: (of["space_id"], of["as_of"], of["revision"]) == key
            )
            self._seen = time.monotonic(), newest, files
        return self._seen[1:]


def _published(snapshot: Snapshot, files: Sequence[OpeningFile], user_ids: list[str]) -> dict[str, NDArray[np.float32]]:
    if not user_ids:
        return {}
    rows = rows_of_users(files, pa.array(user_ids, pa.string()), ["user_id", "embedding"])
    if rows is None or not rows.num_rows:
        return {}
    vectors = combined(rows.column("embedding"))
    z_UD = stacked(vectors, snapshot.dim or len(vectors[0]))
    return dict(zip(rows.column("user_id").to_pylist(), z_UD, strict=True))
