"""New files of a log: which ones footers suffice for, and their checksums."""

from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import Row
from pyspark.sql import types as T

from tests.support.builders import EVENT_COLUMNS, event, write_rows
from userrep.config import EventSource
from userrep.store.file_tables import FileTables
from userrep.tiles.inventory.new_rows import _day_or_none, _days_by_footers, _source_file

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
FILE = Row(path="file:/log/a.parquet", size=100, modified_at=datetime(2024, 5, 3, 12), mapping="m")


def test_a_file_of_one_day_is_recorded_with_its_rows_and_without_a_count_of_rejects() -> None:
    row = _source_file(FILE, D1, 7)
    assert row.pop("checksum") == _source_file(FILE, D2, 8)["checksum"]
    assert row == {**FILE.asDict(), "event_date": D1, "num_rows": 7, "num_rejected": None}


def test_the_checksum_of_a_file_follows_its_name_size_and_time() -> None:
    others = [{"path": "file:/log/b.parquet"}, {"size": 101}, {"modified_at": datetime(2024, 5, 3, 12, 0, 0, 1)}]
    files = [FILE, *(Row(**FILE.asDict() | change) for change in others)]
    checksums = [_source_file(file, D1, 7)["checksum"] for file in files]
    assert len(set(checksums)) == 4
    assert all(0 <= int(str(checksum)) < 2**64 for checksum in checksums)


def test_a_file_that_cannot_be_opened_is_left_to_spark(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", [event("u1", "i1", "2024-05-01"), event("u2", None, "2024-05-01")])
    assert _day_or_none(str(path), ("event_at",)) == (D1, 2)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    assert _day_or_none(str(tmp_path / "b.parquet"), ("event_at",)) is None
    assert _day_or_none(str(tmp_path / "none.parquet"), ("event_at",)) is None


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (T.TimestampType(), {"format": "csv"}),
        (T.TimestampType(), {"partition": {"column": "dt", "holds": "ingestion_date"}}),
        (T.TimestampNTZType(), {"time_zone": "Europe/Berlin"}),
        (T.StringType(), {}),
        (T.DateType(), {}),
    ],
    ids=["text file", "partition", "other zone", "text", "date"],
)
def test_footers_are_trusted_for_utc_times_in_plain_parquet_only(
    tmp_path: Path, kind: T.DataType, settings: dict[str, Any]
) -> None:
    """Reading footers takes a Spark session, which these tables do not have."""
    source: Any = SimpleNamespace(schema=T.StructType([T.StructField("event_at", kind)]))
    log = EventSource(path="log", columns=EVENT_COLUMNS, **settings)
    tables = FileTables(None, str(tmp_path))
    assert _days_by_footers(tables, log, source, [FILE]) == {}
