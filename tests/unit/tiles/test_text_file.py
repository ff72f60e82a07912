"""JSON and CSV files have the same days, tiles and rejects with and without Spark."""

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from userrep.config import EventSource
from userrep.errors import NeedsSparkError
from userrep.sources.read import read_source, with_validity
from userrep.tiles.by_arrow import DayTiles, tiles_of_files
from userrep.tiles.by_spark import tiles_of
from userrep.tiles.column_paths import LogColumns, columns_of
from userrep.tiles.day_events import SourceFiles
from userrep.tiles.text_file import days_of_lines

pytestmark = pytest.mark.default

DAYS = [date(2024, 5, day) for day in (1, 2, 3)]
COLUMNS = {"user_id": "user.id", "item_id": "item", "event_at": "at", "event_type": "kind", "weight": "points"}
CSV_NAMES = ("user.id", "item", "at", "kind", "points", "eid", "device", "note")
USUAL: dict[str, list[Any]] = {
    "user.id": ["u1", "ü2", "u10", 7, 7],
    "item": ["i1", "i2"],
    "at": [
        "2024-05-01T06:00:00Z",
        "2024-05-01 05:59:59.999999",
        "2024-05-02T00:30:00+02:00",
        "2024-05-02",
        "2024-05-03T12",
    ],
    "kind": ["play", "skip"],
    "points": [1, 0.3, 7.7, 1 / 512],
    "device": ["tv", "phone", None],
    "note": [None, None, "a", 1.0],
}
ODD: dict[str, list[Any]] = {
    "user.id": ["", "  ", None, True, 7.5, 12345678901234567890],
    "item": [" ", None, -3, False],
    "at": [None, "", "12:30", "2024-02-30", "1969-12-31 23:00:00", "2500-05-05", "2024-05-01 12:00Z", 1714521600,
           "2024-05", "2024-05-01 07:00:00.123456789", "2024-05-01 14:00:00 Europe/Berlin", " 2024-05-02 1:2:3 ",
           "2024-05-02T23:59:59-0130"],
    "kind": ["", None, 1, "a\\b", "tab\t"],
    "points": [None, "", "many", -1, -0.0, "2.5", " 1e2 ", "1.5d", "NaN", "-inf", 1e300, "1,5"],
    "device": [True, 3, "(null)", ""],
    "note": [True, "", ["x", 1], {"deep": None}],
}  # fmt: skip
ODD_LINES = {
    "json": ["null", "soon", '{"item": "i1", "at": "2024-05-01', "{}", "  ", "17"],
    "csv": ["u1", "u1,i1,2024-05-01", "u1,i1,2024-05-01,play,1,,tv,a,b,c", ",,,,,,,", "   "],
}


def lines_of(draw: random.Random, log_format: str, number: int, odd: float, ids: Sequence[Any]) -> list[str]:
    """Draw lines: copies and near copies are common, and a share of values is ``odd``."""
    rows: list[dict[str, Any]] = []
    for _ in range(number):
        if rows and draw.random() < 0.3:
            row = dict(draw.choice(rows))
            changed = ["at", "note"] if len(ids) > 1 else list(USUAL)  # else the latest rows of an id would differ
            names = draw.sample(changed, draw.choice([0, 0, 1]))
        else:
            row, names = {}, [*USUAL]
        row |= {name: draw.choice((ODD if draw.random() < odd else USUAL)[name]) for name in names if name in USUAL}
        row |= {"eid": draw.choice(ids)} if "eid" not in row else {}
        rows.append(row)
    texts = [(json_line if log_format == "json" else csv_line)(row, draw) for row in rows]
    return [draw.choice(ODD_LINES[log_format]) if draw.random() < odd / 4 else text for text in texts]


def json_line(row: dict[str, Any], draw: random.Random) -> str:
    values = {name: value for name, value in row.items() if value is not None or draw.random() < 0.5}
    values["user"] = {"id": values.pop("user.id")} if "user.id" in values else None
    names = draw.sample(sorted(values), len(values))
    return json.dumps({name: values[name] for name in names}, ensure_ascii=draw.random() < 0.5).replace(
        "1e+300", "1e999"
    )


