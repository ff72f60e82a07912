"""Spaces with hand-made snapshots, and the expected result of a join on them, in plain Python."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.spaces.registry import add_candidate
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, Snapshot, record_snapshots
from userrep.store.arrow import listed
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import EMBEDDING_UPDATES, USER_EMBEDDINGS
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of

Vector = list[float]


def add_spaces(tables: Tables, *ids: str, content_hash: str = "none", lineage_id: str = "l1") -> None:
    """Register candidates."""
    for space_id in ids:
        add_candidate(
            tables, space_id=space_id, lineage_id=lineage_id, trained_until=date(2024, 4, 1), content_hash=content_hash
        )


def snapshot(
    as_of: date, revision: int = 1, at: datetime | None = None, *, space: str = "s001-a", state: str = PUBLISHED,
    dim: int | None = None, in_sample: bool = False,
) -> Snapshot:  # fmt: skip
    """Return a row of the ledger, available at ``at``, or 6 h after its date by default."""
    when = at or datetime.combine(as_of, time(6))
    return Snapshot(
        snapshot_id=f"{space}-{as_of:%Y%m%d}-r{revision}",
        space_id=space,
        as_of=as_of,
        revision=revision,
        state=state,
        inputs_hash="x",
        num_users=2,
        available_at=when if state in (PUBLISHED, EXPIRED) else None,
        computed_at=when,
        gates=json.dumps({"dim": dim} if dim else {}),
        in_sample=in_sample,
    )


def publish(tables: Tables, vectors: Mapping[Snapshot, Mapping[str, Vector]]) -> None:
    """Write snapshots with their rows."""
    rows = [
        {"space_id": s.space_id, "as_of": s.as_of, "revision": s.revision, "user_bucket": bucket, "user_id": user,
         "embedding": vector}
        for s, users in vectors.items()
        for (user, vector), bucket in zip(users.items(), bucket_of(pa.array(users, pa.string())).tolist(), strict=True)
    ]  # fmt: skip
    tables.add(USER_EMBEDDINGS, rows)
    record_snapshots(tables, list(vectors))


@dataclass(frozen=True)
class Update:
    """A row of ``embedding_updates``."""

    as_of: date
    user: str
    computed_at: datetime
    vector: Vector
    space: str = "s001-a"


def add_updates(tables: Tables, updates: Iterable[Update]) -> None:
    """Append updates, each as a batch of its own."""
    rows = [
        {
            "space_id": u.space, "as_of": u.as_of, "user_id": u.user, "event_at": u.computed_at,
            "computed_at": u.computed_at, "query_id": "q", "batch_id": k, "embedding": u.vector,
        }
        for k, u in enumerate(updates)
    ]  # fmt: skip
    tables.add(EMBEDDING_UPDATES, rows)


@dataclass(frozen=True)
class Oracle:
    """The point-in-time join by brute force: for each label, check all snapshots and updates."""

    vectors: Mapping[Snapshot, Mapping[str, Vector]]
    updates: Sequence[Update] = ()
    availability: str = "ledger"
    max_age_days: int | None = None

    def __call__(self, user: str | None, at: datetime | None) -> tuple[str, str | None, Vector | None]:
        """Return status, snapshot id and vector."""
        snapshot = self._snapshot(at)
        snapshot_id = snapshot.snapshot_id if snapshot else None
        if user is None or at is None:
            return ("null_user" if user is None else "null_time"), snapshot_id, None
        update = self._update(user, at)
        if update and (snapshot is None or update.as_of > snapshot.as_of) and not self._too_old(update.as_of, at):
            return "update", None, update.vector
        if snapshot is None:
            return "no_snapshot_yet", None, None
        if snapshot.state == EXPIRED:
            return "expired", snapshot_id, None
        if self._too_old(snapshot.as_of, at):
            return "too_old", snapshot_id, None
        found = self.vectors[snapshot].get(user)
        return ("not_in_snapshot" if found is None else "found"), snapshot_id, found

    def _snapshot(self, at: datetime | None) -> Snapshot | None:
        available = [s for s in self.vectors if at is not None and self._since(s.available_at, s.as_of) <= at]
        return max(available, key=lambda s: (s.as_of, s.revision), default=None)

    def _update(self, user: str, at: datetime) -> Update | None:
        available = [u for u in self.updates if u.user == user and self._since(u.computed_at, u.as_of) <= at]
        return max(available, key=lambda u: (u.as_of, u.computed_at), default=None)

    def _since(self, available_at: datetime | None, as_of: date) -> datetime:
        assert available_at is not None
        return available_at if self.availability == "ledger" else datetime.combine(as_of, time())

    def _too_old(self, as_of: date, at: datetime) -> bool:
        return self.max_age_days is not None and at - datetime.combine(as_of, time()) > timedelta(self.max_age_days)


def publish_matrix(
    tables: FileTables, made: Snapshot, user_ids: pa.Array, x_ND: NDArray[np.float32], *, group_bytes: int = 2**16
) -> Snapshot:
    """Write a snapshot's vectors as tasks do, ordered by bucket, in two files of small row groups; return its row."""
    made, bucket_N = replace(made, num_users=len(user_ids)), bucket_of(user_ids)
    target = replace(tables.target(USER_EMBEDDINGS), properties=(("parquet.block.size", str(group_bytes)),))
    files, since = [], tables.version(USER_EMBEDDINGS)
    for rows in np.array_split(np.argsort(bucket_N, kind="stable"), 2):
        writer = TableWriter(target)
        columns = {
            "user_bucket": bucket_N[rows],
            "user_id": user_ids.take(pa.array(rows)),
            "embedding": listed(x_ND[rows]),
        }
        for start in range(0, len(rows), 100):
            writer.write(pa.table(columns).slice(start, 100), made.key)
        files += writer.close()
    tables.commit(USER_EMBEDDINGS, files, replacing=lambda _: False, since=since)
    record_snapshots(tables, [made])
    return made
