"""The inventory without Spark: known files by what is recorded, new files by their footers or folders."""

import os
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import EVENT_COLUMNS, event, write_rows
from userrep.config import Events
from userrep.errors import UsageError
from userrep.ids import short_hash
from userrep.sources.listing import Listings, list_files
from userrep.sources.open_log import ListedFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import TILE_DAYS
from userrep.store.tables import Tables
from userrep.tiles.inventory import forecast as forecasts
from userrep.tiles.inventory.forecast import Forecast, forecast
from userrep.tiles.inventory.inventory import Inventory
from userrep.tiles.inventory.log_days import NO_DAY, Counts, LogDay, record

pytestmark = pytest.mark.fast

D1, D2, D3 = date(2024, 5, 1), date(2024, 5, 2), date(2024, 5, 3)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path / "root"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events"


def settings(log: Path, **more: Any) -> Events:
    return Events(path=str(log), columns=EVENT_COLUMNS, **more)


def write(file: Path, *days: date) -> Path:
    return write_rows(file, [event("u", "i", f"{day} 12:00:00") for day in days])


def listed(file: Path) -> ListedFile:
    (found,) = list_files(str(file), None, "events")
    return ListedFile(f"file:{file}", found.size, found.modified_at)


def read(tables: Tables, events: Events, file: Path, rows: Mapping[date, tuple[int, int]]) -> None:
    """Record a file as read, with its rows and their checksum by day."""
    days = {day: Counts(num, None, checksum) for day, (num, checksum) in rows.items()}
    record(tables, short_hash(events.meaning), {listed(file): days})


def build(tables: Tables, inventory: Inventory, *, revision: int = 1) -> None:
    """Record tiles of all days of the log."""
    counts = {"num_events": 1, "num_tiles": 1, "num_rejected": 0, "content": "c", "revision": revision}
    rows = [{"event_date": day.day, "fingerprint": f"{day.fingerprint}:mapping"} for day in inventory.days]
    tables.add(TILE_DAYS, [counts | {"built_at": datetime(2024, 5, 9)} | row for row in rows])


def look(tables: Tables, events: Events) -> Forecast:
    return forecast(tables, events, Listings())


def test_a_known_file_has_the_recorded_days_and_their_sum_as_fingerprint(tables: Tables, log: Path) -> None:
    read(tables, settings(log), write(log / "a.parquet", D1), {D1: (3, 10**20), D2: (0, 0), NO_DAY: (2, 7)})
    read(tables, settings(log), write(log / "b.parquet", D1), {D1: (4, 5), NO_DAY: (1, 1)})
    found = look(tables, settings(log))
    assert found.new_files == []
    assert found.inventory.days == [LogDay(D1, 7, None, f"7:{10**20 + 5}")]
    assert (found.inventory.num_undated, found.inventory.undated_fingerprint) == (3, "3:8")


def test_a_new_file_has_the_days_of_its_footer_and_changes_them(tables: Tables, log: Path) -> None:
    read(tables, settings(log), write(log / "a.parquet", D1, D1, D2), {D1: (2, 1), D2: (1, 1)})
    new = write(log / "b.parquet", D2, D2, D3, D3)
    found = look(tables, settings(log))
    assert [(day.day, day.num_rows) for day in found.inventory.days] == [(D1, 2), (D2, 3), (D3, 2)]
    assert {day.day: day.fingerprint for day in found.inventory.days} == {D1: "2:1", D2: "new", D3: "new"}
    assert [(file.path, file.num_bytes) for file in found.new_files] == [(str(new), new.stat().st_size)]
    assert [Path(file.path).name for file in found.files_of([D3])] == ["b.parquet"]
    assert found.unread_files == []


def test_a_file_that_was_written_again_and_a_new_mapping_count_as_new(tables: Tables, log: Path) -> None:
    read(tables, settings(log), write(log / "a.parquet", D1), {D1: (1, 1)})
    assert look(tables, settings(log)).new_files == []
    assert len(look(tables, settings(log, time_zone="Europe/Berlin")).new_files) == 1
    write(log / "a.parquet", D1, D2)
    assert [day.day for day in look(tables, settings(log)).inventory.days] == [D1, D2]


