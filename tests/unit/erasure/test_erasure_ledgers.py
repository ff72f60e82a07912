"""What ledgers say of the users that an erasure has left."""

from datetime import date, datetime
from pathlib import Path

import pytest

from userrep.erasure.ledgers import recount
from userrep.store.file_tables import FileTables
from userrep.store.schemas import FEATURE_SETS, user_features

pytestmark = pytest.mark.fast


def test_a_date_of_features_without_rows_has_no_users_and_one_that_is_being_built_keeps_its_row(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    tables.create(user_features("l1", "num_events_7d BIGINT"))
    emptied = {"lineage_id": "l1", "as_of": date(2024, 5, 1), "num_users": 3, "num_inexact": 0, "log_hash": "a",
               "sides_hash": "b", "valid_from": date(2024, 5, 1), "built_at": datetime(2024, 5, 2)}  # fmt: skip
    tables.add(FEATURE_SETS, [emptied, {"lineage_id": "l1", "as_of": date(2024, 5, 2), "begun_by": "x"}])
    recount(tables)
    counts = {row.as_of.day: row.num_users for row in tables.ledger(FEATURE_SETS)}
    assert counts == {1: 0, 2: None}
