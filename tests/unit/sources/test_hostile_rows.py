"""Hostile rows and messages: each is accepted or kept with a reason, and none stops the reader.

All are in one DataFrame, since a query costs more than thousands of rows.
"""

import copy
import gzip
import json
import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from tests.support.builders import config_of
from tests.support.hostile import EVIL, TIMES, is_one_line, refusal, spoil_tree, spoilt_bytes
from userrep.config import Config, EventSource
from userrep.errors import UsageError
from userrep.sources.columns import check_columns, event_columns
from userrep.sources.read import CORRUPT, read_source, with_validity
from userrep.store.open import open_tables
from userrep.store.schemas import REJECTED_EVENTS, TILE_DAYS
from userrep.streaming.query import rejected
from userrep.streaming.records import checked_rows
from userrep.streaming.sources import _parsed_messages
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory
from userrep.tiles.ledger import read_tiles

pytestmark = pytest.mark.default

SEED = 20240501
COLUMNS = {
    "user_id": "user_id", "item_id": "item_id", "event_at": "event_at", "event_id": "event_id", "weight": "weight",
    "event_type": "event_type", "context": ["device"],
}  # fmt: skip
REASONS = {
    "unparsable_row", "unreadable_event_at", "implausible_event_at", "missing_user_id",
    "missing_item_id", "missing_event_type", "unreadable_weight", "negative_weight", "ahead_of_the_clock",
}  # fmt: skip
GOOD: dict[str, Any] = {
    "event_id": "x", "user_id": "u1", "item_id": "i1", "event_at": "2024-05-01T12:00:00", "event_type": "play",
    "weight": 1.0, "device": "tv",
}  # fmt: skip
WHENS = [
    "1969-12-31 23:59:59", "1970-01-01", "1970-01-01T00:00:00Z", "1971-01-01", "2262-04-11 23:47:16.854775807",
    "2262-04-12",
    "2199-12-31", "9999-12-31 23:59:59.999999", "+10000-01-01", "-0001-01-01", "0000-00-00", "2024-02-30", "2023-02-29",
    "2024-06-30 23:59:60", "2016-12-31T23:59:60Z", "2024-03-31 02:30:00", "2024-10-27 02:30:00",
    "2024-10-27 02:30:00+01:00",
    "2024-05-01 24:00:00", "2024-05-01 25:61:61", "2024-05-01T12:00:00+18:01", "2024-05-01 12:00:00 Europe/Berlin",
    "2024-05-01 12:00:00 Nowhere/Town", "1714564800", "1714564800000", "12:30", "now", "yesterday", "epoch",
    "infinity", "294247-01-10",
]  # fmt: skip
NUMBERS = [
    "nan",
    "NaN",
    "Infinity",
    "-inf",
    "1e308",
    "1e309",
    "-1e-320",
    "-0.0",
    "-1",
    "0x10",
    "1_000",
    "١٢",
    "1" * 400,
    "1,5",
    "",
]


