"""Single users of an opening: their rows, and no more row groups than may hold them."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from userrep.store import bucket_reader
from userrep.store.bucket_reader import BucketFiles, read_row_groups
from userrep.store.data_files import TableFile
from userrep.store.xxhash import bucket_of
from userrep.streaming.encoding import read_base_rows

pytestmark = pytest.mark.fast

STORED = pa.schema(
    [
        ("user_bucket", pa.int32()), ("user_id", pa.string()), ("sums", pa.binary()),
        ("active_at", pa.list_(pa.int64())), ("num_by_context", pa.map_(pa.string(), pa.int64())),
        ("registered_at", pa.timestamp("us", "UTC")), ("attributes", pa.list_(pa.string())),
        ("pick_items", pa.list_(pa.string())), ("picked_at", pa.list_(pa.int64())),
    ]
)  # fmt: skip
GROUP, NUM_USERS = 20, 500
Row = dict[str, Any]


def row_of(user_id: str, **known: Any) -> Row:
    """Build the row of a user; what is not named is as where nothing is known."""
    (bucket,) = bucket_of(pa.array([user_id])).tolist()
    return dict.fromkeys(STORED.names) | {"user_bucket": bucket, "user_id": user_id, "sums": b""} | known


def drawn_rows() -> list[Row]:
    """Draw users in the order of their buckets: with sums, a profile, or both."""
    random = np.random.default_rng(0)
    rows = []
    for k in range(NUM_USERS):
        known: Row = {}
        kind = k % 3
        if kind != 1:
            context = [("device=tv", int(random.integers(1, 9)))]
            known |= {"sums": random.bytes(16), "active_at": [k, k + 1], "num_by_context": context}
        if kind != 0:
            at = datetime(2024, 1, 1, 0, 0, k % 60, k, tzinfo=UTC)
            part: Row = [{"registered_at": at}, {"attributes": ["SE", None]}, {"pick_items": ["i"], "picked_at": [k]}][
                k % 7 % 3
            ]
            known |= part
        rows.append(row_of(f"u{k}", **known))
    return sorted(rows, key=lambda row: row["user_bucket"])


ROWS = drawn_rows()
UNREAD = pa.table({"user_id": pa.nulls(0)})  # without a type, because no row group was read


def write(folder: Path, *parts: list[Row], group: int = GROUP, **how: Any) -> BucketFiles:
    """Write a file for each part of the rows."""
    files = [
        TableFile(
            f"{k}.parquet", 1, len(rows), {}, (rows[0]["user_bucket"], rows[-1]["user_bucket"]), table_uri=str(folder)
        )
        for k, rows in enumerate(parts)
    ]
    for file, rows in zip(files, parts, strict=True):
        pq.write_table(pa.Table.from_pylist(rows, STORED), folder / file.path, row_group_size=group, **how)
    return BucketFiles.of(files)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> BucketFiles:
    """Write all users into two files of row groups of twenty."""
    half = NUM_USERS // 2
    return write(tmp_path_factory.mktemp("opening"), ROWS[:half], ROWS[half:])


class Groups:
    """Files that count the row groups that are read of them."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def read_counted(self, uri: str, groups: Iterable[int], columns: list[str]) -> pa.Table:
        self.read += list(groups)
        return read_row_groups(uri, groups, columns)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Iterator[Groups]:
    counting = Groups()
    monkeypatch.setattr(bucket_reader, "read_row_groups", counting.read_counted)
    return counting


def micros(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1_000_000)


def test_sums_and_profiles_are_those_of_the_users_asked_for(files: BucketFiles) -> None:
    asked = {f"u{k}" for k in range(0, NUM_USERS, 7)} | {"nobody", ""}
    sums, profiles = read_base_rows(files, pa.array(sorted(asked)), day=9, context=True)
    kept = [row for row in ROWS if row["user_id"] in asked]
    keys = ("user_bucket", "user_id")
    assert sums.to_pylist() == [
        {name: row[name] for name in (*keys, "sums", "active_at", "num_by_context")} | {"day": 9}
        for row in kept
        if row["sums"]
    ]
    has_profile = [row for row in kept if row["registered_at"] or row["attributes"] or row["pick_items"]]
    assert profiles.to_pylist() == [
        {name: row[name] for name in (*keys, "attributes", "pick_items", "picked_at")}
        | {"registered_at": micros(row["registered_at"])}
        for row in has_profile
    ]
    assert 20 < sums.num_rows < len(kept)
    assert 20 < profiles.num_rows < len(kept)
    assert "num_by_context" not in read_base_rows(files, pa.array(["u0"]), day=9, context=False)[0].column_names


