"""The files that may have rows of given days are known from their folders, or from what was recorded of them."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import EVENT_COLUMNS
from userrep.config import EventSource
from userrep.sources.open_log import ListedFile, OpenLog
from userrep.store.file_tables import FileTables
from userrep.tiles.inventory.day_files import FileDay, files_of_days
from userrep.tiles.inventory.log_days import NO_DAY, Counts, record

pytestmark = pytest.mark.fast

D1, D2, D3 = (date(2024, 5, day) for day in (1, 2, 3))
FILES = [ListedFile(f"file:/log/dt={day}/a.parquet", 320, datetime(2024, 5, 9)) for day in (D1, D2, D3)]


def log_of(**settings: Any) -> OpenLog:
    source: Any = None
    return OpenLog("events", EventSource(path="log", columns=EVENT_COLUMNS, **settings), source, FILES, {}, None)


def test_files_have_the_days_that_were_recorded_of_them(tmp_path: Path) -> None:
    tables, log = FileTables(None, str(tmp_path)), log_of()
    first = {D1: Counts(3, 0, 1), D2: Counts(2, 0, 1), NO_DAY: Counts(1, 1, 1)}
    record(tables, log.mapping, {FILES[0]: first, FILES[1]: {D2: Counts(0, 0, 1), D3: Counts(4, 0, 1)}})
    assert files_of_days(tables, log, [D2]) == [FileDay(FILES[0].path, D2, 2, 6)]
    assert files_of_days(tables, log, [D3]) == [FileDay(FILES[1].path, D3, 4, 4)]
    assert files_of_days(tables, log, [], undated=True) == [FileDay(FILES[0].path, NO_DAY, 1, 6)]


@pytest.mark.parametrize(("holds", "last"), [("event_date", D2), ("ingestion_date", D3)])
def test_folders_show_their_day_or_that_rows_arrived_up_to_days_later(tmp_path: Path, holds: str, last: date) -> None:
    tables, log = FileTables(None, str(tmp_path)), log_of(partition={"column": "dt", "holds": holds})
    files = [FileDay(file.path, day, 11, 11) for file, day in zip(FILES, (D1, D2, D3), strict=True)]
    assert files_of_days(tables, log, [D2]) == [file for file in files if D2 <= file.day <= last]
    assert files_of_days(tables, log, [D2], undated=True) == (files[1:2] if holds == "event_date" else [])
