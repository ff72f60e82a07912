"""What ledgers say of the users that an erasure has left."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from userrep.erasure.ledgers import moved_pins, recount
from userrep.store.file_tables import FileTables
from userrep.store.schemas import FEATURE_SETS, OPENINGS, USER_OPENINGS, user_features

pytestmark = pytest.mark.fast

BASE = {"lineage_id": "l1", "as_of": date(2024, 5, 1)}


def write_base(tables: FileTables, user_id: str) -> None:
    row = BASE | {"user_slice": "0-of-1", "user_bucket": 1, "user_id": user_id, "sums": b""}
    tables.add(USER_OPENINGS, [row], replacing="true")


def record_base(tables: FileTables, **more: object) -> None:
    row = BASE | {"table_version": tables.version(USER_OPENINGS), "built_at": datetime(2024, 5, 2)}
    tables.add(OPENINGS, [row | more], replacing="true")


@pytest.fixture
def tables(tmp_path: Path) -> FileTables:
    """Tables with a stream base."""
    tables = FileTables(None, str(tmp_path))
    write_base(tables, "a")
    record_base(tables, num_users=1)
    return tables


def test_a_stream_base_is_pinned_to_the_version_without_the_users_that_were_erased(tables: FileTables) -> None:
    with moved_pins(tables):
        write_base(tables, "without the erased users")
    assert [(row.table_version, row.num_users) for row in tables.ledger(OPENINGS)] == [(2, 1)]


def test_a_stream_base_that_another_run_records_meanwhile_stays_only_if_no_user_is_erased_from_it(
    tables: FileTables,
) -> None:
    with moved_pins(tables):
        write_base(tables, "of another run")
        record_base(tables, num_users=9)
    assert [(row.table_version, row.num_users) for row in tables.ledger(OPENINGS)] == [(2, 9)]
    with moved_pins(tables):
        write_base(tables, "of another run")
        record_base(tables, num_users=8)
        write_base(tables, "without the erased users")
    assert tables.ledger(OPENINGS) == []


def test_a_date_of_features_without_rows_has_no_users_and_one_that_is_being_built_keeps_its_row(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path / "features"))
    tables.create(user_features("l1", "num_events_7d BIGINT"))
    emptied = {"lineage_id": "l1", "as_of": date(2024, 5, 1), "num_users": 3, "num_inexact": 0, "log_hash": "a",
               "sides_hash": "b", "valid_from": date(2024, 5, 1), "built_at": datetime(2024, 5, 2)}  # fmt: skip
    tables.add(FEATURE_SETS, [emptied, {"lineage_id": "l1", "as_of": date(2024, 5, 2), "begun_by": "x"}])
    recount(tables)
    counts = {row.as_of.day: row.num_users for row in tables.ledger(FEATURE_SETS)}
    assert counts == {1: 0, 2: None}


def test_users_that_another_run_adds_before_the_ledger_is_changed_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, table = FileTables(None, str(tmp_path / "features")), user_features("l1", "num_events_7d BIGINT")
    tables.create(table)
    row = {"lineage_id": "l1", "as_of": date(2024, 5, 1), "num_users": 3, "num_inexact": 0, "log_hash": "a",
           "sides_hash": "b", "valid_from": date(2024, 5, 1), "built_at": datetime(2024, 5, 2)}  # fmt: skip
    change = FileTables.change

    def late(self: FileTables, *args: Any, **more: Any) -> bool:
        tables.add(table, [{"as_of": date(2024, 5, 1), "user_bucket": 1, "user_id": "u", "num_events_7d": 1}])
        tables.add(FEATURE_SETS, [row])
        monkeypatch.setattr(FileTables, "change", change)
        return change(self, *args, **more)

    tables.create(FEATURE_SETS)
    monkeypatch.setattr(FileTables, "change", late)
    recount(tables)
    assert [found.num_users for found in tables.ledger(FEATURE_SETS)] == [1]
