"""Tables of user features, built by Spark: against a recomputation from the raw log, and when they are stale."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from pyspark.sql import SparkSession

from tests.support.builders import at, config_of, event, write_rows
from userrep.config import Config
from userrep.features.build import build_features, read_features
from userrep.features.ledger import feature_sets, stale_features
from userrep.features.profiles import profiles_fingerprint, refresh_profiles
from userrep.features.sums.pooling_tasks import Pooling
from userrep.items.version_training import train_versions
from userrep.items.versions import versions_of
from userrep.spark.spark_work import SparkWork
from userrep.store.open import open_tables
from userrep.store.tables import Tables
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory

pytestmark = pytest.mark.default

AS_OF = date(2024, 3, 10)


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, Config]:
    """A log of 20 users, 8 items and 40 days, one user in nearly half of all rows, with vectors given by the owner."""
    folder = tmp_path_factory.mktemp("shop")
    random = np.random.default_rng(1)
    rows = [
        event(
            "heavy" if random.random() < 0.4 else f"u{random.integers(20)}",
            f"i{random.integers(8)}",
            str(datetime(2024, 3, 1) + timedelta(minutes=int(random.integers(40 * 1440)))),
            score=float(random.integers(1, 900)) / 256,
        )
        for _ in range(1500)
    ]
    rows += [
        event("late", "i1", "2024-03-20 00:00:00", score=1.0),
        event("early", "i1", "2024-03-19 23:59:59", score=1.0),
    ]
    write_rows(folder / "events" / "part.parquet", rows)
    items = [{"item_id": f"i{k}", "vector": random.standard_normal(3).tolist() if k < 7 else None} for k in range(8)]
    write_rows(folder / "items.parquet", items)
    users = [
        {"user_id": "quiet", "since": at("2024-03-05"), "country": "se"},
        {"user_id": "u1", "since": None, "country": "de"},
    ]
    write_rows(folder / "users.parquet", users)
    config = config_of(
        folder,
        events={"columns": {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at", "weight": "score"}},
        items={"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "vector": "vector"}},
        users={
            "path": str(folder / "users.parquet"),
            "columns": {"user_id": "user_id", "registered_at": "since"},
            "attributes": ["country"],
        },
        item_vectors={"given": {"kind": "vector", "dim": 3}},
    )  # fmt: skip
    tables = open_tables(config, spark)
    inventory = take_inventory(tables, config.events)
    build_tiles(tables, config, inventory, before=inventory.last_day)
    versions = versions_of(tables, config, anchor=date(2024, 3, 20))
    train_versions(tables, config, versions, versions.missing([date(2024, 3, 20)]))
    build_features(tables, config, versions_of(tables, config, anchor=AS_OF), [date(2024, 3, 20)])
    return tables, config


def _rows(tables: Tables, config: Config) -> list[dict]:  # type: ignore[type-arg]
    versions = versions_of(tables, config, anchor=AS_OF)
    rows = read_features(tables, config, versions.lineage_id, [date(2024, 3, 20)]).orderBy("user_id").collect()
    return [row.asDict() for row in rows]


def stale_of_sides(tables: Tables, config: Config, day: date) -> dict[date, str]:
    """Compare the features of a date with the users' files as they are now too."""
    versions = versions_of(tables, config, anchor=AS_OF)
    return stale_features(
        tables, config, versions, [day], profile_hashes={day: profiles_fingerprint(tables.spark, config)}
    )


def test_an_event_on_the_as_of_day_is_not_seen_and_one_a_second_before_is(shop: tuple[Tables, Config]) -> None:
    users = {row["user_id"]: row for row in _rows(*shop)}
    assert "late" not in users
    assert users["early"]["num_events_2d"] == 1
    assert users["early"]["days_since_last_event"] == pytest.approx(1 / 86400)


def test_a_registered_user_without_events_has_a_row(shop: tuple[Tables, Config]) -> None:
    quiet = next(row for row in _rows(*shop) if row["user_id"] == "quiet")
    assert (quiet["days_since_registration"], quiet["attribute_country"]) == (15.0, "se")
    assert (quiet["has_given_7d"], quiet["given_7d"], quiet["days_since_last_event"]) == (False, [0.0, 0.0, 0.0], None)


