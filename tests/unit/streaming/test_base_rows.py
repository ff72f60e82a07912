"""Single users of an opening: their rows, and no more row groups than may hold them."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from userrep.store.bucket_reader import read_row_groups
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_OPENINGS
from userrep.store.xxhash import bucket_of
from userrep.streaming import base_rows as reading
from userrep.streaming.base_rows import OpeningFile, opening_rows, rows_of_users, user_files

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


def write(path: Path, rows: list[Row], *, group: int = GROUP, **how: Any) -> OpeningFile:
    pq.write_table(pa.Table.from_pylist(rows, STORED), path, row_group_size=group, **how)
    return OpeningFile(str(path), rows[0]["user_bucket"], rows[-1]["user_bucket"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpeningFile, ...]:
    """Write all users into two files of row groups of twenty."""
    folder, half = tmp_path_factory.mktemp("opening"), NUM_USERS // 2
    return write(folder / "first.parquet", ROWS[:half]), write(folder / "second.parquet", ROWS[half:])


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
    monkeypatch.setattr(reading, "read_row_groups", counting.read_counted)
    return counting


def micros(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1_000_000)


def test_sums_and_profiles_are_those_of_the_users_asked_for(files: tuple[OpeningFile, ...]) -> None:
    asked = {f"u{k}" for k in range(0, NUM_USERS, 7)} | {"nobody", ""}
    sums, profiles = opening_rows(files, pa.array(sorted(asked)), context=True)
    kept = [row for row in ROWS if row["user_id"] in asked]
    keys = ("user_bucket", "user_id")
    assert sums.to_pylist() == [
        {name: row[name] for name in (*keys, "sums", "active_at", "num_by_context")} | {"day": 0}
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
    assert "num_by_context" not in opening_rows(files, pa.array(["u0"]), context=False)[0].column_names


def test_of_one_user_one_row_group_is_read(files: tuple[OpeningFile, ...], groups: Groups) -> None:
    num_groups = sum(pq.ParquetFile(file.uri).num_row_groups for file in files)
    assert num_groups > 20
    user = ROWS[NUM_USERS // 2 + 2 * GROUP + 10]["user_id"]
    opening_rows(files, pa.array([user]), context=True)
    assert groups.read == [2]


def test_of_many_users_no_row_group_is_read_twice(files: tuple[OpeningFile, ...], groups: Groups) -> None:
    opening_rows(files, pa.array([row["user_id"] for row in ROWS]), context=True)
    assert len(groups.read) == sum(pq.ParquetFile(file.uri).num_row_groups for file in files)


def test_of_users_who_are_in_no_group_nothing_is_read(files: tuple[OpeningFile, ...], groups: Groups) -> None:
    strangers = pa.array([f"x{k}" for k in range(5000)])
    below = strangers.filter(pa.array(bucket_of(strangers) < files[0].first))
    assert len(below)
    sums, profiles = opening_rows(files, below[:3], context=True)
    assert (sums.num_rows, profiles.num_rows, groups.read) == (0, 0, [])


def test_users_of_one_bucket_are_found_where_it_ends_a_group_and_begins_the_next(
    tmp_path: Path, groups: Groups
) -> None:
    bucket = int(bucket_of(pa.array(["c"]))[0])
    buckets = (bucket - 1, bucket, bucket, bucket, bucket + 1, bucket + 2)
    rows = [row_of(name, sums=b"x") | {"user_bucket": b} for name, b in zip("abcdef", buckets, strict=True)]
    file = write(tmp_path / "one.parquet", rows, group=2)
    sums, profiles = opening_rows((file,), pa.array(["c"]), context=True)
    assert {*sums["user_id"].to_pylist(), *profiles["user_id"].to_pylist()} == {"c"}
    assert groups.read == [0, 1]  # the third begins with the bucket after it


def test_a_file_is_looked_through_for_the_users_of_its_buckets_only(tmp_path: Path, groups: Groups) -> None:
    path = write(tmp_path / "one.parquet", [row_of("u")], write_statistics=False).uri
    bucket = int(bucket_of(pa.array(["u"]))[0])
    outside = (OpeningFile(path, 0, bucket - 1), OpeningFile(path, bucket + 1, 2**20 - 1))
    assert rows_of_users(outside, pa.array(["u"]), ["user_id"]) is None
    assert groups.read == []
    for first, last in ((bucket, bucket + 1), (bucket - 1, bucket)):
        found = rows_of_users((OpeningFile(path, first, last),), pa.array(["u"]), ["user_id"])
        assert found is not None
        assert found.to_pylist() == [{"user_id": "u"}]


def test_without_statistics_every_row_group_is_looked_at(tmp_path: Path, groups: Groups) -> None:
    file = write(tmp_path / "plain.parquet", ROWS[:60], write_statistics=False)
    user = ROWS[45]["user_id"]
    found = rows_of_users((file,), pa.array([user]), ["user_id"])
    assert found is not None
    assert (found["user_id"].to_pylist(), groups.read) == ([user], [0, 1, 2])


def test_files_are_listed_by_partition_and_version_with_the_buckets_that_the_table_knows(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    tables.create(USER_OPENINGS)

    def add(name: str, lineage: str, buckets: tuple[int, int] | None) -> int:
        values = {"lineage_id": lineage, "as_of": "2024-05-01", "user_slice": "0-of-1"}
        tables.add_files(USER_OPENINGS, [TableFile(name, 1, 1, values, buckets)], transaction=(name, 0))
        return tables.version(USER_OPENINGS)

    first = add("a.parquet", "l1", (3, 9))
    add("b.parquet", "l2", (1, 1))
    add("c.parquet", "l1", None)

    def listed(**more: Any) -> set[OpeningFile]:
        return set(user_files(tables, USER_OPENINGS, lambda of: of["lineage_id"] == "l1", **more))

    uri = f"{tmp_path}/tables/user_openings"
    known = OpeningFile(f"{uri}/a.parquet", 3, 9)
    assert listed() == {known, OpeningFile(f"{uri}/c.parquet", 0, 1_048_575)}
    assert listed(version=first) == {known}
