"""Embedding look-up for services, without Spark: each user's newest vector from the online store or a snapshot."""

import os
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from userrep.config import load_config
from userrep.errors import UsageError, UserrepError
from userrep.joins.ledger import files_by_snapshot, usable_sources
from userrep.spaces.snapshots import Snapshot
from userrep.store.arrow import combined, stacked
from userrep.store.bucket_reader import BucketFiles
from userrep.store.file_tables import FileTables
from userrep.store.open import open_tables
from userrep.streaming.redis_store import Embedding, OnlineStore, online_store

_CACHE_SECONDS = 10  # length of a period in which the newest snapshot is looked up once


def lookup(
    user_ids: Sequence[str], *, config: str | Path | None = None, space: str | None = None
) -> list[Embedding | None]:
    """Return each user's newest embedding, or None for a user in neither the online store nor the newest snapshot.

    Whichever of the streamed vector and the snapshot has the later as-of date is returned; on equal dates, the
    snapshot. All vectors are of one space.

    Cost: one round trip to Redis per 500 users. For each user that it does not have, one row group of the snapshot (up
    to 16 MB). Every ten seconds, reads of two ledgers and of the log of the snapshots' table. Needs only the files of
    the root and the online store, not Spark.

    Parameters
    ----------
    config : path of the configuration, by default the environment variable USERREP_CONFIG. Read once per process.
    space : id of the space that the service's model was trained on, by default the serving space.

    Raises
    ------
    UsageError
        If no configuration is given, an id is not a text, the space is unknown, retired or without a snapshot, or the
        tables are in a catalog.
    UserrepError
        If the online store does not answer, or its vectors have another width than the space.
    """
    path = config or os.environ.get("USERREP_CONFIG")
    if path is None:
        raise UsageError("lookup: no configuration file. Pass config= or set USERREP_CONFIG in the environment.")
    if others := [user_id for user_id in user_ids if not isinstance(user_id, str)]:
        raise UsageError(f"lookup: user ids must be texts, got {others[0]!r}. Convert them with str().")
    tables, online = _opened(str(path))
    return newest_vectors(tables, list(user_ids), space=space, online=online)


@lru_cache(maxsize=8)
def _opened(config: str) -> tuple[FileTables, OnlineStore | None]:
    settings = load_config(config)
    tables = open_tables(settings, None)
    if not isinstance(tables, FileTables):
        raise UsageError("lookup: not available for tables in a catalog. Join embeddings with Spark instead.")
    return tables, online_store(settings.streaming)


def newest_vectors(
    tables: FileTables, user_ids: list[str], *, space: str | None, online: OnlineStore | None
) -> list[Embedding | None]:
    """Return each user's newest embedding of a space, by default of the serving one; see ``lookup``."""
    snapshot, files = _newest(tables, space, int(time.monotonic() // _CACHE_SECONDS))
    newest = _streamed(online, snapshot, user_ids) if online is not None else {}
    older = [user for user in user_ids if user not in newest or newest[user].as_of <= snapshot.as_of]
    newest |= _published(snapshot, files, older)
    return [newest.get(user_id) for user_id in user_ids]


@lru_cache(maxsize=8)
def _newest(tables: FileTables, space: str | None, _period: int) -> tuple[Snapshot, BucketFiles]:
    """Return the newest snapshot of a space and its files, cached for a period of ten seconds."""
    try:
        sources = usable_sources(tables, space)
    except UsageError as error:
        raise UsageError(f"lookup: {error}") from None
    snapshot = sources.newest
    (files,) = files_by_snapshot(tables, sources.version, [snapshot])
    return snapshot, files


def _streamed(online: OnlineStore, snapshot: Snapshot, user_ids: list[str]) -> dict[str, Embedding]:
    """Return the users' vectors in the online store. Raises UserrepError if their width is not the snapshot's."""
    stored = zip(user_ids, online.read(snapshot.space_id, user_ids), strict=True)
    streamed = {user_id: embedding for user_id, embedding in stored if embedding is not None}
    for embedding in streamed.values():
        if snapshot.dim not in (None, len(embedding.vector)):
            raise UserrepError(
                f"lookup: the online store has vectors of another width for space {snapshot.space_id}, expected "
                f"{snapshot.dim}, got {len(embedding.vector)}. Give each root an online store of its own."
            )
    return streamed


def _published(snapshot: Snapshot, files: BucketFiles, user_ids: list[str]) -> dict[str, Embedding]:
    """Return the users' vectors in a snapshot."""
    rows = files.rows_of_users(pa.array(user_ids, pa.string()), ["user_id", "embedding"])
    if not rows.num_rows:
        return {}
    vectors = combined(rows.column("embedding"))
    z_UD = stacked(vectors, snapshot.dim or len(vectors[0]))
    return {
        user_id: Embedding(snapshot.space_id, snapshot.as_of, None, z_D)
        for user_id, z_D in zip(rows.column("user_id").to_pylist(), z_UD, strict=True)
    }
