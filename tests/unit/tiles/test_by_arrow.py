"""Tiles that are made without Spark are Spark's to the bit, or not made at all."""

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from tests.support.builders import EVENT_COLUMNS, at, event, write_rows
from userrep.config import EventSource
from userrep.sources.read import with_validity
from userrep.store.buckets import NUM_BUCKETS, user_bucket
from userrep.store.schemas import USER_ITEM_DAYS
from userrep.store.xxhash import bucket_of, hash64
from userrep.tiles import day_events
from userrep.tiles.by_arrow import TILES, DayTiles, tiles_of_files
from userrep.tiles.by_spark import tiles_of
from userrep.tiles.column_paths import LogColumns, columns_of
from userrep.tiles.content_hash import cells_of, content_of
from userrep.tiles.day_events import SourceFiles
from userrep.tiles.inventory.footers import day_of_file

pytestmark = pytest.mark.default

D1, D2, D3, D4 = (date(2024, 5, day) for day in (1, 2, 3, 4))
DAYS = (D1, D2, D3, D4)  # nothing happens on the last
IDS = {name: (name,) for name in ("user_id", "item_id", "event_at")}
KINDS = dict.fromkeys(("user_id", "item_id", "event_id", "event_type", "context_0"), "text")
KINDS |= {"event_at": "time", "weight": "number"}
COLUMNS = LogColumns(IDS, KINDS, context=(), fixed_type="event", source=())
WITH_ID = COLUMNS._replace(mapped=IDS | {"event_id": ("event_id",)})

BLANK = {**dict.fromkeys(range(20), ""), 20: " ", 21: "  "}  # event ids by number

Row = dict[str, Any]


# The hash


def test_a_users_bucket_is_sparks(spark: SparkSession) -> None:
    draw = random.Random(1)
    texts = ["", " ", "u1", "ü", "x" * 31, "x" * 32, "x" * 33, "x" * 64, "日本語", "\x00", "😀" * 20]
    texts += ["".join(draw.choices("aé€😀\x00 ", k=draw.randrange(90))) for _ in range(500)]
    frame = spark.createDataFrame([(k, text) for k, text in enumerate(texts)], "k INT, user_id STRING")
    found = frame.orderBy("k").select(user_bucket(), F.xxhash64("user_id").alias("hash")).collect()
    array = pa.array(["left out", *texts])[1:]
    assert bucket_of(array).tolist() == [row.user_bucket for row in found]
    assert hash64(array, seed=42).view(np.int64).tolist() == [row.hash for row in found]


def test_hash64_is_xxh64() -> None:
    assert hash64(pa.array(["", "abc"])).tolist() == [0xEF46DB3751D8E999, 0x44BC2CF5AD770999]
    assert not len(hash64(pa.array([], pa.string())))


# The same tiles as Spark's


