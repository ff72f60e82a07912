"""New files of a log: which ones footers suffice for, how parts of text files add up, and which files need Spark."""

import gzip
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import Row
from pyspark.sql import types as T

from tests.support.builders import EVENT_COLUMNS, event, write_rows
from userrep.config import EventSource
from userrep.sources.open_log import ListedFile, OpenLog
from userrep.tiles.by_arrow import tiles_of_files
from userrep.tiles.column_paths import LogColumns
from userrep.tiles.day_events import SourceFiles
from userrep.tiles.inventory import new_rows
from userrep.tiles.inventory.log_days import NO_DAY
from userrep.tiles.inventory.new_rows import (
    _by_footers,
    _by_lines,
    _checksum,
    _footer_row,
    _parts,
    _rows_of_part,
)

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
FILE = ListedFile("file:/log/a.parquet", 100, datetime(2024, 5, 3, 12))
PATHS = {"user_id": ("u",), "item_id": ("i",), "event_at": ("at",)}
COLUMNS = LogColumns(PATHS, dict.fromkeys(PATHS, "text"), (), "event", ("u", "i", "at"), format="csv")


def log_of(kind: T.DataType, **settings: Any) -> OpenLog:
    fields = [T.StructField(name, T.StringType()) for name in ("user_id", "item_id")]
    source: Any = SimpleNamespace(schema=T.StructType([*fields, T.StructField("event_at", kind)]), sparkSession=None)
    return OpenLog("events", EventSource(path="log", columns=EVENT_COLUMNS, **settings), source, [FILE], {}, None)


def counted(monkeypatch: pytest.MonkeyPatch, *rows: tuple[str, date | None, int | None, int | None]) -> None:
    """Let tasks return these rows."""
    found = [Row(path=path, day=day, num_rows=num_rows, hash=hash_) for path, day, num_rows, hash_ in rows]
    monkeypatch.setattr(new_rows, "map_in_tasks", lambda *_: found)


# Footers


def test_a_file_of_one_day_has_the_rows_of_its_footer_and_no_count_of_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, (FILE.path, D1, 7, None))
    assert _by_footers(log_of(T.TimestampType()), [FILE, FILE._replace(path="b")]) == {
        FILE.path: {D1: (7, None, _checksum(FILE))}
    }


def test_the_checksum_of_a_file_follows_its_name_size_and_time() -> None:
    changes: list[dict[str, Any]] = [
        {"path": "file:/log/b.parquet"}, {"size": 101}, {"modified_at": datetime(2024, 5, 3, 12, 0, 0, 1)},
    ]  # fmt: skip
    checksums = [_checksum(file) for file in (FILE, *(FILE._replace(**change) for change in changes))]
    assert len(set(checksums)) == 4
    assert all(0 <= checksum < 2**64 for checksum in checksums)


def test_a_file_that_cannot_be_opened_is_left_to_spark(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", [event("u1", "i1", "2024-05-01"), event("u2", None, "2024-05-01")])
    assert _footer_row(str(path), "event_at") == {"path": str(path), "day": D1, "num_rows": 2}
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    assert _footer_row(str(tmp_path / "b.parquet"), "event_at") is None
    assert _footer_row(str(tmp_path / "none.parquet"), "event_at") is None


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (T.TimestampType(), {"format": "table"}),
        (T.TimestampType(), {"partition": {"column": "dt", "holds": "ingestion_date"}}),
        (T.TimestampNTZType(), {"time_zone": "Europe/Berlin"}),
        (T.StringType(), {}),
        (T.DateType(), {}),
    ],
    ids=["table", "partition", "other zone", "text", "date"],
)
def test_footers_are_trusted_for_utc_times_in_plain_parquet_only(kind: T.DataType, settings: dict[str, Any]) -> None:
    """Reading footers takes a Spark session, which is missing here."""
    assert _by_footers(log_of(kind, **settings), [FILE]) == {}


# Lines of text


def test_parts_of_a_file_add_up_by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [FILE._replace(path=path) for path in ("a", "b", "empty", "torn")]
    counted(
        monkeypatch, ("a", D1, 3, 2**62), ("a", D1, 4, 2**62), ("a", D2, 1, -5), ("b", None, 2, 7), ("torn", D1, 9, 1),
        ("torn", None, None, None),
    )  # fmt: skip
    assert _by_lines(log_of(T.StringType(), format="csv"), files) == {
        "a": {D1: (7, None, 2**63), D2: (1, None, -5)}, "b": {NO_DAY: (2, None, 7)}, "empty": {},
    }  # fmt: skip


def test_only_plain_files_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_rows, "_PART_BYTES", 10)

    def parts(path: str, size: int) -> list[tuple[int, int | None]]:
        return _parts(FILE._replace(path=path, size=size))

    assert parts("a.csv", 25) == [(0, 10), (10, 20), (20, None)]
    assert parts("a.csv", 10) == parts("a.csv", 0) == parts("a.csv.gz", 25) == [(0, None)]


def test_a_text_file_that_cannot_be_read_is_left_to_spark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("u,i,at\na,b,2024-05-01\na,b,never\n")
    part = {"path": str(path), "start": 0, "stop": None}

    def rows(part: dict[str, Any]) -> Iterable[dict[str, Any]]:
        return list(_rows_of_part(part, COLUMNS))

    assert {row["day"]: row["num_rows"] for row in rows(part)} == {D1: 1, None: 1}
    path.write_text('u,i,at\na,"b ""c""",2024-05-01\n')
    assert rows(part) == [{"path": str(path)}]
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(b"u,i,at\n" * 1000)[:-20])
    for name in ("none.csv", "torn.csv.gz"):
        other = str(tmp_path / name)
        assert rows(part | {"path": other}) == [{"path": other}]
        assert [day.tiles for day in tiles_of_files([SourceFiles({other: [D1]}, COLUMNS)])] == [None]