def message(random: Random, k: int) -> bytes | None:
    """Make a message: valid, with a corrupted tree or corrupted bytes, or unlike anything a producer would send."""
    tree = copy.deepcopy(GOOD) | {"event_id": str(k)}
    match random.randrange(8):
        case 0:
            return json.dumps(tree).encode()
        case 1 | 2:
            for _ in range(random.randrange(1, 4)):
                spoil_tree(tree, random)
            return json.dumps(tree).encode("utf-8", "surrogatepass")
        case 3 | 4:
            return spoilt_bytes(json.dumps(tree).encode(), random)
        case 5:
            tree[random.choice(list(tree))] = random.choice([*WHENS, *NUMBERS, *EVIL])
            return json.dumps(tree, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
        case 6:
            twice = (
                json.dumps(tree)[:-1]
                + f", {json.dumps(random.choice(list(tree)))}: {json.dumps(random.choice(WHENS))}}}"
            )
            return twice.encode(random.choice(["utf-8", "utf-16", "utf-32", "utf-8-sig"]))
    depth = random.choice([10, 1_000, 100_000])
    return random.choice([
        None, b"", b"null", b"[]", b"{}", b"0", b'""', b"[" * depth, b'{"user_id":' * depth,
        b'{"a":[' * 500 + b"1" + b"]}" * 500,
        b'{"user_id": {"a": 1}, "item_id": ["i"], "event_at": {}}', b'{"weight": ' + b"9" * 5_000 + b"}",
        b'{"weight": 1e999999999}',
        gzip.compress(b"{}"), random.randbytes(200), b"{'user_id': 'u'}", b'{"user_id": "u" /* c */}',
        b'{"user_id": NaN}',
        b'{"user_id": "\\ud800"}', b'{"\\u0000": 1}', json.dumps(GOOD).encode() * 2,
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        b'{"user_id": "' + b"u" * (1 << 20) + b'"}', json.dumps(GOOD | {"_corrupt_record": "x",
        "__origin": "y"}).encode(),
    ])  # fmt: skip


TYPES = [
    {"event_at": "TIMESTAMP", "weight": "DOUBLE"},
    {
        "event_id": "BIGINT", "user_id": "DOUBLE", "item_id": "INT", "event_at": "TIMESTAMP_NTZ",
        "event_type": "BOOLEAN",
        "weight": "DECIMAL(5,2)", "device": "DATE",
    },
    {},
]  # fmt: skip


@pytest.mark.parametrize("types", TYPES, ids=["typed", "narrow", "text"])
def test_every_message_is_counted_or_kept_with_a_reason(
    spark: SparkSession, tmp_path: Path, types: dict[str, str]
) -> None:
    random = Random(SEED)
    now = datetime.now(UTC)
    rows = [(message(random, k), now, "t", 0, k) for k in range(1000 * TIMES)]
    messages = spark.createDataFrame(
        rows, "value BINARY, timestamp TIMESTAMP, topic STRING, partition INT, offset BIGINT"
    )
    schema = ", ".join(f"{name} {types.get(name, 'STRING')}" for name in GOOD)
    columns = T.StructType.fromDDL(schema).add(CORRUPT, T.StringType())
    config = config_of(tmp_path, events={"columns": COLUMNS})
    checked = checked_rows(
        {"events": _parsed_messages(messages, columns)}, config, is_own_source=True, since=date(2024, 1, 1)
    )
    counts = Counter(row.reason for row in checked.select("reason").collect())
    assert sum(counts.values()) == len(rows), f"seed {SEED}"
    assert counts.keys() <= REASONS | {None}, f"seed {SEED}"
    assert counts[None] >= (0 if "device" in types else 20)  # narrow types fit hardly any row
    assert counts["unparsable_row"] > 100
    kept = (
        rejected(checked, since=date(1971, 1, 1))
        .selectExpr("reason", "get_json_object(row, '$.place') AS place")
        .collect()
    )
    assert len({row.place for row in kept}) == len(kept) == len(rows) - counts[None]
    good = checked.where("reason IS NULL").selectExpr(
        "min(length(trim(user_id)))", "min(length(trim(record.item_id)))", "min(record.weight)",
        "max(abs(record.weight)) < 1e306",
        "min(at) >= TIMESTAMP'1971-01-01'", "max(at) <= current_timestamp() + INTERVAL 1 HOUR",
    ).first()  # fmt: skip
    assert good is not None
    assert counts[None] == 0 or (good[0] > 0, good[1] > 0, good[2] >= 0, *good[3:]) == (True,) * 6


def expected_reason(row: dict[str, Any]) -> str | None:
    """Return in plain Python why a row of typed columns is rejected; None if it is valid."""
    at, weight = row["event_at"], row["weight"]
    if at is None:
        return "unreadable_event_at"
    if not datetime(1971, 1, 1) <= at <= datetime(2200, 1, 1):
        return "implausible_event_at"
    for name in ("user_id", "item_id"):
        if not (row[name] or "").strip(" "):
            return f"missing_{name}"
    if row["event_type"] is None:
        return "missing_event_type"
    if weight is None or weight != weight or abs(weight) * 256 == float("inf"):
        return "unreadable_weight"
    return "negative_weight" if weight < 0 else None


def hostile_row(random: Random, k: int) -> dict[str, Any]:
    row = GOOD | {"event_id": f"e{k}", "event_at": datetime(2024, 5, 1 + k % 3, 12), "user_id": f"u{k % 7}"}
    texts = [text for text in EVIL if text.isprintable() or text in ("\0", "a\nb", "\r\n", "\ufeff")]
    texts = [text for text in texts if "\ud800" not in text]
    for name in random.sample(sorted(row), random.randrange(3)):
        if name == "event_at":
            row[name] = random.choice([
                None, datetime(1970, 1, 1), datetime(1971, 1, 1), datetime(1, 1, 1), datetime(2262, 4, 11, 23, 47,
                16), datetime(2199, 1, 1),
                datetime(9999, 12, 31, 23, 59, 59, 999_999), datetime(2024, 5, 2, 23, 59, 59, 999_999), datetime(2024,
                3, 31, 2, 30),
            ])  # fmt: skip
        elif name == "weight":
            row[name] = random.choice(
                [None, float("nan"), float("inf"), -float("inf"), -1.0, -0.0, 5e-324, 1e300, 1e308, 1e-9]
            )
        else:
            row[name] = random.choice([None, *texts])
    return row


@pytest.mark.full
def test_rejected_rows_are_counted_by_reason_and_valid_rows_become_tiles(spark: SparkSession, tmp_path: Path) -> None:
    random = Random(SEED)
    rows = [hostile_row(random, k) for k in range(600)]
    kinds = {"event_at": pa.timestamp("us"), "weight": pa.float64()}
    (tmp_path / "events").mkdir()
    for part in range(2):
        table = pa.Table.from_pylist(rows[part::2], pa.schema([(name, kinds.get(name, pa.string())) for name in GOOD]))
        pq.write_table(table, tmp_path / "events" / f"{part}.parquet")
    events = {"columns": {**COLUMNS, "event_id": None}, "max_rejected_share": 1.0, "min_day_share": 0}
    config = config_of(tmp_path, events=events)
    tables = open_tables(config, spark)
    build_tiles(tables, config, take_inventory(tables, config.events), before=date(2025, 1, 1))
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    held_back = [row for row in rows if row["event_at"] and tomorrow < row["event_at"].date() <= date(2200, 1, 1)]
    assert held_back
    rows = [row for row in rows if row not in held_back]
    reasons = Counter(expected_reason(row) for row in rows)
    assert len(reasons) + bool(held_back) >= 8  # rows held back count as a reason here
    assert {(row.reason, row["count"]) for row in tables.read(REJECTED_EVENTS).groupBy("reason").count().collect()} == {
        (reason, count) for reason, count in reasons.items() if reason is not None
    }
    days = tables.ledger(TILE_DAYS)
    assert sum(day.num_rejected for day in days) == len(rows) - reasons[None]
    good = {repr(row) for row in rows if expected_reason(row) is None}  # equal rows count once
    assert sum(day.num_events for day in days) == len(good)
    tiles = (
        read_tiles(tables, start=None, end=date(2025, 1, 1))
        .agg(F.sum("num_events"), F.min("weight"), F.max(F.isnan("weight")))
        .first()
    )
    assert tiles is not None
    assert (tiles[0], tiles[1] >= 0, tiles[2]) == (len(good), True, False)


def columns_with(name: str, kind: pa.DataType) -> pa.Table:
    fields = [(key, kind if key == name else pa.string()) for key in ("user_id", "item_id", "event_at", "weight")]
    return pa.schema(fields).empty_table()


STRUCT = pa.struct([("a", pa.string())])


TEXT = pa.string()
OTHER_TYPES = {
    "user_id": (pa.list_(TEXT), STRUCT, pa.binary(), pa.map_(TEXT, TEXT)), "item_id": (STRUCT, pa.list_(pa.int64())),
    "event_at": (pa.int64(), pa.bool_(), pa.float64(), STRUCT), "weight": (pa.map_(TEXT, TEXT), pa.date32(),
    pa.bool_()),
}  # fmt: skip
OTHER_FILES = [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"user_id,item_id\n"]
OTHERS: list[tuple[Any, str]] = [
    *((columns_with(name, kind), rf"events.columns.{name}: column '{name}' is ") for name in OTHER_TYPES for kind in
      OTHER_TYPES[name]),
    *((content, "events.path .*: not readable as parquet") for content in OTHER_FILES),
    (pa.table({"user": ["u"], "item_id": ["i"]}),
    r"events.columns.user_id: no column 'user_id'; did you mean user\? Columns found: user, it"),
    (pa.table({}), r"not readable as parquet|no column 'user_id'"),
    (None, r"not readable as parquet|no column"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "said"), OTHERS, ids=range(len(OTHERS)))
def test_a_log_with_wrong_columns_or_files_is_refused_with_the_difference(
    spark: SparkSession, tmp_path: Path, table: pa.Table | bytes | None, said: str
) -> None:
    (tmp_path / "events").mkdir()
    if isinstance(table, bytes):
        (tmp_path / "events" / "a.parquet").write_bytes(table)
    elif table is not None:
        pq.write_table(table, tmp_path / "events" / "a.parquet")
    log = EventSource(
        path=str(tmp_path / "events"), columns={key: key for key in ("user_id", "item_id", "event_at", "weight")}
    )
    with pytest.raises(UsageError, match=said):
        check_columns(read_source(spark, log, what="events").schema, event_columns(log), "events")


@pytest.mark.parametrize(
    "content",
    [
        b"PAR1", b"no Parquet", "torn", pa.table({"user_id": [1], "item_id": ["i"], "event_at": ["2024-05-01"]}),
        pa.table({"user_id": pa.nulls(1), "item_id": ["i"], "event_at": ["2024-05-01"]}),
        pa.table({"user_id": [["u"]], "item_id": ["i"], "event_at": ["2024-05-01"]}),
    ],
    ids=range(6),
)  # fmt: skip
def test_a_file_that_differs_from_the_others_is_named(spark: SparkSession, tmp_path: Path, content: Any) -> None:
    good = pa.table({name: ["x", "y"] for name in ("user_id", "item_id")} | {"event_at": ["2024-05-01", "2024-05-02"]})
    (tmp_path / "events").mkdir()
    first, other = tmp_path / "events" / "a.parquet", tmp_path / "events" / "b.parquet"
    pq.write_table(good, first)
    pq.write_table(content if isinstance(content, pa.Table) else good, other)
    if not isinstance(content, pa.Table):
        other.write_bytes(other.read_bytes()[:-20] if content == "torn" else content)
    config = config_of(tmp_path)
    error = refusal(lambda: take_inventory(open_tables(config, spark), config.events))
    assert error is not None
    assert is_one_line(error)
    assert "b.parquet" in str(error)


def test_columns_that_differ_only_in_case_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"user_id": ["u"], "USER_ID": ["v"], "item_id": ["i"], "event_at": ["2024-05-01"]}),
        tmp_path / "a.parquet",
    )
    log = EventSource(
        path=str(tmp_path / "a.parquet"), columns={key: key for key in ("user_id", "item_id", "event_at")}
    )
    with pytest.raises(UsageError, match=r"events.path .*: not readable as parquet \(\[COLUMN_ALREADY_EXISTS\]"):
        check_columns(read_source(spark, log, what="events").schema, event_columns(log), "events")