class RandomLog:
    """A log in which copies, near copies, rejects and odd files are common, drawn by a seed."""

    def __init__(self, seed: int, folder: Path, *, event_id: str | None, numbers: str | None, context: bool) -> None:
        self.draw = random.Random(seed)
        self.numbers, self.has_context, self.event_id = numbers, context, event_id
        self.nested = event_id == "number"
        self.has_weight, self.has_type = self.draw.random() < 0.8, self.draw.random() < 0.7
        names = {"user_id": "user.id" if self.nested else "user_id", "item_id": "item", "event_at": "at"}
        names |= {"event_type": "kind"} if self.has_type else {}
        names |= {"weight": "weight"} if self.has_weight else {}
        names |= {"event_id": "eid"} if event_id else {}
        context_names = ["device", "place"] if context else []
        self.log = EventSource(path=str(folder), columns={**names, "context": context_names})
        self.rows = [self._row() for _ in range(140)]
        self.rows += [self._like(self.draw.choice(self.rows)) for _ in range(100)]
        self.draw.shuffle(self.rows)
        self.paths = []
        for k in range(5):
            rows = self.rows[48 * k : 48 * k + 48]
            if k >= 3:  # like most logs: a file of one day
                rows = [row for row in rows if row["at"] is not None and row["at"].date() == (D1, D2)[k - 3]]
            self.paths.append(self._write(folder / f"{k}.parquet", rows, k))

    def _row(self) -> Row:
        draw = self.draw
        day = draw.choice([D1, D2, D3])
        when = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(
            hours=draw.choice([0, 5, 6, 12, 23]), microseconds=draw.choice([0, 0, 1, 3_599_999_999])
        )
        odd = [at("1970-01-01"), at("2199-05-05"), at("2500-05-05"), at("1969-12-31 23:00:00")]
        if draw.random() < 0.05:
            when = draw.choice(
                [None, *(time.replace(tzinfo=UTC) for time in odd), datetime.now(UTC) + timedelta(days=2)]
            )
        users = [1, 2, 3, 40, None] if self.numbers else ["u1", "ü2", "u10", "u" * 40, "", "  ", " u1", "\t", None]
        return {
            "user": draw.choices(users, [9, 9, 9, 9, *([1] * (len(users) - 4))])[0],
            "item": draw.choices(["i1", "i2", "i10", " ", None], [9, 9, 9, 1, 1])[0],
            "at": when,
            "kind": draw.choices(["play", "skip", "", None], [9, 9, 2, 1])[0],
            "weight": draw.choices(
                [0.0, -0.0, 0.3, 7.7, 1 / 512, 3 / 512, None, float("nan"), float("inf"), -0.001, 2.0**1016],
                [9, 9, 9, 9, 9, 9, 1, 1, 1, 1, 1],
            )[0],
            "eid": draw.choice(([] if self.nested else [None] * 90) + list(range(400))),
            "device": draw.choice(["tv", "phone", None, None if self.event_id else "(null)"]),
            "place": draw.choice([1, 2, None]),
            "row": draw.choice(["a", "b", None]),
            "score": draw.choice([0.0, -0.0, float("nan"), None, 1.0]),
        }

    def _like(self, row: Row) -> Row:
        """Copy a row, all of it or nearly."""
        rest = ["item"] if self.event_id else ["item", "weight", "device"] * 5
        name = self.draw.choice(["none"] * 20 + ["at", "row", "score"] * 10 + rest)
        return row if name == "none" else row | {name: self._row()[name]}

    def _write(self, path: Path, rows: list[Row], k: int) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        integer = pa.int32() if k == 1 else pa.int64()
        ids = {None: pa.string(), "BIGINT": integer, "DECIMAL(38,0)": pa.decimal128(38)}[self.numbers]
        number = pa.int32() if k == 2 else pa.int64()
        times = pa.timestamp("ms" if k == 2 else "us", "UTC")
        values = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
        ats = pa.array(values.get("at", []), pa.timestamp("us", "UTC")).cast(times, safe=False)
        users = pa.array(values.get("user", []), ids)
        table = {  # a log's own column may have any name, such as "row"
            "at": ats,
            "row": pa.array(values.get("row", []), pa.string()),
            "item": pa.array(values.get("item", []), pa.string()),
            "kind": pa.array(values.get("kind", []), pa.string()),
            "weight": pa.array(values.get("weight", []), pa.float64()),
            "device": pa.array(values.get("device", []), pa.string()),
            "place": pa.array(values.get("place", []), number),
            "score": pa.array(values.get("score", []), pa.float64()),
        }
        if self.nested:
            table["user"] = pa.StructArray.from_arrays(
                [users, ats], ["id", "seen"], mask=pa.array([u is None for u in users.to_pylist()], pa.bool_())
            )
            table["eid"] = pa.array(values.get("eid", []), number)
        else:
            table["user_id"] = users
        if self.event_id == "text":
            eids = [None if e is None else BLANK.get(e, f"e{e}") for e in values.get("eid", [])]
            table["eid"] = pa.array(eids, pa.string())
        if k == 0:
            del table["row"]
        if k == 0 and not self.event_id:  # else copies in other files would differ from it
            del table["device"]
        if k == 1:
            table["item"] = table["item"].dictionary_encode()
        pq.write_table(pa.table(table), path, row_group_size=20, use_deprecated_int96_timestamps=k == 3)
        return str(path)

    def source(self, spark: SparkSession) -> Any:
        """Read the log as one table of all its columns."""
        ids = self.numbers or "STRING"
        more = {
            None: f"user_id {ids}",
            "text": f"user_id {ids}, eid STRING",
            "number": f"user STRUCT<id: {ids}, seen: TIMESTAMP>, eid BIGINT",
        }
        schema = (
            "at TIMESTAMP, row STRING, item STRING, kind STRING, weight DOUBLE, device STRING, place BIGINT, "
            f"score DOUBLE, {more[self.event_id]}"
        )
        return spark.read.schema(schema).parquet(*self.paths)


