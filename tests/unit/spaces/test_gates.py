"""What refuses a snapshot, and at which bound."""

from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from userrep import config
from userrep.spaces.gates import SnapshotStats, _sums_by_date, refusals
from userrep.store.vector_storage import VectorStorage

pytestmark = pytest.mark.fast

GATES = config.Gates(min_rows_share=0.5, min_live_dims_share=0.25)


@pytest.mark.parametrize(
    ("stats", "fault"),
    [
        (SnapshotStats(0, 0, 0, 0), "it has no rows"),
        (SnapshotStats(90, 90, 0, 4), "it has 90 rows, the features have 100"),
        (SnapshotStats(100, 99, 0, 4), "1 rows repeat a user"),
        (SnapshotStats(100, 100, 2, 4), "2 vectors are not 4 finite numbers"),
        (SnapshotStats(100, 100, 0, 1), "only 1 of 4 dimensions vary"),
        (SnapshotStats(40, 40, 0, 4), "it has 40 rows, the previous snapshot has 100"),
    ],
)
def test_each_gate_refuses_for_its_reason(stats: SnapshotStats, fault: str) -> None:
    expected = 40 if stats.num_rows == 40 else 100
    faults = refusals(stats, config.Gates(), dim=4, expected_rows=expected, rows_before=100)
    assert any(fault in found for found in faults)


def test_a_sound_snapshot_passes_all_gates() -> None:
    sound = SnapshotStats(100, 100, 0, 4)
    assert refusals(sound, config.Gates(), dim=4, expected_rows=100, rows_before=None) == []


def test_all_faults_are_reported_together() -> None:
    faults = refusals(SnapshotStats(40, 39, 2, 0), GATES, dim=8, expected_rows=100, rows_before=100)
    assert faults == [
        "it has 40 rows, the features have 100",
        "1 rows repeat a user",
        "2 vectors are not 8 finite numbers",
        "only 0 of 8 dimensions vary (gates.min_live_dims_share 0.25)",
        "it has 40 rows, the previous snapshot has 100 (gates.min_rows_share 0.5)",
    ]


@pytest.mark.parametrize(("num_rows", "is_refused"), [(50, False), (49, True)])
def test_a_snapshot_may_have_exactly_the_least_share_of_the_rows_before(num_rows: int, is_refused: bool) -> None:
    stats = SnapshotStats(num_rows, num_rows, 0, 8)
    faults = refusals(stats, GATES, dim=8, expected_rows=num_rows, rows_before=100)
    assert faults == ["it has 49 rows, the previous snapshot has 100 (gates.min_rows_share 0.5)"] * is_refused


@pytest.mark.parametrize(("num_live", "is_refused"), [(2, False), (1, True)])
def test_exactly_the_least_share_of_dimensions_may_vary(num_live: int, is_refused: bool) -> None:
    stats = SnapshotStats(100, 100, 0, num_live)
    faults = refusals(stats, GATES, dim=8, expected_rows=100, rows_before=None)
    assert faults == ["only 1 of 8 dimensions vary (gates.min_live_dims_share 0.25)"] * is_refused


def test_more_rows_than_the_features_have_are_refused_too() -> None:
    faults = refusals(SnapshotStats(101, 101, 0, 8), GATES, dim=8, expected_rows=100, rows_before=100)
    assert faults == ["it has 101 rows, the features have 100"]


def test_only_finite_vectors_of_the_right_width_are_summed() -> None:
    inf, nan = float("inf"), float("nan")
    vectors = pa.array([[1, 2], [3, -4], [nan, 1], [1, inf], [1], [1, 2, 3], None, []], pa.list_(pa.float32()))
    days = pa.array([date(2024, 5, 1)] * 6 + [date(2024, 5, 2)] * 2)
    batch = pa.record_batch({"as_of": days, "embedding": vectors})
    int8 = VectorStorage.of("int8", [1.0, 2.0**-5])  # limits of 127 and 127 / 32
    storages = {date(2024, 5, 1): int8, date(2024, 5, 2): VectorStorage()}
    sums = {name: np.asarray(value).tolist() for name, value in _sums_by_date(batch, 2, storages).items()}
    first, second = (
        {name: sums.pop(f"{name} {day}") for name in ("broken", "finite", "sums", "squares", "at_limit")}
        for day in ("2024-05-01", "2024-05-02")
    )
    assert first == {"broken": 4, "finite": 2, "sums": [4, -2], "squares": [10, 20], "at_limit": 1}
    assert second == {"broken": 2, "finite": 0, "sums": [0, 0], "squares": [0, 0], "at_limit": 0}
    assert not sums
