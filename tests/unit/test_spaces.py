"""Spaces and snapshots: states, gates, and joins that see what was known at a label's time."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from userrep import config
from userrep.downstream.return_propensity import label_dates
from userrep.errors import UsageError
from userrep.schemas import REGISTRY
from userrep.spaces.gates import SnapshotStats, refusals, snapshot_stats
from userrep.spaces.registry import add_candidate, find_space, list_spaces, mark_ready, promote, retire, rollback
from userrep.tables import Tables

pytestmark = pytest.mark.default


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    return Tables(spark, root=str(tmp_path))


def _add(tables: Tables, *ids: str) -> None:
    for space_id in ids:
        add_candidate(
            tables,
            space_id=space_id,
            lineage_id="l1",
            trained_until=date(2024, 5, 1),
            content_hash=f"hash of {space_id}",
        )


def _states(tables: Tables) -> dict[str, str]:
    return {space.space_id: space.state for space in list_spaces(tables)}


def test_a_space_goes_from_candidate_to_ready_to_serving_and_back(tables: Tables) -> None:
    with pytest.raises(UsageError, match="no space is serving"):
        find_space(tables, None)
    _add(tables, "s001-a", "s001-a", "s002-b")
    assert _states(tables) == {"s001-a": "candidate", "s002-b": "candidate"}
    with pytest.raises(UsageError, match="s001-a is candidate; only a ready space can serve"):
        promote(tables, find_space(tables, "s001-a"))
    with pytest.raises(UsageError, match="no other space has served"):
        rollback(tables)
    for space_id in ("s001-a", "s002-b"):
        mark_ready(tables, find_space(tables, space_id))
        promote(tables, find_space(tables, space_id))
    assert _states(tables) == {"s001-a": "ready", "s002-b": "serving"}
    assert rollback(tables).space_id == "s001-a"
    assert find_space(tables, None).space_id == "s001-a"
    with pytest.raises(UsageError, match="s001-a is serving; promote another one first"):
        retire(tables, find_space(tables, "s001-a"))
    retire(tables, find_space(tables, "s002-b"))
    assert _states(tables) == {"s001-a": "serving", "s002-b": "retired"}


def test_an_unknown_space_is_named_with_those_there_are(tables: Tables) -> None:
    _add(tables, "s001-a")
    with pytest.raises(UsageError, match="space s009: not in the registry; spaces there are: s001-a"):
        find_space(tables, "s009")
    with pytest.raises(UsageError, match="not a valid name"):
        find_space(tables, "../s001-a")


def test_promoting_what_serves_changes_nothing(tables: Tables) -> None:
    _add(tables, "s001-a")
    mark_ready(tables, find_space(tables, "s001-a"))
    promote(tables, find_space(tables, "s001-a"))
    before = tables.version(REGISTRY)
    promote(tables, find_space(tables, "s001-a"))
    assert tables.version(REGISTRY) == before


def test_stats_see_broken_vectors_repeated_users_and_dead_dimensions(spark: SparkSession) -> None:
    day, other = date(2024, 5, 1), date(2024, 5, 2)
    rng = np.random.default_rng(0)
    good = [(day, f"u{k}", [float(x) for x in rng.standard_normal(2)] + [0.5]) for k in range(20)]
    bad = [
        (other, "a", [1.0, float("nan"), 0.5]),
        (other, "a", [1.0, 2.0]),
        (other, "b", None),
        (other, "c", [1.0, 2.0, 3.0]),
    ]
    rows = spark.createDataFrame(good + bad, "as_of DATE, user_id STRING, embedding ARRAY<FLOAT>").repartition(3)
    stats = snapshot_stats(rows, dim=3)
    assert stats[day] == SnapshotStats(num_rows=20, num_users=20, num_broken=0, num_live_dims=2)
    assert stats[other] == SnapshotStats(num_rows=4, num_users=3, num_broken=3, num_live_dims=0)


@pytest.mark.parametrize(
    ("stats", "fault"),
    [
        (SnapshotStats(0, 0, 0, 0), "it has no rows"),
        (SnapshotStats(90, 90, 0, 4), "it has 90 rows, the features have 100"),
        (SnapshotStats(100, 99, 0, 4), "1 rows repeat a user"),
        (SnapshotStats(100, 100, 2, 4), "2 vectors are not 4 finite numbers"),
        (SnapshotStats(100, 100, 0, 1), "only 1 of 4 dimensions vary"),
        (SnapshotStats(40, 40, 0, 4), "it has 40 rows, the one before has 100"),
    ],
)
def test_each_gate_refuses_for_its_reason(stats: SnapshotStats, fault: str) -> None:
    expected = 40 if stats.num_rows == 40 else 100
    faults = refusals(stats, config.Gates(), dim=4, expected_rows=expected, rows_before=100)
    assert any(fault in found for found in faults)


def test_a_sound_snapshot_passes_all_gates() -> None:
    sound = SnapshotStats(100, 100, 0, 4)
    assert refusals(sound, config.Gates(), dim=4, expected_rows=100, rows_before=None) == []


def test_training_labels_end_before_the_first_test_label() -> None:
    until = date(2024, 5, 1)
    dates = label_dates(as_of=date(2024, 6, 1), until=until, first=date(2024, 1, 1), horizon_days=7, num_dates=3)
    assert len(dates.train) == len(dates.test) == 3
    assert min(dates.test) >= until
    assert max(dates.train) + timedelta(days=7) <= min(dates.test)
    assert max(dates.test) + timedelta(days=7) <= date(2024, 6, 1)


def test_there_are_no_label_dates_where_the_log_has_no_room_for_them() -> None:
    close = label_dates(
        as_of=date(2024, 5, 5), until=date(2024, 5, 1), first=date(2024, 1, 1), horizon_days=7, num_dates=3
    )
    young = label_dates(
        as_of=date(2024, 5, 20), until=date(2024, 5, 1), first=date(2024, 5, 1), horizon_days=7, num_dates=3
    )
    assert (close.all, young.all) == ([], [])
