"""Parquet files whose times and weights are texts are read without Spark; columns are found by their exact names."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from userrep.tiles.by_arrow import DayTiles, tiles_of_files
from userrep.tiles.column_paths import LogColumns
from userrep.tiles.day_events import SourceFiles
from userrep.tiles.parquet_file import type_in

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
PATHS = {name: (name,) for name in ("user_id", "item_id", "event_at", "weight", "event_id")}
TEXTS = LogColumns(PATHS, dict.fromkeys(PATHS, "text"), (), "event", (*PATHS,))


def tiles(path: Path, columns: LogColumns, **values: Any) -> list[DayTiles]:
    num = len(values["event_at"])
    table = {"user_id": ["u"] * num, "item_id": ["i"] * num, "event_id": [str(k) for k in range(num)], **values}
    pq.write_table(pa.table(table), path)
    return list(tiles_of_files([SourceFiles({str(path): [D1, D2]}, columns)]))


def test_texts_are_parsed_and_other_texts_leave_a_row_undated_or_rejected(tmp_path: Path) -> None:
    times = ["2024-05-01T01:00:00Z", "2024-05-01 23:30:00", "2024-05-01 12:00", "2024-05-02", "soon", None]
    weights = ["1.5", " 2 ", "many", "1e1", "1", "1"]
    for zone, numbers in (("UTC", [3, 1]), ("America/New_York", [2, 2])):
        found = tiles(tmp_path / "a.parquet", TEXTS._replace(time_zone=zone), event_at=times, weight=weights)
        num_events = [sum(day.tiles["num_events"].to_pylist()) for day in found if day.tiles is not None]
        assert [num + day.num_rejected for num, day in zip(num_events, found, strict=True)] == numbers
        assert [day.num_rejected for day in found] == [1, 0]
    assert found[1].tiles is not None
    assert found[1].tiles.select(["num_events", "weight", "last_event_at"]).to_pylist() == [
        {"num_events": 2, "weight": 12.0, "last_event_at": found[1].tiles["last_event_at"][0].as_py()}
    ]
    assert found[1].tiles["last_event_at"][0].as_py().replace(tzinfo=None) == datetime(2024, 5, 2, 3, 30)


@pytest.mark.parametrize(
    "values",
    [
        {"event_at": [datetime(2024, 5, 1)], "weight": ["1"]},
        {"event_at": ["2024-05-01"], "weight": [1.0]},
        {"event_at": ["2024-05-01"], "weight": [1]},
    ],
    ids=["time", "weight", "whole weight"],
)
def test_a_file_with_another_type_than_text_needs_spark(tmp_path: Path, values: dict[str, Any]) -> None:
    assert tiles(tmp_path / "a.parquet", TEXTS, **values)[0].tiles is None


def test_a_column_is_found_by_its_exact_name() -> None:
    schema = pa.schema([("a", pa.struct([("b", pa.int32()), ("B", pa.int64())])), ("c", pa.string())])
    assert type_in(schema, ("c",)) == pa.string()
    assert type_in(schema, ("d",)) is None
    assert type_in(schema, ("a", "x")) is None
    assert [type_in(schema, path) for path in (("C",), ("a", "b"), ("c", "x"))] == [pa.null()] * 3
