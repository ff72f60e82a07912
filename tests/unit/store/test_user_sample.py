"""The sample of users in the lowest buckets: its rows, and the files that are not read for it."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.embedding_tables import publish, snapshot
from userrep.store import user_sample
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_EMBEDDINGS, USER_ITEM_DAYS
from userrep.store.user_sample import rows_below
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)


def by_bucket(num: int) -> dict[str, int]:
    """Return users with their buckets, in the order of their buckets."""
    ids = [f"u{k}" for k in range(num)]
    return dict(sorted(zip(ids, bucket_of(pa.array(ids)).tolist(), strict=True), key=lambda pair: pair[1]))


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of files that are opened from now on."""
    uris: list[str] = []
    actual = user_sample.open_parquet

    def recorded(uri: str) -> Any:
        uris.append(uri)
        return actual(uri)

    monkeypatch.setattr(user_sample, "open_parquet", recorded)
    return uris


def test_the_rows_below_a_bucket_are_read_of_the_partitions_asked_for(tmp_path: Path) -> None:
    tables, users = FileTables(None, str(tmp_path)), by_bucket(40)
    publish(tables, {snapshot(day): {user: [float(k)] for k, user in enumerate(users)} for day in (D1, D2)})
    limit = NUM_BUCKETS // 3
    rows = rows_below(limit, tables, USER_EMBEDDINGS, [snapshot(D2).key], ["user_id", "embedding"])
    assert rows["user_id"].to_pylist() == [user for user, bucket in users.items() if bucket < limit]
    assert rows["embedding"].to_pylist() == [[float(k)] for k in range(rows.num_rows)]
    both = rows_below(limit, tables, USER_EMBEDDINGS, [snapshot(day).key for day in (D1, D2)], ["user_id"])
    assert both.num_rows == 2 * rows.num_rows
    assert rows_below(0, tables, USER_EMBEDDINGS, [snapshot(D2).key], ["user_id"]).num_rows == 0


def test_files_whose_buckets_are_all_above_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables, users = FileTables(None, str(tmp_path)), by_bucket(20)
    tile = {"event_date": D1, "revision": 1, "item_id": "i", "event_type": "e", "num_events": 1, "weight": 1.0}
    for number in range(2):
        low, high = number * NUM_BUCKETS // 2, (number + 1) * NUM_BUCKETS // 2
        rows = [
            tile | {"user_slice": f"{number}-of-2", "user_bucket": bucket, "user_id": user}
            for user, bucket in users.items()
            if low <= bucket < high
        ]
        tables.add(USER_ITEM_DAYS, rows)
    uris, limit = opened(monkeypatch), NUM_BUCKETS // 4
    rows = rows_below(limit, tables, USER_ITEM_DAYS, [{"event_date": D1, "revision": 1}], ["user_id", "item_id"])
    assert rows["user_id"].to_pylist() == [user for user, bucket in users.items() if bucket < limit]
    assert len(uris) == 1
