"""A merge of many sorted Parquet files into steps: every row of the range once, and all rows of a user in one step."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.features.test_features import (
    DAY,
    FEATURES,
    Row,
    chunk_of,
    in_steps,
    profile,
    ran,
    rows_of,
    tile,
    vectors,  # noqa: F401  # a fixture
)
from userrep.features.sums import bucket_files
from userrep.features.sums.bucket_files import BucketedFile, chunks_of_files
from userrep.features.sums.chunk import PROFILES, TILES
from userrep.store.buckets import ALL_BUCKETS, NUM_BUCKETS, BucketRange

pytestmark = pytest.mark.fast


def write_sorted(
    folder: Path, tiles: list[Row], *, row_group_size: int, shuffled_rows: bool = False
) -> list[BucketedFile]:
    """Write a file of tiles for each day, sorted by bucket or in the reverse order."""
    files = []
    for day in sorted({row["day"] for row in tiles}):
        rows = sorted((row for row in tiles if row["day"] == day), key=lambda r: (r["user_bucket"], r["user_id"]))
        if shuffled_rows:
            rows = rows[::-1]
        stored = pa.Table.from_pylist(rows, schema=TILES).drop_columns(["day", "before", "after"])
        path = folder / f"{day}.parquet"
        pq.write_table(stored, path, row_group_size=row_group_size)
        files.append(BucketedFile("tiles", str(path), ALL_BUCKETS, day))
    return files


def tiles_of_buckets(buckets: Iterable[int], age: int = 1) -> list[Row]:
    """Build a tile of one user in each bucket."""
    return [tile("a", age, 0, 1.0, 3, 1, "tv") | {"user_bucket": k, "user_id": f"u{k}"} for k in buckets]


def buckets_by_step(files: list[BucketedFile], within: BucketRange = ALL_BUCKETS) -> list[list[list[int]]]:
    """Return the buckets of the tiles of each chunk of each step."""
    chunks = chunks_of_files(files, within, context=True)
    return [[chunk.tiles.column("user_bucket").to_pylist() for chunk in step] for step in in_steps(chunks)]


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("step_rows", [1, 4, 1000])
def test_steps_of_files_hold_every_row_of_a_range_once_and_users_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_rows: int, in_order: bool
) -> None:
    monkeypatch.setattr(bucket_files, "STEP_ROWS", step_rows)
    monkeypatch.setattr(bucket_files, "MAX_STEP_ROWS", 4 * step_rows)
    random = np.random.default_rng(step_rows)
    tiles = [
        tile(str(random.choice(list("aaaabcd"))), int(random.integers(1, 4)), int(random.integers(6)), 1.0, 3, 1, "tv")
        for _ in range(60)
    ]
    files = write_sorted(tmp_path, tiles, row_group_size=3, shuffled_rows=not in_order)
    found: list[Row] = []
    for within in (BucketRange(0, NUM_BUCKETS // 2), BucketRange(NUM_BUCKETS // 2, NUM_BUCKETS)):
        users_before: set[str] = set()
        for step in in_steps(chunks_of_files(files, within, context=True)):
            rows = [row for chunk in step for row in chunk.tiles.to_pylist()]
            assert all(within.start <= row["user_bucket"] < within.stop for row in rows)
            users = {row["user_id"] for row in rows}
            assert not users & users_before
            users_before |= users
            found += rows
    key = sorted(map(str, found))
    assert key == sorted(map(str, tiles))
    assert ran(FEATURES, chunk_of(tiles)) == sorted(
        (r for made in FEATURES.run(chunks_of_files(files, ALL_BUCKETS, context=True)) for r in rows_of(made)),
        key=lambda r: r["user_id"],
    )


def test_a_range_includes_its_first_bucket_and_excludes_the_one_after_its_last(tmp_path: Path) -> None:
    files = write_sorted(tmp_path, tiles_of_buckets([4, 5, 6, 7, 8]), row_group_size=100)
    assert buckets_by_step(files, BucketRange(5, 8)) == [[[5, 6, 7]]]


def test_rows_are_cut_into_steps_of_about_the_wanted_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_files, "STEP_ROWS", 50)
    tiles = [row for age in (1, 2) for row in tiles_of_buckets(range(100), age)]
    found = buckets_by_step(write_sorted(tmp_path, tiles, row_group_size=10), BucketRange(0, 100))
    assert [len(chunks) for chunks in found] == [1] * 4
    assert [len(chunk) for chunks in found for chunk in chunks] == [50] * 4


def test_a_bucket_with_too_many_rows_for_a_step_comes_in_several_chunks_of_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_files, "STEP_ROWS", 5)
    monkeypatch.setattr(bucket_files, "MAX_STEP_ROWS", 20)
    tiles = [row for age in (1, 2, 3) for row in tiles_of_buckets([3] * 30, age)]
    found = buckets_by_step(write_sorted(tmp_path, tiles, row_group_size=10))
    (chunks,) = found
    assert [len(chunk) for chunk in chunks] == [20, 20, 20, 20, 10]


def test_row_groups_outside_the_range_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_sorted(tmp_path, tiles_of_buckets(range(40)), row_group_size=10)
    groups: list[int] = []
    read = pq.ParquetFile.read_row_groups

    def noted(self: pq.ParquetFile, numbers: list[int], **more: object) -> pa.Table:
        groups.extend(numbers)
        return read(self, numbers, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", noted)
    assert buckets_by_step(files, BucketRange(10, 30)) == [[list(range(10, 30))]]
    assert groups == [1, 2]


def test_rows_of_a_file_get_its_day_and_marks_and_times_as_microseconds(tmp_path: Path) -> None:
    at = datetime(2024, 3, 9, 12)
    as_stored = {"last_event_at": pa.array([at], pa.timestamp("us", "UTC")), "user_bucket": pa.array([3], pa.int32())}
    (row,) = tiles_of_buckets([3])
    table = pa.Table.from_pylist([row], TILES).drop_columns(["day", "before", "after"])
    for name, column in as_stored.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "t.parquet")
    profiles = pa.Table.from_pylist([profile("a", 1, "se", [(2, 1)])], PROFILES)
    pq.write_table(profiles, tmp_path / "p.parquet")
    files = [
        BucketedFile("tiles", str(tmp_path / "t.parquet"), ALL_BUCKETS, DAY - 5, before=True, after=False),
        BucketedFile("profiles", str(tmp_path / "p.parquet"), ALL_BUCKETS),
    ]
    (chunk,) = chunks_of_files(files, ALL_BUCKETS, context=True)
    wanted = {"day": DAY - 5, "before": True, "after": False, "last_event_at": 1_709_985_600_000_000}
    assert chunk.tiles.schema.equals(TILES)
    assert {name: chunk.tiles.to_pylist()[0][name] for name in wanted} == wanted
    assert chunk.profiles.equals(profiles)
    assert chunk.sums.num_rows == 0


def test_without_files_there_is_no_step() -> None:
    assert list(chunks_of_files([], ALL_BUCKETS, context=True)) == []
