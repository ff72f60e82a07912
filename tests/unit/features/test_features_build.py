"""The ledger of features, without Spark: which build counts, what makes features stale, what a commit replaces."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import Row

from tests.support.builders import config_of
from userrep.config import Config
from userrep.errors import UserrepError
from userrep.features.build import Features, FeatureSet, feature_sets, features_table, log_hash, stale_features
from userrep.features.sums.pooling import OutputRows
from userrep.features.sums.pooling_tasks import Writing, Written
from userrep.items.versions import Versions
from userrep.store.open import open_tables
from userrep.store.schemas import FEATURE_SETS, TILE_DAYS
from userrep.store.sql import sql_key
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

AS_OF = date(2024, 3, 20)
ANCHOR = date(2024, 3, 10)
SPAN = 14  # days of the history of the configuration below; its windows are 2 and 7 days long
VERSIONS = Versions("l1", ANCHOR, 7, frozenset({ANCHOR}))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(config: Config) -> Tables:
    return open_tables(config, None)


def add_set(tables: Tables, as_of: date, hour: int, **more: Any) -> None:
    """Record a build."""
    row = {"lineage_id": "l1", "as_of": as_of, "valid_from": ANCHOR, "log_hash": "h", "sides_hash": "s"}
    row |= {"num_users": 1, "num_inexact": 0, "built_at": datetime(2024, 4, 1, hour), **more}
    tables.add(FEATURE_SETS, [row], replacing=sql_key({"lineage_id": row["lineage_id"], "as_of": as_of}))


def days_of_tiles(tables: Tables, contents: Mapping[date, str], revision: int = 1) -> None:
    """Record days of tiles by their contents."""
    tables.add(TILE_DAYS, [
        {"event_date": day, "revision": revision, "fingerprint": "f", "content": content, "num_events": 1,
         "num_tiles": 1, "num_rejected": 0, "num_tiles_by_cell": None, "built_at": datetime(2024, 4, 1)}
        for day, content in contents.items()
    ])  # fmt: skip


def test_the_last_build_of_a_date_is_the_newest_whatever_its_clock(tables: Tables) -> None:
    add_set(tables, AS_OF, 9, num_users=10, log_hash="old, by a clock that is ahead")
    add_set(tables, AS_OF, 8, num_users=3, log_hash="new")
    add_set(tables, AS_OF, 8, lineage_id="l2")
    add_set(tables, ANCHOR, 1, num_users=5, num_inexact=2)
    assert feature_sets(tables, "l1") == {
        AS_OF: FeatureSet(AS_OF, "new", "s", 3, 0),
        ANCHOR: FeatureSet(ANCHOR, "h", "s", 5, 2),
    }


def test_the_name_of_a_build_changes_with_its_log_and_with_its_users() -> None:
    build = FeatureSet(AS_OF, "log", "users", 10, 0)
    assert build.hash == FeatureSet(ANCHOR, "log", "users", 11, 1).hash
    assert len({build.hash, FeatureSet(AS_OF, "log2", "users", 10, 0).hash,
                FeatureSet(AS_OF, "log", "users2", 10, 0).hash}) == 3  # fmt: skip


@pytest.mark.parametrize(("age", "counts"), [(0, False), (1, True), (7, True), (SPAN, True), (SPAN + 1, False)])
def test_features_depend_on_the_contents_of_the_days_of_all_windows(config: Config, age: int, counts: bool) -> None:
    days = {AS_OF - timedelta(days=k): (f"content {k}", 1) for k in range(-1, 40)}
    before, day = log_hash(days, config, VERSIONS, AS_OF), AS_OF - timedelta(days=age)
    assert (log_hash(days | {day: ("other", 1)}, config, VERSIONS, AS_OF) != before) == counts
    assert (log_hash({k: v for k, v in days.items() if k != day}, config, VERSIONS, AS_OF) != before) == counts
    assert (
        log_hash(days | {day: (days[day][0], 9)}, config, VERSIONS, AS_OF) == before
    )  # a revision with the same content


def test_features_depend_on_the_version_of_the_item_vectors(config: Config) -> None:
    days = {AS_OF - timedelta(days=k): ("c", 1) for k in range(20)}
    other = Versions("l1", ANCHOR + timedelta(days=1), 7, frozenset())
    assert log_hash(days, config, other, AS_OF) != log_hash(days, config, VERSIONS, AS_OF)


def test_features_are_stale_if_they_were_never_built_or_a_day_of_their_windows_has_changed(
    tables: Tables, config: Config
) -> None:
    contents = {AS_OF - timedelta(days=k): f"content {k}" for k in range(1, 30)}
    days_of_tiles(tables, contents)
    later = AS_OF + timedelta(days=7)
    for as_of in (AS_OF, later):
        days = {day: (content, 1) for day, content in contents.items()}
        add_set(tables, as_of, 1, log_hash=log_hash(days, config, VERSIONS, as_of))
    assert stale_features(tables, config, VERSIONS, [AS_OF, later], profile_hashes={}) == {}
    days_of_tiles(
        tables, {AS_OF - timedelta(days=SPAN): "late events"}, revision=2
    )  # not in the windows of the later date
    unknown = AS_OF + timedelta(days=1)
    assert stale_features(tables, config, VERSIONS, [AS_OF, later, unknown], profile_hashes={}) == {
        AS_OF: "days of the log or item vectors changed", unknown: "not built yet",
    }  # fmt: skip


def begun(tables: Tables, config: Config, *dates: date) -> tuple[Features, int]:
    """Begin a build of some dates. Return it with the version of the table."""
    features = Features(tables, config, VERSIONS, dates, {}, "")
    return features, features.begin()


def write(tables: Tables, features: Features, users: Mapping[date, list[tuple[str, bool]]]) -> list[Written]:
    """Write features as tasks do; all columns but the user and whether the sums are exact are null."""
    target = tables.target(features.table)
    made = [
        OutputRows("features", as_of, pa.RecordBatch.from_pylist(
            [{"user_id": user, "is_exact": is_exact} for user, is_exact in rows], target.schema))
        for as_of, rows in users.items()
    ]  # fmt: skip
    batches = Writing(features.destination(tables), 1)(made)
    return [Written.of(Row(**row)) for batch in batches for row in batch.to_pylist()]


def test_a_commit_replaces_the_dates_of_the_job_and_counts_users_and_inexact_rows(
    tables: Tables, config: Config
) -> None:
    d1, d2, d3 = (AS_OF + timedelta(days=k) for k in range(3))
    first, since = begun(tables, config, d1, d2, d3)
    first.commit(tables, write(tables, first, {d1: [("a", True)], d2: [("a", True)], d3: [("a", True)]}), since=since)
    second, since = begun(tables, config, d2, d3)
    made = write(tables, second, {d2: [("b", True), ("c", False), ("d", False)]})
    assert second.commit(tables, made, since=since) == {d2: (3, 2), d3: (0, 0)}
    stored = tables.files(features_table(config, "l1"), lambda _: True)
    assert {file.values["as_of"]: file.num_rows for file in stored} == {d1: 1, d2: 3}


def test_the_ledger_records_what_features_were_built_from(config: Config, tables: Tables) -> None:
    latest = {AS_OF - timedelta(days=k): (f"c{k}", k) for k in range(1, 20)}
    features = Features(tables, config, VERSIONS, [AS_OF, ANCHOR], latest, "of users and picks")
    features.begin()
    assert feature_sets(tables, "l1") == {}
    assert features.record({AS_OF: (30, 2), ANCHOR: (5, 0)}) == 35
    (row,) = [row for row in tables.ledger(FEATURE_SETS) if row.as_of == AS_OF]
    assert (row.lineage_id, row.valid_from, row.num_users, row.num_inexact) == ("l1", date(2024, 3, 17), 30, 2)
    assert (row.log_hash, row.sides_hash) == (log_hash(latest, config, VERSIONS, AS_OF), "of users and picks")


def test_of_two_builds_of_a_date_the_ledger_names_the_one_whose_rows_are_there_or_none(
    tables: Tables, config: Config
) -> None:
    d1, d2 = AS_OF, AS_OF + timedelta(days=1)
    first, since = begun(tables, config, d1, d2)
    counts = first.commit(tables, write(tables, first, {d1: [("a", True)], d2: [("a", True)]}), since=since)
    second, since = begun(tables, config, d2)
    with pytest.raises(UserrepError, match="feature_sets: another run has changed the same rows meanwhile"):
        first.record(counts)
    assert feature_sets(tables, "l1") == {}
    second.record(second.commit(tables, write(tables, second, {d2: [("b", True), ("c", True)]}), since=since))
    assert {day: of.num_users for day, of in feature_sets(tables, "l1").items()} == {d2: 2}
    late, late_since = begun(tables, config, d2)
    last, last_since = begun(tables, config, d2)
    last.commit(tables, write(tables, last, {d2: [("d", True)]}), since=last_since)
    with pytest.raises(UserrepError, match="another run has changed the same rows meanwhile"):
        late.commit(tables, write(tables, late, {d2: [("e", True)]}), since=late_since)
    assert feature_sets(tables, "l1") == {}
