"""What a job makes of chunks: windows end before the date, means weighted by events, each date with its own vectors."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose

from tests.unit.features.test_features import (
    AS_OF,
    DAY,
    DAY_US,
    FEATURES,
    ITEM_IDS,
    ITEMS_IX,
    SPEC,
    VECTORS,
    Row,
    chunk_of,
    profile,
    ran,
    tile,
    vectors,  # noqa: F401  # a fixture
)
from userrep.features.spec import FeatureSpec
from userrep.features.sums import pooling
from userrep.features.sums.chunk import SUMS
from userrep.features.sums.item_matrix import ItemMatrix, VectorFiles
from userrep.features.sums.pooling import PoolingJob, as_chunk_of_sums
from userrep.store.buckets import BucketRange

pytestmark = pytest.mark.fast

YESTERDAY = AS_OF - timedelta(days=1)


@pytest.mark.parametrize(
    ("age", "in_windows"),
    [
        (-1, (0, 0, 0)),
        (0, (0, 0, 0)),  # on the as-of date itself
        (1, (2, 2, 2)),
        (2, (0, 2, 2)),
        (3, (0, 2, 2)),  # the first day of the window of three days
        (4, (0, 0, 2)),
        (6, (0, 0, 2)),  # the first day of the history
        (7, (0, 0, 0)),
    ],
)
def test_an_event_is_in_a_window_of_w_days_from_w_days_before_the_date_to_the_day_before(
    age: int, in_windows: tuple[int, int, int]
) -> None:
    (row,) = ran(FEATURES, chunk_of([tile("a", age, 0, 1.5, 23, 2, "tv")], [profile("a", 3, "se", [])]))
    assert tuple(row[f"num_events_{window}d"] for window in (1, 3, 6)) == in_windows
    assert [row[f"weight_{window}d"] for window in (1, 3, 6)] == [1.5 * (num > 0) for num in in_windows]
    assert [row[f"num_active_days_{window}d"] for window in (1, 3, 6)] == [int(num > 0) for num in in_windows]
    assert [row[f"has_behaviour_{window}d"] for window in (1, 3, 6)] == [num > 0 for num in in_windows]


def test_a_pooled_vector_is_the_mean_of_the_items_vectors_weighted_by_the_weights_of_their_events() -> None:
    weights, items = [0.25, 3.0, 1.5, 7.75, 2.0, 40.0], [0, 1, 2, 3, 5, 6]  # item 2 lacks one vector, item 6 has none
    tiles = [tile("a", 1, item, weight, 9, 1, "tv") for item, weight in zip(items, weights, strict=True)]
    (row,) = ran(FEATURES, chunk_of(tiles))
    behaviour, content = [0, 1, 3, 5], [0, 2, 3, 5]
    by_item = dict(zip(items, weights, strict=True))
    for name, known, part in (("behaviour", behaviour, slice(0, 2)), ("content", content, slice(2, 5))):
        want = np.average(ITEMS_IX[known, part], axis=0, weights=[by_item[item] for item in known])
        assert_allclose(row[f"{name}_3d"], want, rtol=1e-6)
    assert row["weight_1d"] == sum(weights)


def test_a_modality_is_present_only_if_an_item_with_its_vector_was_taken() -> None:
    found = {}
    for item in (1, 2, 6):  # with the first vector only, the second only, and none
        (row,) = ran(FEATURES, chunk_of([tile("a", 1, item, 2.0, 9, 1, "tv")]))
        found[item] = (row["has_behaviour_1d"], row["has_content_1d"])
        assert [any(row["behaviour_1d"]), any(row["content_1d"])] == list(found[item])
    assert found == {1: (True, False), 2: (False, True), 6: (False, False)}


def test_onboarding_picks_count_once_each_whatever_the_windows() -> None:
    (row,) = ran(FEATURES, chunk_of([], [profile("a", None, "se", [(0, 300), (3, 1), (3, 2), (4, 0)])]))
    assert_allclose(row["behaviour_onboarding"], (ITEMS_IX[0, :2] + 2 * ITEMS_IX[3, :2]) / 3, rtol=1e-6)
    assert (row["has_behaviour_onboarding"], row["has_behaviour_6d"], row["num_events_6d"]) == (True, False, 0)


def test_each_date_is_summed_with_the_item_vectors_of_its_own_version(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = VectorFiles((("behaviour", "old"),), 1.0), VectorFiles((("behaviour", "new"),), 1.0)
    matrices = {}
    for version, scale in ((old, 1.0), (new, -10.0)):
        matrices[version] = ItemMatrix.empty(ITEM_IDS, 7)
        matrices[version].vectors_IX[matrices[version].rows_of(ITEM_IDS)] = ITEMS_IX * [*[scale] * 5, 1, 1]

    def found(versions: Sequence[VectorFiles], spec: FeatureSpec, items: BucketRange) -> dict[VectorFiles, ItemMatrix]:
        return {version: matrices[version] for version in versions}

    monkeypatch.setattr(pooling, "item_matrices", found)
    job = PoolingJob(SPEC, ((YESTERDAY, old), (AS_OF, new)), ("features",))
    tiles = [tile("a", 2, 0, 1.0, 9, 1, "tv"), tile("a", 3, 3, 3.0, 9, 1, "tv")]
    first, second = ran(job, chunk_of(tiles, [profile("a", 5, "se", [(4, 4)])]))
    mean = (ITEMS_IX[0, :2] + 3 * ITEMS_IX[3, :2]) / 4
    assert_allclose(first["behaviour_6d"], mean, rtol=1e-6)
    assert_allclose(second["behaviour_6d"], -10 * mean, rtol=1e-6)
    assert_allclose(second["behaviour_onboarding"], -10 * ITEMS_IX[4, :2], rtol=1e-6)
    assert (first["num_events_3d"], second["num_events_3d"], second["num_active_days_6d"]) == (2, 2, 2)


def test_stored_sums_move_on_by_the_days_that_enter_and_leave() -> None:
    def marked(row: Row, *, before: bool) -> Row:
        return row | {"before": before, "after": True}

    old = [tile("a", 2, 0, 2.0, 9, 1, "tv"), tile("a", 4, 1, 5.0, 9, 1, "tv"), tile("a", 5, 3, 1.0, 9, 1, "phone")]
    yesterdays = ran(PoolingJob(SPEC, ((YESTERDAY, VECTORS),), ("sums",)), chunk_of(old))
    schema = pa.schema([("as_of", pa.date32()), *((field.name, field.type) for field in SUMS if field.name != "day")])
    sums = as_chunk_of_sums(pa.Table.from_pylist(yesterdays, schema)).cast(SUMS)
    # Only days that change their window are read: day 4 leaves the three days, day 2 leaves the one day, day 1 is new.
    tiles = [marked(old[0], before=True), marked(old[1], before=True),
             marked(tile("a", 1, 5, 0.5, 9, 1, "tv"), before=False)]  # fmt: skip
    job = PoolingJob(SPEC, ((AS_OF, VECTORS),), ("features",), before=YESTERDAY)
    (row,) = ran(job, chunk_of(tiles, sums=sums))
    assert [row[f"weight_{window}d"] for window in (1, 3, 6)] == [0.5, 2.5, 8.5]
    assert [row[f"num_active_days_{window}d"] for window in (1, 3, 6)] == [1, 2, 4]
    assert row["num_by_context_3d"] == [("device=tv", 2)]
    assert_allclose(row["behaviour_3d"], (0.5 * ITEMS_IX[5, :2] + 2 * ITEMS_IX[0, :2]) / 2.5, rtol=1e-6)


def test_sums_of_a_date_become_rows_of_that_day() -> None:
    rows = pa.table({
        "as_of": pa.array([AS_OF, YESTERDAY]), "user_bucket": pa.array([1, 2], pa.int32()), "user_id": ["a", "b"],
        "sums": pa.array([b"x", b"y"]), "active_at": pa.array([[DAY_US], []], pa.list_(pa.int64())),
        "num_by_context": pa.array([[("tv", 1)], None], SUMS.field("num_by_context").type),
    })  # fmt: skip
    found = as_chunk_of_sums(rows)
    assert found.schema.equals(SUMS)
    assert found.drop_columns("day").equals(rows.drop_columns("as_of"))
    assert found.column("day").to_pylist() == [DAY, DAY - 1]


def test_users_whose_last_chunk_is_missing_are_an_error_and_not_lost() -> None:
    chunk = chunk_of([tile("a", 1, 0, 1.0, 9, 1, "tv")])._replace(is_last=False)
    with pytest.raises(ValueError, match="pooling: the last chunk of a user is missing, got 2 chunks before it"):
        list(FEATURES.run([chunk, chunk]))


def test_a_job_without_chunks_makes_nothing() -> None:
    assert list(FEATURES.run([])) == []
