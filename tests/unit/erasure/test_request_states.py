"""The ledger of erasure requests: each request in its newest state."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from userrep.erasure.request_states import ASKED, BEGUN, DONE, newest_requests
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ERASURES

pytestmark = pytest.mark.fast

NOW = datetime(2024, 5, 1, 12)


def test_each_request_is_in_its_newest_state_and_the_oldest_request_comes_first(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    rows = [("f1", 1, BEGUN, 3), ("f2", 0, ASKED, 1), ("f1", 1, ASKED, 2), ("f2", 0, DONE, 4)]
    tables.add(ERASURES, [
        {"request_id": name, "requested_at": NOW + timedelta(days), "state": state, "num_users": 1,
         "recorded_at": NOW + timedelta(9, hours)}
        for name, days, state, hours in rows
    ])  # fmt: skip
    assert [(row.request_id, row.state) for row in newest_requests(tables)] == [("f2", DONE), ("f1", BEGUN)]