def test_features_equal_a_recomputation_from_the_raw_log(shop: tuple[Tables, Config], spark: SparkSession) -> None:
    tables, config = shop
    log = (
        spark.read.parquet(config.events.path).where("event_at < '2024-03-20' AND event_at >= '2024-03-13'").toPandas()
    )
    log = log.drop_duplicates()
    vectors = {r.item_id: np.asarray(r.vector) for r in spark.read.parquet(config.items.path).collect() if r.vector}
    vectors = {item: np.rint(vector * 2**16) / 2**16 for item, vector in vectors.items()}
    for row in _rows(tables, config):
        mine = log[log.user_id == row["user_id"]]
        assert row["num_events_7d"] == len(mine)
        known = mine[mine.item_id.isin(vectors)]
        assert row["has_given_7d"] == (len(known) > 0)
        if len(known):
            mean = sum(w * vectors[i] for w, i in zip(known.score, known.item_id, strict=True)) / known.score.sum()
            assert_allclose(row["given_7d"], mean, rtol=1e-6, atol=1e-7, equal_nan=False)


def test_features_have_the_same_bits_at_1_and_7_partitions(
    shop: tuple[Tables, Config], shuffle_into: Callable[[int], None]
) -> None:
    tables, config = shop
    versions = versions_of(tables, config, anchor=AS_OF)
    found = []
    for partitions in (1, 7):
        shuffle_into(partitions)
        build_features(tables, config, versions, [date(2024, 3, 20)])
        found.append(_rows(tables, config))
    assert found[0] == found[1]


def test_pooling_shuffles_lists_of_files_and_no_rows_of_users(shop: tuple[Tables, Config]) -> None:
    tables, config = shop
    versions, profiles = versions_of(tables, config, anchor=AS_OF), refresh_profiles(tables, config)
    work = SparkWork(tables.spark)
    num_users = build_features(tables, config, versions, [date(2024, 3, 20)], profiles=profiles)
    assert work.found()["shuffle_rows"] <= 2 < num_users


def test_features_are_stale_when_the_log_or_the_users_change(shop: tuple[Tables, Config]) -> None:
    tables, config = shop
    versions, day = versions_of(tables, config, anchor=AS_OF), date(2024, 3, 20)
    assert stale_of_sides(tables, config, day) == {}
    assert config.users is not None
    write_rows(Path(config.users.path), [{"user_id": "quiet", "since": at("2024-03-05"), "country": "no"}])
    assert stale_features(tables, config, versions, [day], profile_hashes={}) == {}
    assert stale_of_sides(tables, config, day) == {day: "users or picks changed"}
    assert stale_features(tables, config, versions, [date(2024, 3, 21)], profile_hashes={}) == {
        date(2024, 3, 21): "not built yet"
    }


def test_all_builds_of_a_run_see_the_users_as_they_were_when_it_began(shop: tuple[Tables, Config]) -> None:
    tables, config = shop
    versions, day = versions_of(tables, config, anchor=AS_OF), date(2024, 3, 20)
    assert config.users is not None
    write_rows(Path(config.users.path), [{"user_id": "quiet", "since": at("2024-03-05"), "country": "dk"}])
    profiles = refresh_profiles(tables, config)
    write_rows(Path(config.users.path), [{"user_id": "quiet", "since": at("2024-03-05"), "country": "is"}])
    refresh_profiles(tables, config)  # another run
    build_features(tables, config, versions, [day], profiles=profiles)
    assert [row["attribute_country"] for row in _rows(tables, config) if row["user_id"] == "quiet"] == ["dk"]
    assert stale_of_sides(tables, config, day) == {day: "users or picks changed"}


def test_users_that_change_during_a_build_are_not_recorded_as_included(
    shop: tuple[Tables, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, config = shop
    versions, day = versions_of(tables, config, anchor=AS_OF), date(2024, 3, 20)
    assert config.users is not None
    written, users = Pooling.write, Path(config.users.path)

    def then_users_change(pooling: Pooling, targets: Any) -> Any:
        files = written(pooling, targets)
        write_rows(users, [{"user_id": "quiet", "since": at("2024-03-05"), "country": "fi"}])
        return files

    monkeypatch.setattr(Pooling, "write", then_users_change)
    build_features(tables, config, versions, [day])
    monkeypatch.undo()
    assert stale_of_sides(tables, config, day) == {day: "users or picks changed"}
    build_features(tables, config, versions, [day])
    assert stale_of_sides(tables, config, day) == {}
    assert [row["attribute_country"] for row in _rows(tables, config) if row["user_id"] == "quiet"] == ["fi"]


def test_the_ledger_counts_what_was_built(shop: tuple[Tables, Config]) -> None:
    tables, config = shop
    built = feature_sets(tables, versions_of(tables, config, anchor=AS_OF).lineage_id)[date(2024, 3, 20)]
    assert (built.num_users, built.num_inexact) == (len(_rows(tables, config)), 0)