def csv_line(row: dict[str, Any], draw: random.Random) -> str:
    texts = ["" if row[name] is None else str(row[name]) for name in CSV_NAMES]
    texts = [text.replace(",", ";").replace('"', "").replace("'", "") for text in texts]
    return ",".join(f'"{text}"' if draw.random() < 0.1 and "\\" not in text else text for text in texts)


def write(path: Path, lines: Sequence[str], log_format: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join([",".join(CSV_NAMES)] * (log_format == "csv") + list(lines)).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def columns_for(spark: SparkSession, log: EventSource) -> tuple[Any, LogColumns]:
    source = read_source(spark, log, what="events")
    columns = columns_of(source.schema, log)
    assert columns is not None
    return source, columns


def tiles_by_key(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    keys = ("event_date", "user_bucket", "user_id", "item_id", "event_type")
    found = {tuple(row.pop(key) for key in keys): row | {"weight": row["weight"].hex()} for row in rows}
    assert len(found) == len(rows)
    return found


def of_arrow(days: list[DayTiles]) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = [
        {"event_date": day.day, **row, "num_by_context": dict(row["num_by_context"])}
        for day in days
        if day.tiles is not None
        for row in day.tiles.to_pylist()
    ]
    return tiles_by_key(rows)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize("ids", [None, "text"])
@pytest.mark.parametrize("log_format", ["json", "csv"])
def test_days_tiles_and_rejects_are_those_of_spark(
    spark: SparkSession, tmp_path: Path, log_format: str, ids: str | None, zone: str
) -> None:
    seed = f"{log_format} {ids} {zone}"
    draw = random.Random(seed)
    columns = COLUMNS | ({"event_id": "eid"} if ids else {})
    log = EventSource(
        path=str(tmp_path / "log"), format=log_format, columns={**columns, "context": ["device"]}, time_zone=zone
    )
    choices = {None: [None], "text": [*range(100_000), *[None] * 20_000]}[ids]
    paths = [
        write(tmp_path / "log" / name, lines_of(draw, log_format, number, odd, choices), log_format)
        for name, number, odd in (
            (f"a.{log_format}", 900, 0.0),
            (f"b.{log_format}.gz", 300, 0.15),
            (f"c.{log_format}", 300, 0.3),
        )
    ]
    source, found_columns = columns_for(spark, log)
    checked = with_validity(source, log).drop("raw")
    rows = checked.collect()
    by_day = [days_of_lines(path, found_columns) for path in paths]
    counts = Counter[date | None]()
    for days in by_day:
        counts.update({day: num for day, (num, _) in days.items()})
    expected = Counter(row.event_date for row in rows)
    assert counts == expected, seed
    found = list(tiles_of_files([SourceFiles(dict.fromkeys(paths, DAYS), found_columns)]))
    rejected = Counter(row.event_date for row in rows if row.reason is not None)
    by_arrow = [day for day in found if day.tiles is not None]
    assert {day.day: day.num_rejected for day in by_arrow} == {day.day: rejected[day.day] for day in by_arrow}, seed
    spark_days = {day.day for day in found if day.tiles is None}
    assert spark_days == set() if ids is None else len(spark_days) < len(DAYS), seed
    valid = with_validity(source, log).where("event_date IS NOT NULL AND reason IS NULL")
    tiles = tiles_of(valid, context=["device"], has_event_id=ids is not None, slices=1, tasks=1).drop("user_slice")
    by_spark = [row.asDict() for row in tiles.collect() if row.event_date in set(DAYS) - spark_days]
    for row in by_spark:
        row["last_event_at"] = row["last_event_at"].replace(tzinfo=UTC)
    assert of_arrow(found) == tiles_by_key(by_spark), seed


@pytest.fixture
def json_columns() -> LogColumns:
    paths = {"user_id": ("user", "id"), "item_id": ("item",), "event_at": ("at",)}
    kinds = dict.fromkeys(paths, "text")
    return LogColumns(paths, kinds, (), "event", ("user", "item", "at", "note"), format="json")


LINE = '{{"user": {{"id": "u{k}"}}, "item": "i", "at": "2024-05-0{day}T12:00:00Z"}}'


def days(path: Path, columns: LogColumns, lines: list[str], **part: int) -> dict[date | None, tuple[int, int]]:
    return days_of_lines(write(path, lines, "json"), columns, **part)


def test_the_hash_of_a_day_follows_its_lines_and_no_other_days(tmp_path: Path, json_columns: LogColumns) -> None:
    lines = [LINE.format(k=k, day=1 + k % 2) for k in range(10)]
    first, second = DAYS[:2]
    before = days(tmp_path / "a.json", json_columns, lines)
    assert {day: num for day, (num, _) in before.items()} == {first: 5, second: 5}
    changed = days(tmp_path / "a.json", json_columns, [*lines[:-1], LINE.format(k=99, day=2)])
    assert (changed[first], changed[second] == before[second]) == (before[first], False)
    apart = days(tmp_path / "b.json", json_columns, lines[::2])
    assert apart == {first: before[first]}
    more = days(tmp_path / "a.json", json_columns, ["", *lines, "unreadable"])
    assert {**more, None: None} == {**before, None: None}
    assert more[None][0] == 1


def test_parts_of_a_file_add_up(tmp_path: Path, json_columns: LogColumns) -> None:
    lines = [LINE.format(k=k, day=1 + k % 3) for k in range(20)]
    whole = days(tmp_path / "a.json", json_columns, lines)
    size = (tmp_path / "a.json").stat().st_size
    counts = Counter[date | None]()
    for start in range(0, size, 100):
        found = days_of_lines(str(tmp_path / "a.json"), json_columns, start=start, stop=start + 100)
        counts.update({day: num for day, (num, _) in found.items()})
    assert counts == {day: num for day, (num, _) in whole.items()}


@pytest.mark.parametrize(
    "change", [lambda line: line.replace('"', "'"), lambda line: f"{line} and more", lambda _: "\0"]
)
def test_a_file_with_a_line_for_spark_is_left_to_it(
    tmp_path: Path, json_columns: LogColumns, change: Callable[[str], str]
) -> None:
    lines = [LINE.format(k=1, day=1), change(LINE.format(k=2, day=1))]
    with pytest.raises(NeedsSparkError):
        days(tmp_path / "a.json", json_columns, lines)
    path = str(tmp_path / "a.json")
    good = write(tmp_path / "b.json", [LINE.format(k=3, day=2)], "json")
    found = list(tiles_of_files([SourceFiles({path: [DAYS[0]], good: [DAYS[1]]}, json_columns)]))
    assert [day.tiles is None for day in found] == [True, False]


def test_a_mapped_field_that_is_a_folders_name_needs_spark(tmp_path: Path, json_columns: LogColumns) -> None:
    lines = [LINE.format(k=1, day=1)]
    with pytest.raises(NeedsSparkError):
        days(tmp_path / "item=a" / "a.json", json_columns, lines)
    assert days(tmp_path / "place=a" / "a.json", json_columns, lines)


def test_likely_copies_are_compared_by_all_fields(tmp_path: Path, json_columns: LogColumns) -> None:
    line = LINE.format(k=1, day=1)
    same = '{"at": "2024-05-01T12:00:00Z", "note": null, "item": "i", "user": {"id": "u1"}}'
    other = f'{line[:-1]}, "note": "a"}}'
    for k, (lines, num_events) in enumerate(
        [([line, line, same], 1), ([line, other], 2), ([other, line, other, same], 2)]
    ):
        path = write(tmp_path / f"{k}.json", lines, "json")
        (found,) = tiles_of_files([SourceFiles({path: [DAYS[0]]}, json_columns)])
        assert found.tiles is not None
        assert found.tiles["num_events"].to_pylist() == [num_events]
