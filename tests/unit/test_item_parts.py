"""Item vectors that are too large for a worker: taken in parts, the same bits as with all of them at once."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import config_of
from tests.unit.test_features import (
    AS_OF,
    ITEM_IDS,
    ITEMS_IX,
    NUM_ITEMS,
    SPEC,
    Row,
    chunk_of,
    profile,
    profiles_of_users,
    ran,
    tile,
    tiles_of_users,
)
from userrep.events.buckets import ALL_BUCKETS, NUM_BUCKETS, BucketRange, range_of
from userrep.events.hashing import bucket_of
from userrep.features import item_files, item_matrix
from userrep.features.accumulate import Floats
from userrep.features.chunk import SUMS
from userrep.features.item_files import item_parts
from userrep.features.item_matrix import ItemMatrix, VectorFiles, item_matrices, read_matrix
from userrep.features.plan import Plan, Task
from userrep.features.pooling import PoolingJob, as_chunk_of_sums
from userrep.items.versions import MadeVersion, Versions
from userrep.tables import Tables

pytestmark = pytest.mark.default


def write_version(folder: Path, vectors_IX: Floats, num_files: int) -> VectorFiles:
    """Write vectors as the pipeline does, by item bucket, in row groups of one row."""
    files, order = {}, np.argsort(bucket_of(ITEM_IDS), kind="stable")
    for m, (name, part) in enumerate({"behaviour": slice(0, 2), "content": slice(2, 5)}.items()):
        rows = [k for k in order if vectors_IX[k, 5 + m]]
        table = pa.table(
            {
                "item_bucket": bucket_of(ITEM_IDS)[rows],
                "item_id": ITEM_IDS.take(pa.array(rows)),
                "vector": pa.array([row.tolist() for row in vectors_IX[rows, part]], pa.list_(pa.float32())),
            }
        )
        folder.mkdir(exist_ok=True)
        files[name] = tuple(str(folder / f"{name}-{k}.parquet") for k in range(num_files))
        for k, path in enumerate(files[name]):
            half = np.flatnonzero(np.asarray(table["item_bucket"]) // (NUM_BUCKETS // num_files) == k)
            pq.write_table(table.take(pa.array(half)), path, row_group_size=1)
    return VectorFiles(tuple(files.items()), largest=float(np.abs(vectors_IX[:, :5]).max()))


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[VectorFiles]:
    """Two versions of the vectors."""
    turned = np.hstack([-2 * ITEMS_IX[:, :5], ITEMS_IX[:, 5:]])
    folder = tmp_path_factory.mktemp("vectors")
    return [write_version(folder / "one", ITEMS_IX, 1), write_version(folder / "two", turned, 2)]


def ran_in_parts(job: PoolingJob, tiles: list[Row], profiles: list[Row], sums: pa.Table, num_parts: int) -> list[Row]:
    """Run a job part by part, then add up; tiles and parts of sums come in several chunks."""
    job = replace(job, item_parts=num_parts)
    made = []
    for k in range(num_parts):
        chunks = [chunk_of(tiles[:7], profiles, sums if k == 0 else None), chunk_of(tiles[7:])]
        made += [one.rows for one in replace(job.for_parts(), item_part=k).run([iter(chunks)])]
    assert_few_rows(made, tiles, profiles, sums, num_parts)
    parts = as_chunk_of_sums(pa.Table.from_batches(made), context=True).cast(SUMS) if made else SUMS.empty_table()
    middle = parts.num_rows // 2
    return ran(job.for_adding_up(), chunk_of([], profiles, parts[:middle]), chunk_of([], sums=parts[middle:]))


def assert_few_rows(
    made: Sequence[pa.RecordBatch], tiles: list[Row], profiles: list[Row], sums: pa.Table, num_parts: int
) -> None:
    """No user has more rows of a chunk and date than there are parts with an item of theirs, and one for old sums."""
    items: dict[str, set[str]] = {}
    for user, item in [
        *((row["user_id"], row["item_id"]) for row in tiles),
        *((row["user_id"], item) for row in profiles for item in row["pick_items"] or []),
    ]:
        items.setdefault(user, set()).add(item)
    old = set(sums.column("user_id").to_pylist())
    num_rows: dict[tuple[str, date], int] = {}
    for row in (row for rows in made for row in rows.to_pylist()):
        num_rows[row["user_id"], row["as_of"]] = num_rows.get((row["user_id"], row["as_of"]), 0) + 1
    for (user, _), found in num_rows.items():
        assert found <= 2 * min(num_parts, len(items.get(user, ())) + (user in old))


@given(tiles_of_users, profiles_of_users, st.sampled_from([2, 4, 64]))
@settings(max_examples=60, deadline=None)
def test_features_of_several_dates_and_versions_are_the_same_whether_items_come_at_once_or_in_parts(
    versions: list[VectorFiles], tiles: list[Row], drawn: dict[str, tuple[Any, ...]], num_parts: int
) -> None:
    profiles = [profile(user, *more) for user, more in drawn.items()]
    dates = tuple((AS_OF - timedelta(days=k), versions[k < 2]) for k in (4, 2, 1, 0))
    job = PoolingJob(SPEC, dates, ("features",))
    in_parts = ran_in_parts(job, tiles, profiles, SUMS.empty_table(), num_parts)
    assert in_parts == ran(job, chunk_of(tiles, profiles))


@given(
    tiles_of_users,
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=40, max_size=40),
    profiles_of_users,
    st.sampled_from([2, 4, 64]),
)
@settings(max_examples=60, deadline=None)
def test_sums_that_move_on_are_the_same_whether_items_come_at_once_or_in_parts(
    versions: list[VectorFiles],
    tiles: list[Row],
    marks: list[tuple[bool, bool]],
    drawn: dict[str, tuple[Any, ...]],
    num_parts: int,
) -> None:
    profiles = [profile(user, *more) for user, more in drawn.items()]
    tiles = [row | {"before": b, "after": a} for row, (b, a) in zip(tiles, marks, strict=False)]
    yesterday = AS_OF - timedelta(days=1)
    old = [row | {"before": False, "after": True} for row in tiles if row["before"]]
    before = ran(PoolingJob(SPEC, ((yesterday, versions[0]),), ("sums",)), chunk_of(old))
    stored = pa.schema([("as_of", pa.date32()), *((field.name, field.type) for field in SUMS if field.name != "day")])
    sums = as_chunk_of_sums(pa.Table.from_pylist(before, schema=stored), context=True).cast(SUMS)
    changed = tuple({row["day"] for row in tiles if row["before"] != row["after"]})
    job = PoolingJob(
        SPEC, ((AS_OF, versions[0]),), ("sums", "features"), before=yesterday, changed_days=changed
    )  # fmt: skip
    for output in ("sums", "features"):
        one = replace(job, outputs=(output,))
        assert ran_in_parts(one, tiles, profiles, sums, num_parts) == ran(one, chunk_of(tiles, profiles, sums))


def test_a_user_is_beyond_exact_sums_in_parts_if_at_once(versions: list[VectorFiles]) -> None:
    job = PoolingJob(SPEC, ((AS_OF, versions[0]),), ("features",))
    below = 2.0**28 / versions[0].largest
    tiles = [tile("a", 1, k, weight, 7, 1, "tv") for k, weight in ((0, below * 0.7), (1, below * 0.4))]
    tiles += [tile("b", 1, 0, below * 0.9, 7, 1, "tv")]
    in_parts = ran_in_parts(job, tiles, [], SUMS.empty_table(), 64)
    assert [(row["user_id"], row["is_exact"]) for row in in_parts] == [("a", False), ("b", True)]


def test_adding_up_reads_no_item_vectors() -> None:
    nowhere = VectorFiles((("behaviour", ("no such file",)),), largest=1.0)
    job = PoolingJob(SPEC, ((AS_OF, nowhere),), ("features",), item_parts=4).for_adding_up()
    (found,) = ran(job, chunk_of([], [profile("a", 1, "se", [(1, 1)])]))
    assert (found["user_id"], found["has_behaviour_onboarding"]) == ("a", False)


# Vectors in a worker


def part_of(matrix: ItemMatrix) -> dict[str, list[float]]:
    return dict(zip(matrix.item_ids.to_pylist(), matrix.vectors_IX.tolist(), strict=True))


@pytest.mark.parametrize("num_parts", [1, 2, 8, 1024])
def test_the_parts_of_the_item_vectors_are_the_whole_and_each_is_read_by_its_row_groups_alone(
    versions: list[VectorFiles], monkeypatch: pytest.MonkeyPatch, num_parts: int
) -> None:
    groups: list[int] = []
    within = item_matrix.groups_within

    def counted(footer: pq.FileMetaData, items: BucketRange) -> list[int]:
        groups.extend(found := within(footer, items))
        return found

    monkeypatch.setattr(item_matrix, "groups_within", counted)
    for version, sign in zip(versions, (1, -2), strict=True):
        want = np.hstack([sign * ITEMS_IX[:, :5], ITEMS_IX[:, 5:]]).tolist()
        parts: dict[str, list[float]] = {}
        groups.clear()
        for k in range(num_parts):
            items = range_of(k, num_parts)
            found = part_of(read_matrix(version, SPEC, items))
            assert all(items.start <= bucket_of(pa.array([item]))[0] < items.stop for item in found)
            assert not parts.keys() & found.keys()
            parts |= found
        assert parts == dict(zip(ITEM_IDS.to_pylist(), want, strict=True))
        num_vectors = int(ITEMS_IX[:, 5:].sum())
        assert len(groups) == 2 * num_vectors, "once for the ids and once for the vectors"


def test_a_file_without_statistics_is_read_whole(tmp_path: Path) -> None:
    table = pa.table({"item_bucket": pa.array([1, 5, 9], pa.int32()), "item_id": ["x", "y", "z"]})
    pq.write_table(table, tmp_path / "f.parquet", row_group_size=1, write_statistics=False)
    footer = pq.read_metadata(tmp_path / "f.parquet")
    assert item_matrix.groups_within(footer, BucketRange(4, 6)) == [0, 1, 2]


def test_a_worker_holds_what_its_task_needs_and_nothing_else(
    versions: list[VectorFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[BucketRange] = []

    def noted(version: VectorFiles, spec: Any, items: BucketRange) -> ItemMatrix:
        read.append(items)
        return read_matrix(version, spec, items)

    monkeypatch.setattr(item_matrix, "_held", {})
    monkeypatch.setattr(item_matrix, "read_matrix", noted)
    for items in (ALL_BUCKETS, ALL_BUCKETS, range_of(0, 2), range_of(0, 2), range_of(1, 2)):
        item_matrices(versions, SPEC, items)
        assert {held for *_, held in item_matrix._held} == {items}
    item_matrices(versions[:1], SPEC, range_of(1, 2))
    assert len(item_matrix._held) == 1
    assert read == [ALL_BUCKETS] * 2 + [range_of(0, 2)] * 2 + [range_of(1, 2)] * 2


@pytest.mark.parametrize("same_hash", [False, True])
def test_an_item_is_found_in_its_row_even_if_hashes_meet(monkeypatch: pytest.MonkeyPatch, same_hash: bool) -> None:
    if same_hash:
        monkeypatch.setattr(item_matrix, "hash64", lambda texts: np.full(len(texts), 7, np.uint64))
    matrix = ItemMatrix.empty(ITEM_IDS, 3)
    asked = pa.array(["i3", "none", "i0", "i3", ""])
    rows = matrix.rows_of(asked)
    assert rows[[1, 4]].tolist() == [-1, -1]
    assert matrix.item_ids.take(pa.array(rows[[0, 2, 3]])).to_pylist() == ["i3", "i0", "i3"]
    assert ItemMatrix.empty(ITEM_IDS[:0], 3).rows_of(asked).tolist() == [-1] * 5
    assert sorted(matrix.rows_of(ITEM_IDS)) == list(range(NUM_ITEMS))


# The plan


def test_with_items_in_parts_each_range_and_day_meets_each_item_once() -> None:
    plan = Plan(4, {1: 3}, item_parts=2)
    assert plan.tasks(in_parts=False) == []
    found = plan.tasks(in_parts=True)
    assert [task.item_part for task in found] == [0] * 6 + [1] * 6, "parts of the same items follow each other"
    for part in (0, 1):
        ranges = [(task.range, task.part, task.num_parts) for task in found if task.item_part == part]
        assert ranges == [(0, 0, 1), (1, 0, 3), (1, 1, 3), (1, 2, 3), (2, 0, 1), (3, 0, 1)]


def test_with_all_items_at_once_only_full_ranges_are_taken_in_parts() -> None:
    plan = Plan(4, {1: 2})
    assert plan.tasks(in_parts=False) == [Task(0), Task(2), Task(3)]
    assert plan.tasks(in_parts=True) == [Task(1, 0, 2), Task(1, 1, 2)]


@pytest.mark.parametrize(
    ("num_items", "limit", "said"),
    [
        (50_000_000, "2GiB", "item vectors of 52.0 GB in 32 parts"),
        (50_000_000, "60GB", "item vectors of 52.0 GB in 1 parts"),
        (2_000_000, "2GiB", "item vectors of 2.1 GB in 1 parts"),
        (3_000_000, "2GiB", "item vectors of 3.1 GB in 2 parts"),
    ],
)
def test_items_are_taken_in_parts_by_the_size_of_their_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_items: int, limit: str, said: str
) -> None:
    vectors = {name: {"kind": "als", "dim": 64, "refit_days": 28} for name in ("behaviour", "content")}
    config = config_of(tmp_path, item_vectors=vectors, spark={"item_vectors_bytes": limit})
    made = MadeVersion(num_items, {"behaviour": num_items, "content": num_items - 5}, 1.0)
    monkeypatch.setattr(item_files, "made_versions", lambda tables, lineage_id: {AS_OF: made})
    versions = Versions("l1", AS_OF, 28, frozenset({AS_OF}))
    no_tables: Tables = None  # type: ignore[assignment]
    assert str(item_parts(no_tables, config, versions, [AS_OF, AS_OF + timedelta(days=9)])) == said
