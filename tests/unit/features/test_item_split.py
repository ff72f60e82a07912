"""Item vectors that are too large for a worker: taken in parts, the same bits as with all of them at once."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.features.test_features import (
    AS_OF,
    DAY,
    SPEC,
    Row,
    chunk_of,
    one_step,
    profile,
    profiles_of_users,
    ran,
    tile,
    tiles_of_users,
)
from tests.unit.features.test_item_matrix import two_versions
from userrep.features.sums.chunk import SUMS
from userrep.features.sums.item_matrix import VectorFiles
from userrep.features.sums.plan import PoolingPlan, PoolingTask, plan_ranges
from userrep.features.sums.pooling import PoolingJob, as_chunk_of_sums
from userrep.store.buckets import BucketRange
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[VectorFiles]:
    return two_versions(tmp_path_factory.mktemp("vectors"))


def ran_in_parts(job: PoolingJob, tiles: list[Row], profiles: list[Row], sums: pa.Table, num_parts: int) -> list[Row]:
    """Run a job part by part, then add up; tiles and parts of sums come in several chunks."""
    job = replace(job, item_parts=num_parts)
    made = []
    for k in range(num_parts):
        chunks = [chunk_of(tiles[:7], profiles, sums if k == 0 else None), chunk_of(tiles[7:])]
        made += [one.rows for one in replace(job.for_parts(), item_part=k).run(one_step(chunks))]
    assert_few_rows(made, tiles, profiles, sums, num_parts)
    parts = as_chunk_of_sums(pa.Table.from_batches(made)).cast(SUMS) if made else SUMS.empty_table()
    middle = parts.num_rows // 2
    return ran(job.for_adding_up(), chunk_of([], profiles, parts[:middle]), chunk_of([], sums=parts[middle:]))


def assert_few_rows(
    made: Sequence[pa.RecordBatch], tiles: list[Row], profiles: list[Row], sums: pa.Table, num_parts: int
) -> None:
    """Check that a user has one row at most per chunk, date and part with an own item, and one for old sums."""
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


@given(tiles_of_users, profiles_of_users, st.sampled_from([2, 4, 16]))
@settings(max_examples=20, deadline=None)
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
    st.sampled_from([2, 4, 16]),
)
@settings(max_examples=20, deadline=None)
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
    sums = as_chunk_of_sums(pa.Table.from_pylist(before, schema=stored)).cast(SUMS)
    changed = tuple({row["day"] for row in tiles if row["before"] != row["after"]})
    job = PoolingJob(
        SPEC, ((AS_OF, versions[0]),), ("sums", "features"), before=yesterday, changed_days=changed
    )  # fmt: skip
    for output in ("sums", "features"):
        one = replace(job, outputs=(output,))
        at_once = ran(one, chunk_of(tiles, profiles, sums))
        assert ran_in_parts(one, tiles, profiles, sums, num_parts) == at_once
        assert ran(replace(one, item_parts=num_parts), chunk_of(tiles, profiles, sums)) == at_once  # by a single task


def test_sums_in_parts_are_exact_for_the_users_whose_sums_at_once_are(versions: list[VectorFiles]) -> None:
    job = PoolingJob(SPEC, ((AS_OF, versions[0]),), ("features",))
    below = 2.0**28 / versions[0].largest
    tiles = [tile("a", 1, k, weight, 7, 1, "tv") for k, weight in ((0, below * 0.7), (1, below * 0.4))]
    tiles += [tile("b", 1, 0, below * 0.9, 7, 1, "tv")]
    in_parts = ran_in_parts(job, tiles, [], SUMS.empty_table(), 64)
    assert [(row["user_id"], row["is_exact"]) for row in in_parts] == [("a", False), ("b", True)]


def test_adding_up_reads_no_item_vectors() -> None:
    nowhere = VectorFiles((("behaviour", "no such file"),), largest=1.0)
    job = PoolingJob(SPEC, ((AS_OF, nowhere),), ("features",), item_parts=4).for_adding_up()
    (found,) = ran(job, chunk_of([], [profile("a", 1, "se", [(1, 1)])]))
    assert (found["user_id"], found["has_behaviour_onboarding"]) == ("a", False)


# The rows of a part


def test_a_part_has_the_tiles_of_its_items_and_the_profiles_with_a_pick_among_them_and_the_first_has_all_sums() -> None:
    (bucket,) = bucket_of(pa.array(["i3"]))
    tiles = [tile("a", age, item, 1.0, 9, 1, "tv") for age, item in ((1, 3), (1, 4), (2, 3), (3, 0))]
    profiles = [profile("a", 1, "se", [(0, 1), (3, 2)]), profile("c", 1, "de", [(4, 1)]), profile("d", 1, "no", [])]
    sums = pa.Table.from_pylist([{"user_bucket": 1, "user_id": "old", "sums": b""}], SUMS)
    chunk = chunk_of(tiles, profiles, sums)
    for items, is_inside in (
        (BucketRange(bucket, bucket + 1), True),
        (BucketRange(bucket - 1, bucket), False),
        (BucketRange(bucket + 1, bucket + 2), False),
    ):
        found = chunk.only_items(items)
        assert [(row["item_id"], row["day"]) for row in found.tiles.to_pylist()] == [
            ("i3", DAY - 1), ("i3", DAY - 2)
        ] * is_inside  # fmt: skip
        assert found.profiles.column("user_id").to_pylist() == ["a"] * is_inside
        assert found.sums.num_rows == 0
    assert chunk.only_items(BucketRange(0, 1)).sums is sums


# The plan


def test_with_items_in_parts_all_ranges_are_divided() -> None:
    cells = np.full(256, 10_000)
    cells[100] += 10_000_000
    plan = plan_ranges(cells, min_ranges=4, item_parts=2)
    assert plan == PoolingPlan(4, {0: 1, 1: 4, 2: 1, 3: 1}, 4)
    assert plan.undivided == []
    assert plan.divided == [
        PoolingTask(0), *(PoolingTask(1, part, 4) for part in range(4)), PoolingTask(2), PoolingTask(3)
    ]  # fmt: skip


def test_with_all_items_at_once_only_full_ranges_are_taken_in_parts() -> None:
    plan = PoolingPlan(4, {1: 2}, 4)
    assert plan.undivided == [PoolingTask(0), PoolingTask(2), PoolingTask(3)]
    assert plan.divided == [PoolingTask(1, 0, 2), PoolingTask(1, 1, 2)]
