"""The ledger of features: which build of a date counts, and what makes features stale."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from userrep.config import Config
from userrep.features.ledger import FeatureSet, feature_sets, log_hash, sample_of, stale_features
from userrep.items.versions import Versions
from userrep.store.buckets import NUM_BUCKETS
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


def test_features_of_a_sample_are_only_those_of_a_training(tables: Tables) -> None:
    add_set(tables, AS_OF, 1, num_users=8)
    add_set(tables, ANCHOR, 1, num_users=2, num_buckets=NUM_BUCKETS // 4)
    assert set(feature_sets(tables, "l1")) == {AS_OF}
    sets = feature_sets(tables, "l1", sampled=True)
    assert {day: of.num_buckets for day, of in sets.items()} == {AS_OF: NUM_BUCKETS, ANCHOR: NUM_BUCKETS // 4}
    assert sample_of(sets.values(), max_rows=4) == NUM_BUCKETS // 4  # of about 16 rows
    assert sample_of(sets.values(), max_rows=16) == NUM_BUCKETS
    assert sample_of([], max_rows=1) == NUM_BUCKETS


def test_features_of_a_sample_are_stale_for_a_larger_one(tables: Tables, config: Config) -> None:
    half = NUM_BUCKETS // 2
    add_set(tables, AS_OF, 1, log_hash=log_hash({}, config, VERSIONS, AS_OF), num_buckets=half)

    def stale(**more: int) -> dict[date, str]:
        return stale_features(tables, config, VERSIONS, [AS_OF], profile_hashes={}, **more)

    assert stale() == stale(num_buckets=half + 1) == {AS_OF: "built for a sample of the users"}
    assert stale(num_buckets=half) == stale(num_buckets=half // 2) == {}


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