def other_case(line: bytes) -> bool:
    """Return whether a line has a key that differs from a known one only in case."""
    words = [word.decode() for word in re.findall(rb'"(\w+)"', line)]
    return any(word not in GOOD and word.lower() in GOOD for word in words)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_text_files_of_any_bytes_give_valid_rows_or_reasons(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    random = Random(SEED)
    lines = [json.dumps(GOOD | {"event_id": str(k)}).encode() for k in range(300)]
    if kind == "csv":
        lines = [b",".join(str(value).encode() for value in json.loads(line).values()) for line in lines]
    lines = [line if k % 3 else spoilt_bytes(line, random).replace(b"\n", b" ") for k, line in enumerate(lines)]
    lines = [line for line in lines if not other_case(line)]  # Spark cannot read such a log at all
    head = [",".join(GOOD).encode()] if kind == "csv" else []
    (tmp_path / "log").write_bytes(b"\n".join([*head, *lines, b"\xff\xfe\x00", b"," * 1000, b'"' * 999]) + b"\n")
    config: Config = config_of(tmp_path, events={"path": str(tmp_path / "log"), "format": kind, "columns": COLUMNS})
    log = config.events.all_sources["events"]
    rows = with_validity(read_source(spark, log, what="events"), log)
    counts = Counter(row.reason for row in rows.select("reason").collect())
    assert counts.keys() <= REASONS | {None}, f"seed {SEED}"
    assert counts[None] >= 150
    assert rows.select(F.to_json("raw")).distinct().count() > 150