def _tile_rows(rows: list[Row]) -> dict[tuple[Any, ...], Row]:
    keys = ("event_date", "user_bucket", "user_id", "item_id", "event_type")
    found = {tuple(row.pop(key) for key in keys): row | {"weight": row["weight"].hex()} for row in rows}
    assert len(found) == len(rows)
    return found


def _of_direct(days: list[DayTiles]) -> dict[tuple[Any, ...], Row]:
    rows = []
    for day in days:
        if day.tiles is None:
            continue
        assert day.tiles.schema.equals(TILES)
        table = day.tiles.to_pylist()
        order = [(r["user_bucket"], *(r[k].encode() for k in ("user_id", "item_id", "event_type"))) for r in table]
        assert order == sorted(order)
        for row in table:
            pairs = row["num_by_context"]
            assert pairs is None or [key for key, _ in pairs] == sorted(key for key, _ in pairs)
            rows.append({"event_date": day.day, **row, "num_by_context": None if pairs is None else dict(pairs)})
    return _tile_rows(rows)


def _undecided(checked: list[Any], contexts: int) -> set[date]:
    """Return the days on which the latest valid rows of an event id differ."""
    latest: dict[Any, tuple[Any, set[Any]]] = {}
    for row in checked:
        if row.event_id is None or row.reason is not None:
            continue
        key = (row.event_date, row.event_id)
        value = (row.user_id, row.item_id, row.event_type, row.weight, *(row[f"context_{k}"] for k in range(contexts)))
        when, values = latest.get(key, (row.event_at, set()))
        if row.event_at >= when:
            latest[key] = (row.event_at, {*(values if row.event_at == when else ()), value})
    return {key[0] for key, (_, values) in latest.items() if len(values) > 1}


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(seed=575, event_id="number", numbers=None, context=False)  # copies differ on the day after tomorrow
@example(seed=1, event_id=None, numbers="DECIMAL(38,0)", context=True)
@given(
    seed=st.integers(0, 2**32),
    event_id=st.sampled_from(["text", "number", None, None]),
    numbers=st.sampled_from([None, "BIGINT", "DECIMAL(38,0)"]),
    context=st.booleans(),
)
def test_tiles_are_those_of_spark(
    spark: SparkSession,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    event_id: str | None,
    numbers: str | None,
    context: bool,
) -> None:
    made = RandomLog(seed, tmp_path_factory.mktemp("log"), event_id=event_id, numbers=numbers, context=context)
    source, log = made.source(spark), made.log
    names = log.columns.context
    checked = with_validity(source, log)
    rows = checked.where("event_date IS NOT NULL").drop("raw").collect()
    tiles = tiles_of(
        checked.where("event_date IS NOT NULL AND reason IS NULL"),
        context=names,
        has_event_id=event_id is not None,
        slices=1,
        tasks=1,
    )
    columns = columns_of(source.schema, log)
    assert columns is not None
    days = [*DAYS, date(2199, 5, 5)]  # not the day after tomorrow, which some rows have
    found = list(tiles_of_files([SourceFiles({path: set(days) for path in made.paths}, columns)]))
    assert [day.day for day in found] == days
    num_rejected = Counter(row.event_date for row in rows if row.reason is not None)
    undecided = {day.day for day in found if day.tiles is None}
    by_arrow = [day for day in found if day.tiles is not None]
    assert {day.day: day.num_rejected for day in by_arrow} == {day.day: num_rejected[day.day] for day in by_arrow}
    assert undecided == _undecided(rows, len(names)) & set(days)
    expected = [row.asDict() for row in tiles.drop("user_slice").collect()]
    for row in expected:
        row["last_event_at"] = row["last_event_at"].replace(tzinfo=UTC)
    assert _of_direct(found) == _tile_rows([r for r in expected if r["event_date"] in set(days) - undecided])


