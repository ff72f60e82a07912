"""Spaces and snapshots in tables: states, and the aggregates that gates look at."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from userrep.errors import UsageError
from userrep.spaces.gates import SnapshotStats, snapshot_stats
from userrep.spaces.registry import add_candidate, find_space, list_spaces, mark_ready, promote, retire, rollback
from userrep.store.file_tables import FileTables
from userrep.store.schemas import REGISTRY
from userrep.store.tables import Tables
from userrep.store.vector_storage import VectorStorage

pytestmark = pytest.mark.default


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    return FileTables(spark, str(tmp_path))


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
    with pytest.raises(UsageError, match=r"s001-a is serving\. Promote another space first"):
        retire(tables, find_space(tables, "s001-a"))
    retire(tables, find_space(tables, "s002-b"))
    assert _states(tables) == {"s001-a": "serving", "s002-b": "retired"}


def test_an_unknown_space_is_named_with_those_there_are(tables: Tables) -> None:
    _add(tables, "s001-a")
    with pytest.raises(UsageError, match=r"space s009: not in the registry\. Known spaces: s001-a"):
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
    stats = snapshot_stats(rows, dim=3, storages=dict.fromkeys((day, other), VectorStorage()))
    assert stats[day] == SnapshotStats(num_rows=20, num_users=20, num_broken=0, num_live_dims=2)
    assert stats[other] == SnapshotStats(num_rows=4, num_users=3, num_broken=3, num_live_dims=0)
