"""The days of text files: parts of files add up, and files for Spark are left out."""

import gzip
from datetime import date, datetime
from pathlib import Path

import pytest
from pyspark.sql import Row

from userrep.tiles.by_arrow import tiles_of_files
from userrep.tiles.column_paths import LogColumns
from userrep.tiles.day_events import SourceFiles
from userrep.tiles.inventory import text_days
from userrep.tiles.inventory.text_days import _found, _parts, _summed
from userrep.utc import day_number

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
PATHS = {"user_id": ("u",), "item_id": ("i",), "event_at": ("at",)}
COLUMNS = LogColumns(PATHS, (), "event", ("u", "i", "at"), frozenset(), frozenset({"event_at"}), format="csv")


def file(name: str, size: int = 10) -> Row:
    return Row(path=name, size=size, modified_at=datetime(2024, 5, 3), mapping="m")


def found(path: str, day: date | None, num_rows: int | None, line_hash: int | None) -> Row:
    return Row(path=path, day=None if day is None else day_number(day), num_rows=num_rows, hash=line_hash)


def test_parts_of_a_file_add_up_by_day() -> None:
    files = [file("a"), file("b"), file("empty"), file("torn")]
    rows = _summed(files, [
        found("a", D1, 3, 2**62), found("a", D1, 4, 2**62), found("a", D2, 1, -5), found("b", None, 2, 7),
        found("torn", D1, 9, 1), found("torn", None, None, None),
    ])  # fmt: skip
    names = ("path", "event_date", "num_rows", "num_rejected", "checksum")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("a", D1, 7, None, 2**63), ("a", D2, 1, None, -5), ("b", None, 2, None, 7), ("empty", None, 0, None, 0),
    ]  # fmt: skip
    assert {"size": 10, "modified_at": datetime(2024, 5, 3), "mapping": "m"}.items() <= rows[0].items()


def test_only_plain_files_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_days, "_PART_BYTES", 10)
    assert _parts(file("a.csv", 25)) == [(0, 10), (10, 20), (20, None)]
    assert _parts(file("a.csv", 10)) == _parts(file("a.csv", 0)) == _parts(file("a.csv.gz", 25)) == [(0, None)]


def test_a_file_that_cannot_be_read_is_left_to_spark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("u,i,at\na,b,2024-05-01\na,b,never\n")
    part = {"path": str(path), "start": 0, "stop": None}
    assert {row["day"]: row["num_rows"] for row in _found(part, COLUMNS)} == {day_number(D1): 1, None: 1}
    path.write_text('u,i,at\na,"b ""c""",2024-05-01\n')
    assert list(_found(part, COLUMNS)) == [{"path": str(path)}]
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(b"u,i,at\n" * 1000)[:-20])
    for name in ("none.csv", "torn.csv.gz"):
        other = str(tmp_path / name)
        assert list(_found(part | {"path": other}, COLUMNS)) == [{"path": other}]
        assert [day.tiles for day in tiles_of_files([SourceFiles({other: [D1]}, COLUMNS)])] == [None]