def test_the_columns_are_those_of_the_table_but_for_its_partitions() -> None:
    table = [column.split()[0] for column in USER_ITEM_DAYS.columns.replace("\n", " ").split(", ")]
    assert TILES.names == [name for name in table if name not in USER_ITEM_DAYS.partition_by]


# Days


def _one(path: Path, day: date = D1, columns: LogColumns = COLUMNS) -> DayTiles:
    """Build the tiles of a day of a log of one file."""
    source = columns.source or tuple(pq.read_schema(path).names)
    return next(tiles_of_files([SourceFiles({str(path): [day]}, columns._replace(source=source))]))


def test_a_day_may_lie_in_several_files_and_a_day_without_rows_has_no_tiles(tmp_path: Path) -> None:
    paths = [
        write_rows(tmp_path / "a.parquet", [event("u1", "i1", "2024-05-02"), event("u1", "i1", "2024-05-01")]),
        write_rows(tmp_path / "b.parquet", [event("u1", "i1", "2024-05-02 07:00:00"), event("u2", " ", "2024-05-03")]),
    ]
    found = list(tiles_of_files([SourceFiles({str(path): {D4, D3, D2} for path in paths}, COLUMNS)]))
    assert [(day.day, day.num_rejected) for day in found] == [(D2, 0), (D3, 1), (D4, 0)]
    assert [day.tiles.num_rows for day in found if day.tiles is not None] == [1, 0, 0]
    assert found[0].tiles is not None
    tile = found[0].tiles.to_pylist()[0]
    assert (tile["num_events"], tile["num_night"], tile["num_morning"], tile["event_type"]) == (2, 1, 1, "event")
    assert tile["num_by_context"] is None


def test_row_groups_of_other_days_are_not_read(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["a", "b"], "item_id": ["i", "i"], "event_at": [at("2024-05-01"), at("2024-05-02")]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1, compression="none")
    content = (tmp_path / "a.parquet").read_bytes()
    start = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0).dictionary_page_offset
    (tmp_path / "a.parquet").write_bytes(content[:start] + b"\xff" * 8 + content[start + 8 :])
    tiles = _one(tmp_path / "a.parquet", D2).tiles
    assert tiles is not None
    assert tiles["user_id"].to_pylist() == ["b"]


def test_in_folders_of_days_a_day_of_which_a_file_has_other_rows_needs_spark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = tmp_path / "torn" / "a.parquet"
    torn.parent.mkdir()
    torn.write_bytes(b"PAR1")
    folder_days = {
        str(write_rows(tmp_path / name / "a.parquet", rows)): day
        for name, day, rows in (
            ("well", D1, [event("u1", "i1", "2024-05-01"), event(None, "i1", "2024-05-01")]),
            ("more", D1, [event("u2", "i1", "2024-05-01 23:59:59")]),
            ("stray", D2, [event("u3", "i1", "2024-05-02"), event("u3", "i1", "2024-05-01")]),
            ("none", D3, [event("u4", "i1", "2024-05-03"), event("u4", "i1", None)]),
            ("other", D4, [event("u5", "i1", "2024-05-01")]),
        )
    } | {str(torn): date(2024, 5, 5)}  # fmt: skip
    days_by_path = {path: {day} for path, day in sorted(folder_days.items())}
    in_folders = COLUMNS._replace(in_folders=True)
    found = list(tiles_of_files([SourceFiles(days_by_path, in_folders)]))
    assert [(of.day.day, of.tiles is None) for of in found] == [(1, False), (2, True), (3, True), (4, True), (5, True)]
    assert found[0].tiles is not None
    assert (found[0].tiles["user_id"].to_pylist(), found[0].num_rejected) == (["u1", "u2"], 1)
    monkeypatch.setattr(day_events, "MAX_ROWS", 2)
    assert next(tiles_of_files([SourceFiles(days_by_path, in_folders)])).tiles is None