def test_of_one_user_one_row_group_is_read(files: BucketFiles, groups: Groups) -> None:
    num_groups = sum(pq.ParquetFile(uri).num_row_groups for uri in files.uris)
    assert num_groups > 20
    user = ROWS[NUM_USERS // 2 + 2 * GROUP + 10]["user_id"]
    read_base_rows(files, pa.array([user]), day=9, context=True)
    assert groups.read == [2]


def test_of_many_users_no_row_group_is_read_twice(files: BucketFiles, groups: Groups) -> None:
    read_base_rows(files, pa.array([row["user_id"] for row in ROWS]), day=9, context=True)
    assert len(groups.read) == sum(pq.ParquetFile(uri).num_row_groups for uri in files.uris)


def test_of_users_who_are_in_no_group_nothing_is_read(files: BucketFiles, groups: Groups) -> None:
    strangers = pa.array([f"x{k}" for k in range(5000)])
    below = strangers.filter(pa.array(bucket_of(strangers) < files.ranges.first_N[0]))
    assert len(below)
    sums, profiles = read_base_rows(files, below[:3], day=9, context=True)
    assert (sums.num_rows, profiles.num_rows, groups.read) == (0, 0, [])


def test_users_of_one_bucket_are_found_where_it_ends_a_group_and_begins_the_next(
    tmp_path: Path, groups: Groups
) -> None:
    bucket = int(bucket_of(pa.array(["c"]))[0])
    buckets = (bucket - 1, bucket, bucket, bucket, bucket + 1, bucket + 2)
    rows = [row_of(name, sums=b"x") | {"user_bucket": b} for name, b in zip("abcdef", buckets, strict=True)]
    sums, profiles = read_base_rows(write(tmp_path, rows, group=2), pa.array(["c"]), day=9, context=True)
    assert {*sums["user_id"].to_pylist(), *profiles["user_id"].to_pylist()} == {"c"}
    assert groups.read == [0, 1]  # the third begins with the bucket after it


def test_a_file_is_looked_through_for_the_users_of_its_buckets_only(tmp_path: Path, groups: Groups) -> None:
    write(tmp_path, [row_of("u")], write_statistics=False)
    bucket = int(bucket_of(pa.array(["u"]))[0])

    def with_buckets(*ends: tuple[int, int]) -> BucketFiles:
        files = [TableFile("0.parquet", 1, 1, {}, pair, table_uri=str(tmp_path)) for pair in ends]
        return BucketFiles.of(files)

    outside = with_buckets((0, bucket - 1), (bucket + 1, 2**20 - 1))
    assert outside.rows_of_users(pa.array(["u"]), ["user_id"]).equals(UNREAD)
    assert groups.read == []
    for ends in ((bucket, bucket + 1), (bucket - 1, bucket)):
        found = with_buckets(ends).rows_of_users(pa.array(["u"]), ["user_id"])
        assert found.to_pylist() == [{"user_id": "u"}]


def test_without_statistics_every_row_group_is_looked_at(tmp_path: Path, groups: Groups) -> None:
    user = ROWS[45]["user_id"]
    found = write(tmp_path, ROWS[:60], write_statistics=False).rows_of_users(pa.array([user]), ["user_id"])
    assert (found["user_id"].to_pylist(), groups.read) == ([user], [0, 1, 2])


def test_files_have_the_buckets_that_the_table_knows_and_all_if_it_knows_none() -> None:
    known = TableFile("a.parquet", 1, 1, {}, (3, 9), table_uri="s3a://b/t")
    files = BucketFiles.of([known, known._replace(path="c.parquet", buckets=None)])
    assert files.uris == ["s3a://b/t/a.parquet", "s3a://b/t/c.parquet"]
    assert [ends.tolist() for ends in files.ranges] == [[3, 0], [9, 1_048_575]]


def test_no_users_and_no_files_have_no_rows(files: BucketFiles) -> None:
    assert files.rows_of_users(pa.array([], pa.string()), ["user_id"]).equals(UNREAD)
    assert BucketFiles.of([]).rows_of_users(pa.array(["u0"]), ["user_id"]).equals(UNREAD)
