"""Which files of the log tasks can open themselves."""

from pathlib import Path

import pytest

from tests.support.builders import event, write_rows
from userrep.tiles.arrow_reader import can_open
from userrep.tiles.column_paths import LogColumns

pytestmark = pytest.mark.fast

PARQUET = LogColumns({}, (), "event", (), frozenset())
JSON = PARQUET._replace(format="json")


def test_only_files_that_exist_can_be_opened_and_parquet_only_with_a_footer(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", [event("u", "i", "2024-05-01")])
    (tmp_path / "b.parquet").write_text("user_id,item_id\n")
    assert can_open(str(path), PARQUET)
    assert not can_open(str(tmp_path / "b.parquet"), PARQUET)
    assert can_open(str(tmp_path / "b.parquet"), JSON)
    assert not can_open(str(tmp_path / "none"), PARQUET)
    assert not can_open(str(tmp_path / "none"), JSON)