def test_users_of_one_bucket_are_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    users = [f"u{k}" for k in range(6000)]
    path = write_rows(tmp_path / "a.parquet", [event(user, "i", "2024-05-01") for user in users])
    tiles = _one(path).tiles
    assert tiles is not None
    found = list(zip(tiles["user_bucket"].to_pylist(), tiles["user_id"].to_pylist(), strict=True))
    assert found == sorted(zip(bucket_of(pa.array(users)).tolist(), users, strict=True))
    assert len({bucket for bucket, _ in found}) < len(users)


# Days that need Spark


@pytest.mark.parametrize("blank", ["", "  "])
def test_rows_with_a_blank_event_id_are_copies_only_if_all_columns_are_equal(tmp_path: Path, blank: str) -> None:
    path = write_rows(tmp_path / "a.parquet", _copies(blank, blank, blank, "e", "e", note=["a", "a", "b", "c", "c"]))
    tiles = _one(path, columns=WITH_ID._replace(source=(*WITH_ID.source, "note"))).tiles
    assert tiles is not None
    assert tiles["num_events"].to_pylist() == [3]


def _copies(*ids: str | None, **values: list[Any]) -> list[Row]:
    rows = [event("u1", "i1", "2024-05-01", event_id=event_id) for event_id in ids]
    return [row | {name: value[k] for name, value in values.items()} for k, row in enumerate(rows)]


def test_latest_rows_of_an_id_that_differ_need_spark(tmp_path: Path) -> None:
    columns = WITH_ID._replace(mapped=WITH_ID.mapped | {"weight": ("weight",)})
    path = write_rows(tmp_path / "a.parquet", _copies("e", "e", "f", weight=[1.0, 2.0, 3.0]))
    assert _one(path, columns=columns) == DayTiles(D1, None, 0)
    rows = _copies("e", "e", "f", weight=[1.0, 1.0, 3.0], note=["a", "b", "c"])
    tiles = _one(write_rows(path, rows), columns=columns).tiles
    assert tiles is not None
    assert tiles["weight"].to_pylist() == [4.0]


@pytest.mark.parametrize("columns", [COLUMNS, WITH_ID])
def test_likely_copies_need_spark_where_a_column_cannot_be_compared(tmp_path: Path, columns: LogColumns) -> None:
    path = write_rows(tmp_path / "a.parquet", _copies(None, None, "e", tags=[["a"], ["a"], ["b"]]))
    assert _one(path, columns=columns).tiles is None
    rows = [event("u1", "i1", f"2024-05-01 0{k}:00:00", event_id="f" * k or None, tags=["a"]) for k in range(2)]
    assert _one(write_rows(path, rows), columns=columns).tiles is not None


def test_rows_are_compared_by_the_columns_of_the_log_not_of_the_file(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", _copies("e", "e", note=["a", "a"], batch=[1, 2], row=[3, 3]))
    for source, num_events in (((), 2), (("user_id", "item_id", "event_at", "note", "row"), 1)):
        tiles = _one(path, columns=COLUMNS._replace(source=source)).tiles
        assert tiles is not None
        assert tiles["num_events"].to_pylist() == [num_events]
    for names in (["user_id", "NOTE"], ["user_id", "note", "gone"]):
        tiles = _one(path, columns=COLUMNS._replace(source=tuple(names))).tiles
        assert (tiles is None) == ("NOTE" in names)


def test_texts_of_one_time_are_not_copies(tmp_path: Path) -> None:
    rows = [
        dict(event("u1", "i1", "2024-05-01"), event_at=text)
        for text in ("2024-05-01", "2024-05-01", "2024-05-01 00:00")
    ]
    columns = COLUMNS._replace(source=("user_id", "item_id", "event_at"), kinds=KINDS | {"event_at": "text"})
    tiles = _one(write_rows(tmp_path / "a.parquet", rows), columns=columns).tiles
    assert tiles is not None
    assert tiles["num_events"].to_pylist() == [2]


def test_likely_copies_in_folders_of_two_values_need_spark(tmp_path: Path) -> None:
    paths = [str(write_rows(tmp_path / f"place={k}" / "a.parquet", _copies(None))) for k in range(2)]
    assert next(tiles_of_files([SourceFiles({path: [D1] for path in paths}, COLUMNS)])).tiles is None
    assert next(tiles_of_files([SourceFiles({paths[0]: [D1]}, COLUMNS)])).tiles is not None


def _file(folder: Path, *, drop: str = "", **columns: Any) -> Path:
    """Write a file of two days, D1 and D3, with some columns of another kind."""
    times = [at("2024-05-01"), at("2024-05-03")]
    values = {"user_id": ["1", "2"], "item_id": ["i", "j"], "event_at": times, **columns}
    values.pop(drop, None)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(values), folder / "odd.parquet")
    return folder / "odd.parquet"


