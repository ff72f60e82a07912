"""Versions of item vectors: the grid of dates, what makes another lineage, and which versions the ledger has."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from userrep.errors import UsageError
from userrep.items.versions import (
    VersionRecord,
    Versions,
    items_without_vector,
    lineage_of,
    version_records,
    versions_of,
)
from userrep.store.file_tables import FileTables
from userrep.store.open import open_tables
from userrep.store.schemas import ITEM_VECTOR_VERSIONS
from userrep.store.sql import sql_key
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

V0, V1, V2 = date(2024, 5, 1), date(2024, 5, 8), date(2024, 5, 15)


# The grid


@pytest.mark.parametrize(("day", "version"), [(1, 1), (7, 1), (8, 8), (14, 8)])
def test_the_newest_date_of_the_grid_applies(day: int, version: int) -> None:
    for anchor in (date(2024, 5, 1), date(2024, 5, 15), date(2024, 4, 24)):
        versions = Versions("l1", anchor, refit_days=7, present=frozenset())
        assert versions.valid_at(date(2024, 5, day)) == date(2024, 5, version)


def test_the_version_at_a_date_is_the_newest_on_the_grid_at_or_before_it() -> None:
    versions = Versions("l1", anchor=V1, refit_days=7, present=frozenset({V1}))
    assert versions.valid_at(V1) == versions.valid_at(date(2024, 5, 14)) == V1
    assert versions.valid_at(V2) == V2
    assert versions.valid_at(date(2024, 5, 7)) == versions.valid_at(V0) == V0
    assert versions.valid_at(date(2024, 4, 30)) == date(2024, 4, 24)


def test_missing_are_the_versions_that_the_dates_need_and_that_were_not_made() -> None:
    versions = Versions("l1", anchor=V1, refit_days=7, present=frozenset({V1}))
    assert versions.missing([date(2024, 5, 20), date(2024, 5, 9), V2, date(2024, 5, 2)]) == [V0, V2]


def test_a_missing_version_is_named_with_the_command_that_builds_it() -> None:
    versions = Versions("l1", anchor=V1, refit_days=7, present=frozenset({V1}))
    versions.check_built([V1, date(2024, 5, 9)])
    with pytest.raises(UsageError, match=r"valid from 2024-05-01, 2024-05-15 are not built.*run train_item_vectors"):
        versions.check_built([V0, V1, V2])


# The lineage


def test_a_history_makes_another_lineage_than_the_same_windows_without_one(tmp_path: Path) -> None:
    def lineage(windows: list[int], **history: int | None) -> str:
        return lineage_of(config_of(tmp_path, windows_days=windows, **history))

    assert lineage([2, 7]) == lineage([2, 7], history_days=None) == lineage([2, 7], history_days=14)
    others = [lineage([2, 7], history_days=days) for days in (0, 8)] + [lineage([2, 7, 14], history_days=0)]
    assert len({lineage([2, 7]), *others}) == 4


def test_a_lineage_is_named_by_what_columns_mean_and_not_by_where_tables_lie(tmp_path: Path) -> None:
    def lineage(path: str = "users", attributes: tuple[str, ...] = ("country",), **als: int) -> str:
        users = {"path": path, "columns": {"user_id": "user_id"}, "attributes": list(attributes)}
        vectors = {"behaviour": {"kind": "als", "dim": 4, **als}}
        return lineage_of(config_of(tmp_path, users=users, item_vectors=vectors))

    assert lineage() == lineage(path="another place") == lineage(max_tiles=1000)
    assert len({lineage(), lineage(attributes=("age",)), lineage(dim=5), lineage(refit_days=3)}) == 4


# The ledger


def add_version(tables: Tables, version: date, hour: int = 0, **more: Any) -> None:
    row = {"lineage_id": "l1", "valid_from": version, "num_items": 5, "num_vectors": {"behaviour": 5}, "largest": 1.0}
    row |= {"built_at": datetime(2024, 6, 1, hour)} | more
    mine = sql_key({"lineage_id": str(row["lineage_id"]), "valid_from": version})
    tables.add(ITEM_VECTOR_VERSIONS, [row], replacing=mine)


def test_the_first_version_of_a_lineage_anchors_its_grid(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    tables, lineage_id = open_tables(config, None), lineage_of(config)
    add_version(tables, V0, lineage_id="another")
    assert versions_of(tables, config, anchor=V2) == Versions(lineage_id, V2, 7, frozenset())
    for version in (V2, V1):
        add_version(tables, version, lineage_id=lineage_id)
    assert versions_of(tables, config, anchor=date(2030, 1, 1)) == Versions(lineage_id, V1, 7, frozenset({V1, V2}))


def test_a_version_that_is_built_again_has_the_row_of_its_last_build_whatever_its_clock(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    add_version(tables, V1, 9)
    add_version(tables, V1, 8, num_items=10, num_vectors={"behaviour": 8, "content": 10}, largest=2.0)
    add_version(tables, V2, lineage_id="another")
    assert version_records(tables, "l1") == {V1: VersionRecord(10, {"behaviour": 8, "content": 10}, 2.0)}
    assert items_without_vector(tables, "l1", V1) == {"behaviour": 2, "content": 0}
    assert items_without_vector(tables, "l1", V2) == {}