def test_of_many_new_files_a_sample_of_footers_represents_the_others(
    tables: Tables, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(5):
        write(log / f"{k}.parquet", *[D1 + timedelta(days=k)] * 6)
    monkeypatch.setattr(forecasts, "_MOST_FOOTERS", 2)
    read: list[str] = []
    footer = forecasts.read_footer
    monkeypatch.setattr(forecasts, "read_footer", lambda file: read.append(file.path) or footer(file))
    found = look(tables, settings(log))
    assert [Path(path).name for path in read] == ["0.parquet", "4.parquet"]
    assert [day.day for day in found.inventory.days] == [D1, D1 + timedelta(days=4)]
    assert sum(day.num_rows or 0 for day in found.inventory.days) == pytest.approx(30, abs=3)


def test_text_shows_its_days_only_to_a_reader(tables: Tables, log: Path) -> None:
    log.mkdir()
    (log / "a.json").write_text('{"user_id": "u", "item_id": "i", "event_at": "2024-05-01"}\n')
    found = look(tables, settings(log, format="json"))
    assert found.inventory.days == []
    assert [file.rows for file in found.unread_files] == [None]
    assert found.files_of([D1]) == found.files


@pytest.mark.parametrize("when", [datetime(1, 1, 1), datetime(2024, 5, 1, 12)])
def test_a_time_that_a_run_rejects_makes_the_days_of_a_file_unknown(tables: Tables, log: Path, when: datetime) -> None:
    write_rows(log / "a.parquet", [{"user_id": "u", "item_id": "i", "event_at": when}])
    assert bool(look(tables, settings(log)).unread_files) == (when.year == 1)


PARTITION = {"partition": {"column": "dt", "holds": "event_date"}}


def partitions(log: Path, *folders: str) -> None:
    for folder in folders:
        write_rows(log / f"dt={folder}" / "a.parquet", [event("u", "i", "2024-05-01 12:00:00")])


def test_days_of_folders_change_with_their_files(tables: Tables, log: Path) -> None:
    partitions(log, "2024-05-01", "20240502", "2024-05-03")
    first = look(tables, settings(log, **PARTITION))
    assert [day.num_rows for day in first.inventory.days] == [None, None, None]
    assert len(first.new_files) == 3
    build(tables, first.inventory)
    assert look(tables, settings(log, **PARTITION)).new_files == []
    write_rows(log / "dt=20240502" / "b.parquet", [event("u", "i", "2024-05-02 12:00:00")])
    os.utime(log / "dt=2024-05-03" / "a.parquet", (1e9, 1e9))
    found = look(tables, settings(log, **PARTITION))
    changed = [new.day for old, new in zip(first.inventory.days, found.inventory.days, strict=True) if old != new]
    assert changed == [D2, D3]
    assert len(found.new_files) == 3
    build(tables, found.inventory, revision=2)
    assert look(tables, settings(log, **PARTITION)).new_files == []


def test_a_day_of_two_sources_is_compared_by_source(tables: Tables, tmp_path: Path) -> None:
    for name in ("plays", "likes"):
        partitions(tmp_path / name, "2024-05-01")
    events = Events(
        sources=[{"path": str(tmp_path / name), "columns": EVENT_COLUMNS, **PARTITION} for name in ("plays", "likes")]
    )
    build(tables, look(tables, events).inventory)
    new = write_rows(tmp_path / "likes" / "dt=2024-05-01" / "b.parquet", [event("u", "i", "2024-05-01 13:00:00")])
    found = look(tables, events)
    assert {file.path for file in found.new_files} == {str(new), str(new.with_name("a.parquet"))}
    assert len(found.files) == 3


def test_days_after_tomorrow_are_held_back(tables: Tables, log: Path) -> None:
    partitions(log, "2024-05-01", "2199-05-01")
    assert [day.day for day in look(tables, settings(log, **PARTITION)).inventory.days] == [D1]


def test_a_misplaced_file_and_a_table_of_a_catalog_are_refused(tables: Tables, log: Path) -> None:
    write(log / "a.parquet", D1)
    with pytest.raises(UsageError, match=r"files? outside of folders such as dt=2024-05-01, for example .*a\.parquet"):
        look(tables, settings(log, **PARTITION))
    with pytest.raises(UsageError, match="events: format table needs Spark, which --dry-run does not start"):
        look(tables, Events(path="db.events", format="table", columns=EVENT_COLUMNS))