@pytest.mark.parametrize(
    "columns",
    [
        {"item_id": [1.5, 2.5]},
        {"item_id": [b"i", b"j"]},
        {"item_id": pa.array([1, 2], pa.uint64())},
        {"item_id": [None, None]},
        {"ITEM_ID": ["i", "j"]},
        {"drop": "item_id"},
        {"drop": "item_id", "Item_ID": ["i", "j"]},
        {"user_id": [1, 2]},
        {"event_type": [True, False]},
        {"weight": ["1", "2"]},
        {"weight": [1, 2**53 + 1]},
    ],
    ids=", ".join,
)
def test_a_file_with_a_column_of_another_kind_needs_spark_on_its_days(tmp_path: Path, columns: Row) -> None:
    plain = write_rows(tmp_path / "a.parquet", [event("u", "i", f"2024-05-0{k}", weight=1.0) for k in (1, 4)])
    odd = _file(tmp_path / "odd", **columns)
    log = COLUMNS._replace(mapped=IDS | {name: (name,) for name in ("event_type", "weight")})
    found = {day.day: day for day in tiles_of_files([SourceFiles({str(plain): {D1, D4}, str(odd): {D1, D3}}, log)])}
    assert [found[day].tiles is None for day in (D1, D3, D4)] == [True, True, False]


def test_a_column_that_should_have_fields_and_has_none_needs_spark(tmp_path: Path) -> None:
    columns = COLUMNS._replace(context=("event.id",), mapped=IDS | {"context_0": ("event", "id")})
    assert _one(_file(tmp_path, event=["a", "b"]), columns=columns).tiles is None
    tiles = _one(_file(tmp_path, event=[{"other": 1}, None]), columns=columns).tiles
    assert tiles is not None
    assert tiles["num_by_context"].to_pylist() == [[("event.id=(null)", 1)]]


@pytest.mark.parametrize(
    "columns",
    [
        {"event_at": ["2024-05-01", "2024-05-03"]},
        {"event_at": pa.array([at("2024-05-01"), at("2024-05-03")], pa.timestamp("ns"))},
        {"drop": "event_at"},
        {"EVENT_AT": [1, 2]},
    ],
    ids=", ".join,
)
def test_a_file_whose_times_cannot_be_read_needs_spark_on_all_days(tmp_path: Path, columns: Row) -> None:
    odd = _file(tmp_path, **columns)
    assert [day.tiles for day in tiles_of_files([SourceFiles({str(odd): {D1, D2}}, COLUMNS)])] == [None, None]


def test_a_mapped_column_that_is_a_folders_name_needs_spark(tmp_path: Path) -> None:
    log = COLUMNS._replace(mapped=IDS | {"event_type": ("event_type",)})
    assert _one(_file(tmp_path / "event_type=play", event_type=["skip", "skip"]), columns=log).tiles is None
    assert _one(_file(tmp_path / "Event_Type=play"), columns=log).tiles is None
    assert _one(_file(tmp_path / "event_type=play"), columns=COLUMNS).tiles is not None


# Which logs


def _schema(**kinds: str | T.DataType) -> T.StructType:
    schema = T.StructType()
    for name, kind in {"user_id": "string", "item_id": "long", "event_at": "timestamp", **kinds}.items():
        schema.add(name, kind)
    return schema


NESTED = T.StructType().add("id", "string")


