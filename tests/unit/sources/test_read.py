"""Reading of the log: the events of its rows, the rejected rows, and the errors for a log that cannot be read."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession

from tests.support.builders import EVENT_COLUMNS, event, write_rows
from tests.unit.sources.test_times import TIMES_BY_TEXT
from userrep.config import Events
from userrep.errors import UsageError
from userrep.sources.columns import check_columns, event_columns
from userrep.sources.read import has_naive_time, id_text, read_source, with_validity

pytestmark = pytest.mark.default

WEIGHTED = {"event_id": "event_id", "weight": "weight"}
TYPED = "event_id STRING, user_id STRING, item_id STRING, event_at TIMESTAMP, event_type STRING, weight DOUBLE"
NOON = datetime(2024, 5, 1, 12)

Rows = dict[str, tuple[dict[str, Any], str | None]]
# name of the row -> its differences from a valid row, and the reason for rejecting it (None: valid)
TYPED_ROWS: Rows = {
    "sound": ({}, None),
    "no user": ({"user_id": None}, "missing_user_id"),
    "blank user": ({"user_id": "  "}, "missing_user_id"),
    "no item": ({"item_id": None}, "missing_item_id"),
    "blank item": ({"item_id": ""}, "missing_item_id"),
    "no type": ({"event_type": None}, "missing_event_type"),
    "no time": ({"event_at": None}, "unreadable_event_at"),
    "1970": ({"event_at": datetime(1970, 1, 1, 9)}, "implausible_event_at"),
    "1971": ({"event_at": datetime(1971, 1, 1)}, None),
    "2262": ({"event_at": datetime(2262, 4, 11)}, "implausible_event_at"),
    "weight null": ({"weight": None}, "unreadable_weight"),
    "weight NaN": ({"weight": float("nan")}, "unreadable_weight"),
    "weight inf": ({"weight": float("inf")}, "unreadable_weight"),
    "weight inf when rounded": ({"weight": 1e308}, "unreadable_weight"),
    "weight negative": ({"weight": -1.0}, "negative_weight"),
    "weight zero": ({"weight": 0.0}, None),
    "weight to round": ({"weight": 0.3}, None),
    "weight too small": ({"weight": 0.001}, None),
    "user and time": ({"user_id": None, "event_at": None}, "unreadable_event_at"),
}
TEXT_ROWS: Rows = {
    "zulu": ({"event_at": "2024-05-01T12:00:00Z"}, None),
    "offset": ({"event_at": "2024-05-01 23:30:00-02:00"}, None),
    "naive": ({"event_at": "2024-05-01 12:00:00"}, None),
    "date": ({"event_at": "2024-05-01"}, None),
    "no date": ({"event_at": "12:30:00"}, "unreadable_event_at"),
    "no time": ({"event_at": "soon"}, "unreadable_event_at"),
    "epoch": ({"event_at": "1714521600"}, "unreadable_event_at"),
    "weight as text": ({"weight": "2.5"}, None),
    "weight in words": ({"weight": "two"}, "unreadable_weight"),
}


def _log(**columns: Any) -> Events:
    return Events(path="log", columns={**EVENT_COLUMNS, **columns})


def _mapped(spark: SparkSession, rows: Rows, ddl: str, log: Events, **sound: Any) -> dict[str, Row]:
    names = [field.split()[0] for field in ddl.split(", ")]
    values = [{**sound, "event_id": name, **more} for name, (more, _) in rows.items()]
    source = spark.createDataFrame([tuple(row[name] for name in names) for row in values], ddl)
    return {row.event_id: row for row in with_validity(source, log).collect()}


@pytest.fixture(scope="module")
def typed(spark: SparkSession) -> dict[str, Row]:
    sound = {"user_id": "u1", "item_id": "i1", "event_at": NOON, "event_type": "play", "weight": 1.0}
    return _mapped(spark, TYPED_ROWS, TYPED, _log(**WEIGHTED, event_type="event_type"), **sound)


@pytest.fixture(scope="module")
def texts(spark: SparkSession) -> dict[str, Row]:
    ddl = "event_id STRING, user_id BIGINT, item_id INT, event_at STRING, weight STRING, device STRING"
    log = _log(**WEIGHTED, context=["device", "weight"])
    return _mapped(spark, TEXT_ROWS, ddl, log, user_id=17, item_id=4, event_at="2024-05-01", weight="1", device=None)


def test_each_kind_of_malformed_row_is_rejected_with_its_reason(typed: dict[str, Row], texts: dict[str, Row]) -> None:
    for rows, expected in ((typed, TYPED_ROWS), (texts, TEXT_ROWS)):
        assert {name: row.reason for name, row in rows.items()} == {
            name: reason for name, (_, reason) in expected.items()
        }


def test_a_row_without_a_plausible_time_has_no_day(typed: dict[str, Row]) -> None:
    assert {name for name, row in typed.items() if row.event_date is None} == {
        "no time",
        "1970",
        "2262",
        "user and time",
    }
    assert typed["no user"].event_date == date(2024, 5, 1)


def test_weights_are_rounded_to_multiples_of_a_256th_and_may_become_zero(typed: dict[str, Row]) -> None:
    assert typed["weight to round"].weight == round(0.3 * 256) / 256
    assert typed["weight too small"].weight == 0


def test_text_times_keep_their_offset_and_naive_ones_are_utc(texts: dict[str, Row]) -> None:
    assert texts["zulu"].event_at == texts["naive"].event_at == NOON
    assert texts["offset"].event_at == datetime(2024, 5, 2, 1, 30)
    assert texts["offset"].event_date == date(2024, 5, 2)
    assert texts["date"].event_at == datetime(2024, 5, 1)


def test_numeric_ids_become_text_and_unmapped_columns_have_defaults(texts: dict[str, Row]) -> None:
    row = texts["weight as text"]
    assert (row.user_id, row.item_id, row.event_type, row.weight) == ("17", "4", "event", 2.5)
    assert (row.context_0, row.context_1) == ("(null)", "2.5")


def test_a_naive_timestamp_is_utc(spark: SparkSession, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "events.parquet", [event("u1", "i1", "2024-05-01 23:59:59")])
    log = Events(path=str(path), columns=EVENT_COLUMNS)
    source = read_source(spark, log, what="events")
    assert has_naive_time(source, log)
    assert with_validity(source, log).first().event_at == datetime(2024, 5, 1, 23, 59, 59)
    assert not has_naive_time(spark.createDataFrame([], TYPED), log)


def test_the_first_text_decides_whether_times_have_a_zone(spark: SparkSession) -> None:
    log = Events(path="log", columns=EVENT_COLUMNS)
    for texts, is_naive in (
        ([None, "2024-05-01 12:00:00", "2024-05-01T12:00:00Z"], True),
        (["2024-05-01T12:00:00.5"], True),
        (["2024-05-01"], True),
        (["2024-05-01T12:00:00Z", "2024-05-01 12:00:00"], False),
        (["2024-05-01 12:00:00+02:00"], False),
        ([], False),
    ):
        rows = [("u1", "i1", text) for text in texts]
        source = spark.createDataFrame(rows, "user_id STRING, item_id STRING, event_at STRING")
        assert has_naive_time(source, log) == is_naive, texts


def test_columns_that_cannot_be_ordered_are_json_in_the_raw_row(spark: SparkSession) -> None:
    source = spark.sql(
        "SELECT 'u' user_id, 'i' item_id, TIMESTAMP'2024-05-01' event_at, map('a', 1) `odd.name`, NULL n"
    )
    row = with_validity(source, _log()).distinct().first()
    assert row.reason is None
    assert row.raw["odd.name"] == '{"value":{"a":1}}'


def test_names_of_files_are_no_patterns(spark: SparkSession, tmp_path: Path) -> None:
    names = ["e[1]", "e1", "{a,b}", "x*", "back\\slash", "b%20 c"]
    for name in names:
        (tmp_path / name).write_text(f"note\n{name.replace(',', ';')}\n")
    log = Events(path=str(tmp_path), format="csv", columns=EVENT_COLUMNS)
    for name in names:
        rows = read_source(spark, log, what="events", files=[f"file:{tmp_path}/{name}"]).collect()
        assert [row.note for row in rows] == [name.replace(",", ";")]


@pytest.mark.parametrize("kind", ["csv", "json", "delta"])
def test_other_formats_read_as_the_same_events(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    lines = ["u1,i1,2024-05-01T12:00:00Z,0.3", ",i1,2024-05-01T13:00:00Z,1", "u2,i2,2024-05-02,much"]
    if kind == "csv":
        path.write_text("\n".join(["user_id,item_id,event_at,weight", *lines]))
    elif kind == "json":
        path.write_text(
            '{"user_id": "u1", "item_id": "i1", "event_at": "2024-05-01T12:00:00Z", "weight": 0.3}\n'
            '{"item_id": "i1", "event_at": "2024-05-01T13:00:00Z", "weight": 1}\n'
            '{"user_id": "u2", "item_id": "i2", "event_at": "2024-05-02", "weight": "much"}\n'
            '{"user_id": "u3", "item_id": "i2", "event_'
        )
    else:
        rows = [[value or None for value in line.split(",")] for line in lines]
        spark.createDataFrame(rows, "user_id STRING, item_id STRING, event_at STRING, weight STRING").write.format(
            "delta"
        ).save(str(path))
    log = Events(path=str(path), format=kind, columns={**EVENT_COLUMNS, "weight": "weight"})
    source = read_source(spark, log, what="events")
    check_columns(source.schema, event_columns(log), "events")
    rows = with_validity(source, log).collect()
    torn = [row for row in rows if row.reason == "unparsable_row"]
    assert [row.corrupt for row in torn] == (['{"user_id": "u3", "item_id": "i2", "event_'] if kind == "json" else [])
    sound = [row for row in rows if row.reason != "unparsable_row"]
    assert {(row.user_id, row.item_id, row.event_date.day, row.weight, row.reason) for row in sound} == {
        ("u1", "i1", 1, 77 / 256, None),
        (None, "i1", 1, 1.0, "missing_user_id"),
        ("u2", "i2", 2, None, "unreadable_weight"),
    }


def test_some_files_of_a_log_are_read_with_the_columns_of_the_whole(spark: SparkSession, tmp_path: Path) -> None:
    for day, more in (("01", ', "weight": 2'), ("02", "")):
        folder = tmp_path / f"day={day}"
        folder.mkdir()
        row = f'{{"user_id": 1, "item_id": 2, "event_at": "2024-05-{day}"{more}}}'
        (folder / "a.json").write_text(row)
    log = Events(path=str(tmp_path), format="json", columns={**EVENT_COLUMNS, "weight": "weight"})
    whole = read_source(spark, log, what="events")
    some = read_source(spark, log, what="events", files=[str(tmp_path / "day=02" / "a.json")], schema=whole.schema)
    assert some.columns == whole.columns
    assert [(row.reason, row.raw.day) for row in with_validity(some, log).collect()] == [("unreadable_weight", 2)]


def test_partition_columns_of_a_path_pattern_start_below_its_fixed_part(spark: SparkSession, tmp_path: Path) -> None:
    for day in ("2024-05-01", "2024-05-02", "2023-01-01"):
        write_rows(tmp_path / f"day={day}" / "a.parquet", [event("u1", "i1", day)])
    log = Events(path=f"{tmp_path}/day=2024*/*.parquet", columns=EVENT_COLUMNS)
    days = [row.day for row in read_source(spark, log, what="events").collect()]
    assert sorted(days) == [date(2024, 5, 1), date(2024, 5, 2)]


def test_all_missing_columns_are_named_together_with_those_found(spark: SparkSession) -> None:
    log = _log(user_id="customer", event_type="kind", context=["item_id", "device"])
    with pytest.raises(UsageError, match="no column 'customer'; columns found: user_id, item_id, event_at") as error:
        check_columns(
            _empty(spark, "user_id STRING, item_id STRING, event_at STRING").schema, event_columns(log), "events"
        )
    assert [fault.split(":")[0] for fault in error.value.faults] == [
        "events.columns.user_id",
        "events.columns.event_type",
        "events.columns.context[1]",
    ]


def test_all_columns_of_unsuitable_types_are_refused_together(spark: SparkSession) -> None:
    ddl = "user_id STRUCT<a: INT>, item_id ARRAY<INT>, event_at BIGINT, weight BOOLEAN"
    with pytest.raises(UsageError, match="'event_at' is bigint; expected a timestamp, a date, or text") as error:
        check_columns(_empty(spark, ddl).schema, event_columns(_log(weight="weight")), "events")
    text = str(error.value)
    assert "'user_id' is struct<a:int>; expected text or a number" in text
    assert "'item_id' is array<int>; expected text or a number" in text
    assert "'weight' is boolean; expected a number" in text


def test_a_missing_path_is_named(spark: SparkSession) -> None:
    with pytest.raises(UsageError, match=r"events.path nowhere/log: does not exist\."):
        read_source(spark, Events(path="nowhere/log", columns=EVENT_COLUMNS), what="events")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("parquet", "Could not read footer"), ("delta", "DELTA_TABLE_NOT_FOUND"), ("table", "TABLE_OR_VIEW_NOT_FOUND")],
)
def test_a_source_of_another_format_is_named_in_one_line(
    spark: SparkSession, tmp_path: Path, kind: str, reason: str
) -> None:
    (tmp_path / "a.parquet").write_text("a text, whatever its name says")
    path = "no_such_table" if kind == "table" else str(tmp_path)
    with pytest.raises(UsageError, match=f"not readable as {kind} .*{reason}") as error:
        read_source(spark, Events(path=path, format=kind, columns=EVENT_COLUMNS), what="events")
    assert "\n" not in str(error.value)


def _empty(spark: SparkSession, ddl: str) -> DataFrame:
    return spark.createDataFrame([], ddl)


def test_whole_ids_in_a_floating_point_column_become_text_without_a_decimal_point(spark: SparkSession) -> None:
    ids = spark.createDataFrame([(12346.0,), (12345678901.0,), (1.5,), (None,), (float("nan"),)], "id DOUBLE")
    found = [row.id for row in ids.select(id_text(ids, "id").alias("id")).collect()]
    assert found == ["12346", "12345678901", "1.5", None, None]


def test_times_in_text_are_those_that_the_inspection_reads_without_spark(spark: SparkSession) -> None:
    rows = [(text, "u", "i", text) for text in TIMES_BY_TEXT]
    frame = spark.createDataFrame(rows, "event_id STRING, user_id STRING, item_id STRING, event_at STRING")
    events = with_validity(frame, _log(event_id="event_id")).collect()
    assert {row.event_id or "": row.event_at for row in events} == TIMES_BY_TEXT
