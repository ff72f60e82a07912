"""Users and onboarding picks: rows that lack something, several rows of a user, and the profile of each."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import at, config_of, write_rows
from userrep.config import Onboarding, Users
from userrep.errors import UsageError
from userrep.features.profiles import check_sources, profiles_of, read_picks, read_users

pytestmark = pytest.mark.default


def micros(text: str) -> int:
    return int(at(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


def test_a_profile_has_the_earliest_registration_the_largest_attributes_and_picks_by_time_once(
    spark: SparkSession, tmp_path: Path
) -> None:
    users = [
        {"id": "a", "since": "2024-05-02 10:00:00", "country": "de", "age": 20},
        {"id": "a", "since": "2024-05-01 10:00:00", "country": "se", "age": None},
        {"id": "b", "since": "no time", "country": None, "age": 30},
        {"id": "b", "since": "1970-01-01", "country": None, "age": None},  # a missing time
        {"id": None, "since": "2024-05-01 10:00:00", "country": "fr", "age": 40},
    ]
    picks = [
        {"id": "a", "item": "late", "when": "2024-05-03 12:00:00"},
        {"id": "a", "item": "early", "when": "2024-05-02 12:00:00"},
        {"id": "a", "item": "late", "when": "2024-05-03 12:00:00"},  # twice the same
        {"id": "a", "item": "no time", "when": "tomorrow"},
        {"id": "a", "item": "no day", "when": "12:30"},
        {"id": "a", "item": "in milliseconds", "when": "56334-01-01"},
        {"id": "c", "item": "only", "when": "2024-05-04 00:00:00"},
        {"id": "c", "item": None, "when": "2024-05-04 00:00:00"},
        {"id": None, "item": "nobody's", "when": "2024-05-04 00:00:00"},
    ]
    write_rows(tmp_path / "users.parquet", users)
    write_rows(tmp_path / "picks.parquet", picks)
    config = config_of(
        tmp_path,
        users={"path": str(tmp_path / "users.parquet"), "columns": {"user_id": "id", "registered_at": "since"},
               "attributes": ["country", "age"]},
        onboarding={"path": str(tmp_path / "picks.parquet"),
                    "columns": {"user_id": "id", "item_id": "item", "event_at": "when"}},
    )  # fmt: skip
    assert config.users is not None
    assert config.onboarding is not None
    profiles = profiles_of(read_users(spark, config.users), read_picks(spark, config.onboarding))
    columns = profiles.selectExpr("user_id", "unix_micros(registered_at)", "attributes", "pick_items", "picked_at")
    assert {row[0]: tuple(row)[1:] for row in columns.collect()} == {
        "a": (micros("2024-05-01 10:00:00"), ["se", None], ["early", "late"],
              [micros("2024-05-02 12:00:00"), micros("2024-05-03 12:00:00")]),
        "b": (None, [None, "30"], None, None),
        "c": (None, None, ["only"], [micros("2024-05-04 00:00:00")]),
    }  # fmt: skip


def test_numbers_are_no_times_of_users_and_picks(spark: SparkSession, tmp_path: Path) -> None:
    write_rows(tmp_path / "users.parquet", [{"id": "a", "item": "i", "when": 1714521600}])
    source: dict[str, Any] = {"path": str(tmp_path / "users.parquet")}
    users = Users.model_validate(source | {"columns": {"user_id": "id", "registered_at": "when"}})
    picks = Onboarding.model_validate(source | {"columns": {"user_id": "id", "item_id": "item", "event_at": "when"}})
    with pytest.raises(UsageError, match=r"users.columns.registered_at: column 'when' is bigint; expected a timestamp"):
        read_users(spark, users)
    with pytest.raises(UsageError, match=r"onboarding.columns.event_at: column 'when' is bigint; expected a timestamp"):
        read_picks(spark, picks)


def test_faults_of_all_sources_are_reported_together(spark: SparkSession, tmp_path: Path) -> None:
    rows = [{"user_id": "a", "item_id": "i", "event_at": datetime(2024, 5, 1)}]
    for name in ("events/e", "items", "users"):
        write_rows(tmp_path / f"{name}.parquet", rows)
    config = config_of(
        tmp_path,
        items={"path": str(tmp_path / "items.parquet"), "columns": {"item_id": "sku"}},
        users={"path": str(tmp_path / "users.parquet"), "columns": {"user_id": "user_id"}, "attributes": ["age"]},
        onboarding={"path": str(tmp_path / "none.parquet"),
                    "columns": {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}},
    )  # fmt: skip
    with pytest.raises(UsageError) as error:
        check_sources(spark, config)
    items, users, onboarding = error.value.faults
    assert items.startswith("items.columns.item_id: no column 'sku'")
    assert users.startswith("users.attributes[0]: no column 'age'")
    assert onboarding.startswith(f"onboarding.path {tmp_path}/none.parquet")