def _log(columns: dict[str, Any] | None = None, **settings: Any) -> EventSource:
    return EventSource(path="log", columns=EVENT_COLUMNS | (columns or {}), **settings)


def test_columns_are_mapped_by_their_names_on_the_way(spark: SparkSession) -> None:
    log = _log({"event_id": "event.id", "context": ["device.kind"]}, event_type="play")
    schema = _schema(**{"event": NESTED, "device.kind": "string"})
    found = columns_of(schema, log)
    assert found == LogColumns(
        mapped=IDS | {"event_id": ("event", "id"), "context_0": ("device.kind",)},
        kinds={"user_id": "text", "item_id": "integer", "event_at": "time", "event_id": "text", "context_0": "text"},
        context=("device.kind",),
        fixed_type="play",
        source=("user_id", "item_id", "event_at", "event", "device.kind"),
    )


@pytest.mark.parametrize(
    ("schema", "log"),
    [
        (_schema(), _log(format="table")),
        (_schema(day="date"), _log(partition={"column": "day", "holds": "ingestion_date"})),
        (_schema(event_at="date"), _log()),
        (_schema(event_at="timestamp_ntz"), _log(time_zone="Europe/Berlin")),
        (_schema(user_id="double"), _log()),
        (_schema(item_id=T.DecimalType(20, 2)), _log()),
        (_schema(kind="boolean"), _log({"event_type": "kind"})),
        (_schema(id="date"), _log({"event_id": "id"})),
        (_schema(device="float"), _log({"context": ["device"]})),
        (_schema(weight=T.DecimalType(9, 2)), _log({"weight": "weight"})),
        (_schema(user=NESTED), _log()),
        (_schema(photo="binary"), _log()),
        (_schema(tags=T.ArrayType(T.StringType())), _log()),
        (_schema(name=T.StringType("UTF8_LCASE")), _log()),
        (_schema(_corrupt_record="string"), _log()),
        (_schema(**{"a": "string", "a=b": "string"}), _log({"context": ["a", "a=b"]})),
    ],
    ids=str,
)
def test_other_logs_are_not_read_without_spark(schema: T.StructType, log: EventSource) -> None:
    assert columns_of(schema, log) is None


def test_plain_logs_are_read_without_spark() -> None:
    every = {name: name for name in ("boolean", "date", "timestamp_ntz", "float", "double", "byte", "decimal")}
    assert columns_of(_schema(**every), _log(format="delta")) is not None
    assert columns_of(_schema(event_at="timestamp_ntz", weight="float"), _log({"weight": "weight"})) is not None
    assert columns_of(_schema(), _log(time_zone="Europe/Berlin")) is not None
    assert columns_of(_schema(day="date"), _log(partition={"column": "day", "holds": "event_date"})) is not None
    assert columns_of(_schema(item_id=T.DecimalType(38, 0)), _log()) is not None
    assert columns_of(_schema(user=NESTED, id="string"), _log({"event_id": "id"})) is not None


@pytest.mark.parametrize("log_format", ["json", "csv", "parquet"])
def test_times_and_weights_in_text_are_read_without_spark(log_format: str) -> None:
    log = _log({"weight": "weight"}, format=log_format, time_zone="Europe/Berlin")
    found = columns_of(_schema(item_id="string", event_at="string", weight="string", _corrupt_record="string"), log)
    if log_format == "parquet":  # the column of another log's name for unparsable rows
        assert found is None
        return
    assert found is not None
    assert (found.kinds["event_at"], found.kinds["weight"]) == ("text", "text")
    assert (found.format, found.time_zone, "_corrupt_record" in found.source) == (log_format, "Europe/Berlin", False)


# Footers


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["2024-05-01", "2024-05-01 23:59:59.999999"], (D1, 2)),
        (["2024-05-01", "2024-05-02"], None),
        (["2024-05-01", None], None),
        (["1970-01-01"], None),
        (["2200-01-02"], None),
        ([], None),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("ms", "UTC")], ids=str)
