"""The days of files and of sources add up, and days in folders are known by their files."""

from datetime import date, datetime
from pathlib import Path

import pytest

from userrep.config import Partition
from userrep.errors import UsageError
from userrep.sources.open_log import ListedFile
from userrep.store.file_tables import FileTables
from userrep.tiles.inventory.log_days import (
    NO_DAY,
    Counts,
    LogDay,
    days_by_partition,
    merged,
    record,
    recorded,
    summed,
)

pytestmark = pytest.mark.fast

D1, D2, D3 = (date(2024, 5, day) for day in (1, 2, 3))


def test_what_is_recorded_of_files_is_found_under_the_same_mapping(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    first = ListedFile("file:/log/a.parquet", 100, datetime(2024, 5, 3, 12, 0, 0, 5))
    files = {
        first: {D1: Counts(3, None, 10**20), NO_DAY: Counts(2, 2, -5)},
        first._replace(size=101): {D2: Counts(1, 0, 0)},
    }
    record(tables, "m", files)
    record(tables, "other", {first: {D3: Counts(1, 1, 1)}})
    record(tables, "m", {})
    assert recorded(tables, "m") == files
    assert recorded(tables, "none") == {}


def test_a_file_without_rows_is_known_and_has_no_day(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    file = ListedFile("file:/log/a.parquet", 100, datetime(2024, 5, 3))
    record(tables, "m", {file: {}})
    assert recorded(tables, "m").keys() == {file}
    assert summed(recorded(tables, "m").values()) == []


def test_counts_of_a_day_are_summed_over_files_and_rejects_are_unknown_if_one_file_s_are() -> None:
    one = {D1: Counts(3, 1, 10), D2: Counts(3, 1, 10), D3: Counts(0, 0, 7)}
    two = {D1: Counts(4, 0, -2), D2: Counts(4, None, 5), NO_DAY: Counts(2, 2, 4)}
    assert {day.day: day for day in summed([one, two])} == {
        D1: LogDay(D1, 7, 1, "7:8"), D2: LogDay(D2, 7, None, "7:15"), NO_DAY: LogDay(NO_DAY, 2, 2, "2:4"),
    }  # fmt: skip


PARTITION = Partition(column="dt", holds="event_date")
FILES = [
    ListedFile(f"/log/dt={name}", 10, datetime(2024, 5, 3)) for name in ("2024-05-01/a", "2024-05-01/b", "20240502/a")
]


def test_a_day_of_folders_has_the_size_of_its_files_and_changes_with_each_of_them() -> None:
    first, second = days_by_partition("events", PARTITION, dict(zip(FILES, [32, 64, 320], strict=True)))
    assert (first.day, first.num_bytes, first.expected_rows, first.num_rows) == (D1, 96, 3, None)
    assert days_by_partition("events", PARTITION, dict.fromkeys(FILES[1::-1], 0))[0].fingerprint == first.fingerprint
    changes = [
        FILES[:1],
        [FILES[0], FILES[1]._replace(size=11)],
        [FILES[0], FILES[1]._replace(modified_at=datetime(2025, 1, 1))],
    ]
    changed = [days_by_partition("events", PARTITION, dict.fromkeys(files, 0))[0].fingerprint for files in changes]
    assert len({first.fingerprint, second.fingerprint, *changed}) == 5


def test_files_outside_of_folders_of_days_are_named() -> None:
    files = [*FILES, ListedFile("/log/c", 1, datetime(2024, 5, 3)), ListedFile("/log/dt=x/b", 1, datetime(2024, 5, 3))]
    with pytest.raises(
        UsageError, match=r"events.partition.column: the log has 2 files .* such as dt=2024-05-01, .* /log/c\. Move"
    ):
        days_by_partition("events", PARTITION, dict.fromkeys(files, 0))


# Adding up sources


def test_the_days_of_one_source_come_in_order_without_the_undated_rows() -> None:
    days, undated = merged([[LogDay(D2, 5, None, "b", 64), LogDay(NO_DAY, 2, 2, "n"), LogDay(D1, 3, 1, "a")]])
    assert days == [LogDay(D1, 3, 1, "a"), LogDay(D2, 5, None, "b", 64)]
    assert (undated.num_rows, undated.fingerprint) == (2, "n")
    assert merged([[LogDay(D1, 3, 1, "a")]])[1] == LogDay(NO_DAY, 0, 0, "")


def test_the_counts_of_a_day_add_up_over_sources_and_are_unknown_if_one_is() -> None:
    plays = [LogDay(D1, 3, 1, "a", 10), LogDay(D2, 5, 0, "b")]
    likes = [LogDay(D1, 4, 2, "c", 20), LogDay(D2, None, None, "d", 320)]
    days, _ = merged([plays, likes])
    assert [(day.num_rows, day.num_rejected, day.num_bytes) for day in days] == [(7, 3, 30), (None, None, 320)]


def test_a_day_that_moves_from_one_source_to_another_changes_its_fingerprint() -> None:
    first, second = merged([[LogDay(D1, 3, 0, "a")], []])[0], merged([[], [LogDay(D1, 3, 0, "a")]])[0]
    both = merged([[LogDay(D1, 3, 0, "a")], [LogDay(D1, 3, 0, "a")]])[0]
    assert len({first[0].fingerprint, second[0].fingerprint, both[0].fingerprint}) == 3
