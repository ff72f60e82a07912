"""Slices of labels by the active days and attributes of their users, as known before each label."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from userrep.evaluation.label_slices import label_slices
from userrep.store.file_tables import FileTables
from userrep.store.schemas import SUM_GENERATIONS, USER_PROFILES, USER_WINDOW_SUMS
from userrep.store.xxhash import bucket_of
from userrep.utc import day_number

pytestmark = pytest.mark.fast

AS_OF = date(2024, 5, 1)


def activity(user: str, *days_ago: int, generation: int = 2) -> dict[str, Any]:
    """Return a user's row of window sums, with events at noon of days before AS_OF."""
    noon = int(datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp())
    return {
        "lineage_id": "l1", "generation": generation, "user_slice": "0-of-1", "user_id": user,
        "user_bucket": int(bucket_of(pa.array([user]))[0]),
        "active_at": sorted((noon - days * 86_400) * 1_000_000 for days in days_ago),
    }  # fmt: skip


@pytest.fixture
def tables(tmp_path: Path) -> FileTables:
    tables = FileTables(None, str(tmp_path))
    for generation in (1, 2):
        tables.add(
            SUM_GENERATIONS,
            [
                {
                    "lineage_id": "l1",
                    "generation": generation,
                    "as_of": AS_OF,
                    "num_users": 1,
                    "revision_by_day": {AS_OF - timedelta(days=300): 1, AS_OF: 1},
                }
            ],
        )
    rows = [
        activity("few", 200, 100, 50), activity("four", 200, 100, 50, 40), activity("short", 28, 20, 10, 5, 4, 3),
        activity("heavy", *range(1, 100)), activity("later", 200, 100, 50, -1, -2),
        activity("gone", *range(1, 300), generation=1),
    ]  # fmt: skip
    tables.add(USER_WINDOW_SUMS, rows)
    profile = {"content_hash": "x", "user_slice": "0-of-1"}
    countries = {"few": "FR", "four": "DE", "short": "FR", "heavy": None, "later": "a\nb"}
    tables.add(
        USER_PROFILES,
        [
            profile | {"user_id": user, "user_bucket": int(bucket_of(pa.array([user]))[0]), "attributes": values}
            for user, values in [
                *((user, [value, "x"]) for user, value in countries.items()),
                ("never", None),
            ]  # only picks
        ],
    )
    return tables


USERS = ["few", "four", "short", "heavy", "later", "gone", "heavy", "never"]


def slices(
    tables: FileTables, lineage_id: str = "l1", attributes: tuple[str, ...] = (), days_ago: tuple[int, ...] = (0,)
) -> dict[str, list[str]]:
    as_of_M = day_number(AS_OF) - np.resize(days_ago, len(USERS))
    found = label_slices(tables, lineage_id, attributes, users=pa.array(USERS), as_of_M=as_of_M)
    return {name: [user for user, is_in in zip(USERS, mask_M, strict=True) if is_in] for name, mask_M in found.items()}


def test_users_are_new_by_days_or_age_and_heavy_by_days_before_the_label(tables: FileTables) -> None:
    assert slices(tables) == {
        "new_users": ["few", "short", "later", "gone", "never"],
        "heavy_users": ["heavy", "heavy"],
    }


def test_each_frequent_value_of_an_attribute_is_a_slice(tables: FileTables) -> None:
    found = slices(tables, attributes=("country", "other"))
    assert {name: users for name, users in found.items() if "=" in name} == {
        "country=FR": ["few", "short"],
        "country=DE": ["four"],
        "country='a\\nb'": ["later"],
        "other=x": ["few", "four", "short", "heavy", "later", "heavy"],
    }


def test_profiles_with_other_attributes_give_no_slices(tables: FileTables) -> None:
    found = slices(tables, attributes=("country", "other", "new"))
    assert found.keys() == {"new_users", "heavy_users"}


def test_without_sums_or_profiles_there_are_no_slices(tables: FileTables, tmp_path: Path) -> None:
    assert slices(tables, lineage_id="l2") == {}
    assert slices(FileTables(None, str(tmp_path / "empty")), attributes=("country",)) == {}


def test_labels_that_the_window_sums_hardly_precede_are_neither_new_nor_heavy(
    tables: FileTables, lines: list[str]
) -> None:
    assert slices(tables, days_ago=(272, 272, 0, 0, 272, 272, 272, 272)) == {
        "new_users": ["short"], "heavy_users": ["heavy"],
    }  # fmt: skip
    assert lines == []
    assert slices(tables, days_ago=(272,)) == {}
    assert lines == ["no slices of new and heavy users: the newest window sums begin on 2023-07-06"]