def test_a_footer_shows_the_day_of_a_file(
    tmp_path: Path, times: list[str | None], expected: tuple[date, int] | None, kind: pa.DataType
) -> None:
    values = pa.array([at(time) if time else None for time in times], pa.timestamp("us")).cast(kind, safe=False)
    nested = pa.StructArray.from_arrays([values], ["at"])
    pq.write_table(pa.table({"event_at": values, "event": nested}), tmp_path / "a.parquet", row_group_size=1)
    for path in ("event_at", "event.at"):
        assert day_of_file(str(tmp_path / "a.parquet"), path) == expected


def test_a_footer_without_statistics_of_times_shows_no_day(tmp_path: Path) -> None:
    table = pa.table({"event_at": [at("2024-05-01")], "text": ["2024-05-01"], "number": [1_714_521_600_000_000]})
    pq.write_table(table, tmp_path / "a.parquet")
    names = ("text", "number", "gone")
    assert [day_of_file(str(tmp_path / "a.parquet"), name) for name in names] == [None] * 3
    for settings_of_writer in ({"write_statistics": False}, {"use_deprecated_int96_timestamps": True}):
        pq.write_table(table, tmp_path / "b.parquet", **settings_of_writer)
        assert day_of_file(str(tmp_path / "b.parquet"), "event_at") is None
        assert _one(_file(tmp_path / "c")).tiles is not None


# What tiles hold


def _tiles() -> pa.Table:
    rows = [
        {"user_bucket": k, "user_id": f"u{k}", "item_id": "i", "event_type": "play", "num_events": 1, "weight": 0.5 * k,
         "last_event_at": datetime(2024, 5, 1, k, tzinfo=UTC), "num_night": 1, "num_morning": 0, "num_afternoon": 0,
         "num_evening": 0, "num_by_context": None if k == 3 else [("a", 1), ("b", k)][: k + 1]}
        for k in range(4)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, TILES)


def test_content_does_not_depend_on_order_or_chunks(tmp_path: Path) -> None:
    tiles = _tiles()
    same = [
        tiles.take([3, 1, 0, 2]),
        pa.concat_tables([tiles[2:], tiles[:2]]),
        tiles.select(TILES.names[::-1]),
        tiles.set_column(4, "num_events", tiles["num_events"].cast(pa.int64())),
    ]
    assert {content_of(other) for other in same} == {content_of(tiles)}
    assert content_of(tiles[:0]) == 0
    assert 0 <= content_of(tiles) < 2**64
    assert content_of(tiles.set_column(1, "user_id", tiles["user_id"].dictionary_encode())) == content_of(tiles)
    swapped = tiles.set_column(
        11,
        "num_by_context",
        pa.array([[("a", 1)], [("b", 1), ("a", 1)], [("a", 1), ("b", 2)], None], TILES.field(11).type),
    )
    assert content_of(swapped) == content_of(tiles)


@pytest.mark.parametrize("name", TILES.names)
def test_content_depends_on_each_column(name: str) -> None:
    tiles = _tiles()
    place, kind = TILES.names.index(name), TILES.field(name).type
    old = tiles[name].to_pylist()
    other: dict[str, Any] = {
        "weight": 9.0,
        "last_event_at": datetime(2024, 5, 2, tzinfo=UTC),
        "num_by_context": [("a", 2)],
    }
    text = "other" if pa.types.is_dictionary(kind) else 77
    hashes = {content_of(tiles), content_of(tiles[:-1])}
    for k in range(4):
        values = [*old[:k], other.get(name, text), *old[k + 1 :]]
        hashes.add(content_of(tiles.set_column(place, name, pa.array(values, kind))))
    assert len(hashes) == 6


def test_a_map_that_is_empty_is_not_one_that_is_missing() -> None:
    empty, missing = (pa.table({"num_by_context": pa.array([value], TILES.field(11).type)}) for value in ([], None))
    assert content_of(empty) != content_of(missing)


def test_cells_count_tiles_by_range_of_buckets() -> None:
    buckets = pa.table({"user_bucket": pa.array([0, 1, NUM_BUCKETS // 4, NUM_BUCKETS - 1], pa.int32())})
    assert cells_of(buckets, 4) == {0: 2, 1: 1, 3: 1}
    assert cells_of(buckets[:0], 4) == {}
