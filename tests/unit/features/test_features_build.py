"""Builds of features, without Spark: what a commit replaces and the ledger records, and which of two builds counts."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import Row

from tests.support.builders import config_of
from userrep.config import Config
from userrep.errors import UserrepError
from userrep.features.build import Features
from userrep.features.ledger import feature_sets, features_table, log_hash
from userrep.features.profiles import Profiles
from userrep.features.sums.pooling import OutputRows
from userrep.features.sums.pooling_tasks import Writing, Written
from userrep.items.versions import Versions
from userrep.store.open import open_tables
from userrep.store.schemas import FEATURE_SETS
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileDay, tile_ledger

pytestmark = pytest.mark.fast

AS_OF = date(2024, 3, 20)
ANCHOR = date(2024, 3, 10)
VERSIONS = Versions("l1", ANCHOR, 7, frozenset({ANCHOR}))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(config: Config) -> Tables:
    return open_tables(config, None)


def begun(tables: Tables, config: Config, *dates: date) -> Features:
    """Begin a build of some dates."""
    return Features(tables, config, VERSIONS, dates, tile_ledger(tables), Profiles("", None)).begin()


def write(tables: Tables, features: Features, users: Mapping[date, list[tuple[str, bool]]]) -> list[Written]:
    """Write features as tasks do; all columns but the user and whether the sums are exact are null."""
    target = tables.target(features.table)
    made = [
        OutputRows("features", as_of, pa.RecordBatch.from_pylist(
            [{"user_id": user, "is_exact": is_exact} for user, is_exact in rows], target.schema))
        for as_of, rows in users.items()
    ]  # fmt: skip
    batches = Writing({"features": target}, {}, 1)(made)
    return [Written.of(Row(**row)) for batch in batches for row in batch.to_pylist()]


def test_a_commit_replaces_the_dates_of_the_job_and_counts_users_and_inexact_rows(
    tables: Tables, config: Config
) -> None:
    d1, d2, d3 = (AS_OF + timedelta(days=k) for k in range(3))
    first = begun(tables, config, d1, d2, d3)
    first.commit(tables, write(tables, first, {d1: [("a", True)], d2: [("a", True)], d3: [("a", True)]}))
    second = begun(tables, config, d2, d3)
    made = write(tables, second, {d2: [("b", True), ("c", False), ("d", False)]})
    assert second.commit(tables, made) == {d2: (3, 2), d3: (0, 0)}
    stored = tables.files(features_table(config, "l1"), lambda _: True)
    assert {file.values["as_of"]: file.num_rows for file in stored} == {d1: 1, d2: 3}


def test_the_ledger_records_what_features_were_built_from(config: Config, tables: Tables) -> None:
    days = {AS_OF - timedelta(days=k): TileDay("", f"c{k}", k, 1, 0) for k in range(1, 20)}
    ledger = replace(tile_ledger(tables), days=days)
    profiles = Profiles("of users and picks", None)
    features = Features(tables, config, VERSIONS, [AS_OF, ANCHOR], ledger, profiles).begin()
    assert feature_sets(tables, "l1") == {}
    assert features.record({AS_OF: (30, 2), ANCHOR: (5, 0)}) == 35
    (row,) = [row for row in tables.ledger(FEATURE_SETS) if row.as_of == AS_OF]
    assert (row.lineage_id, row.valid_from, row.num_users, row.num_inexact) == ("l1", date(2024, 3, 17), 30, 2)
    assert (row.log_hash, row.sides_hash) == (log_hash(ledger.latest, config, VERSIONS, AS_OF), "of users and picks")


def test_of_two_builds_of_a_date_the_ledger_names_the_one_whose_rows_are_there_or_none(
    tables: Tables, config: Config
) -> None:
    d1, d2 = AS_OF, AS_OF + timedelta(days=1)
    first = begun(tables, config, d1, d2)
    counts = first.commit(tables, write(tables, first, {d1: [("a", True)], d2: [("a", True)]}))
    second = begun(tables, config, d2)
    with pytest.raises(UserrepError, match="feature_sets: another run has changed the same rows meanwhile"):
        first.record(counts)
    assert feature_sets(tables, "l1") == {}
    second.record(second.commit(tables, write(tables, second, {d2: [("b", True), ("c", True)]})))
    assert {day: of.num_users for day, of in feature_sets(tables, "l1").items()} == {d2: 2}
    late, last = begun(tables, config, d2), begun(tables, config, d2)
    last.commit(tables, write(tables, last, {d2: [("d", True)]}))
    with pytest.raises(UserrepError, match="another run has changed the same rows meanwhile"):
        late.commit(tables, write(tables, late, {d2: [("e", True)]}))
    assert feature_sets(tables, "l1") == {}
