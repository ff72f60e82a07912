"""Spark expressions over the log on literal rows, and which of several copies of an event becomes a tile."""

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from pyspark.sql import Row, SparkSession

from tests.support.builders import config_of, event, write_rows
from userrep.sources.tombstones import add_tombstones, read_tombstones
from userrep.store.buckets import bucket_column, range_of_slice, user_slice
from userrep.store.file_tables import FileTables
from userrep.store.open import open_tables
from userrep.store.schemas import REJECTED_EVENTS
from userrep.store.xxhash import bucket_of as buckets_of
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.day_files import num_rejected_of
from userrep.tiles.inventory.inventory import take_inventory
from userrep.tiles.inventory.new_rows import exact_sum
from userrep.tiles.ledger import read_tiles

pytestmark = pytest.mark.default

D1, D2, D3 = (date(2024, 5, day) for day in (1, 2, 3))
TEXT = pa.string()


# Expressions


def test_buckets_and_slices_equal_those_computed_without_spark(spark: SparkSession) -> None:
    texts = ["", "u1", "ü", "x" * 31, "x" * 32, "x" * 100, "日本語😀", *(f"user-{k}" for k in range(60))]
    frame = spark.createDataFrame([(text,) for text in texts], "text STRING")
    rows = frame.select("text", bucket_column("text").alias("user_bucket")).select("*", user_slice(16)).collect()
    found = {row.text: row.user_bucket for row in rows}
    assert [found[text] for text in texts] == buckets_of(pa.array(texts)).tolist()
    for row in rows:
        start, stop = range_of_slice(row.user_slice)
        assert start <= row.user_bucket < stop


def test_sums_of_hashes_are_exact_beyond_64_bits(spark: SparkSession) -> None:
    sums = {
        "overflow": [2**63 - 1] * 5,
        "underflow": [-(2**63)] * 5,
        "mixed": [-1, 5, -(2**62), 2**33 + 7, 2**32 - 1],
        "zero": [-(2**32), 2**32],
    }
    rows = [(name, number) for name, numbers in sums.items() for number in numbers]
    frame = (
        spark.createDataFrame(rows, "name STRING, hash BIGINT").groupBy("name").agg(exact_sum("hash").alias("total"))
    )
    assert {row.name: int(row.total) for row in frame.collect()} == {name: sum(of) for name, of in sums.items()}


def test_rejected_rows_are_counted_by_day_for_one_revision(spark: SparkSession, tmp_path: Path) -> None:
    tables = FileTables(spark, str(tmp_path))
    reasons = [(D1, 1, "missing_user_id"), (D1, 2, "missing_user_id"), (D1, 2, "outside_its_partition"),
               (D2, 2, "negative_weight"), (D2, 2, "unreadable_event_at"), (D3, 2, "unparsable_row")]  # fmt: skip
    tables.add(
        REJECTED_EVENTS,
        [{"event_date": day, "revision": revision, "reason": why, "row": "{}"} for day, revision, why in reasons],
    )
    assert num_rejected_of(tables, 2) == {D1: 2, D2: 2, D3: 1}
    # Undated rows are stored under the day of processing. Under another day, they have that of their partition.
    assert num_rejected_of(tables, 2, undated_on=D3) == {D1: 2, D2: 2}


def test_spark_removes_the_rows_of_erased_users_only(spark: SparkSession, tmp_path: Path) -> None:
    tables = FileTables(spark, str(tmp_path))
    rows = [("ann", '{"user": "ann"}'), ("bob", '{"user": "bob"}'), (None, None), ("Ann", "x ann;y")]
    frame = spark.createDataFrame(rows, "user_id STRING, row STRING")
    nobody = read_tombstones(tables)
    assert nobody.without(frame) is frame
    assert nobody.without_named(frame) is frame
    add_tombstones(tables, ["ann", "eve"])
    erased = read_tombstones(tables)
    assert [row.user_id for row in erased.without(frame).collect()] == ["bob", None, "Ann"]
    assert [row.user_id for row in erased.without_named(frame).collect()] == ["bob", None]


# Tiles


class Built(NamedTuple):
    """Tiles built from a log in one format, and the rejected rows."""

    tiles: dict[tuple[date, str, str], Row]
    rejected: list[str]


COPIES = [
    # The later copy counts, although it has another item and a smaller weight.
    event("u1", "early", "2024-05-02 09:00:00", event_id="e1", weight=9.0),
    event("u1", "late", "2024-05-02 10:00:00", event_id="e1", weight=1.0),
    event("u1", "late", "2024-05-01 23:59:59", event_id="e1", weight=1.0),  # on another day
    # The largest of three copies with the same time counts.
    event("u1", "tie", "2024-05-01 11:00:00", event_id="e2", weight=2.0),
    event("u1", "tie", "2024-05-01 11:00:00", event_id="e2", weight=5.0),
    event("u1", "tie", "2024-05-01 11:00:00", event_id="e2", weight=3.0),
    # A value counts rather than null.
    event("u2", "null", "2024-05-01 12:00:00", event_id="e3", weight=1.0),
    event("u2", "null", "2024-05-01 12:00:00", event_id="e3", weight=1.0, device="tv"),
    # Rows without an id are copies if they are equal, also in the unmapped column "note".
    event("u2", "equal", "2024-05-02 13:00:00", weight=1.0, note="a"),
    event("u2", "equal", "2024-05-02 13:00:00", weight=1.0, note="a"),
    event("u2", "equal", "2024-05-02 13:00:00", weight=1.0, note="b"),
    event("u2", "equal", "2024-05-02 13:00:00", weight=1.0),
    # The erased user has an event of their own, and the later copy of another user's event.
    event("erased", "gone", "2024-05-02 14:00:00", event_id="e4", weight=1.0),
    event("u3", "kept", "2024-05-02 14:00:00", event_id="e5", weight=1.0),
    event("erased", "gone", "2024-05-02 15:00:00", event_id="e5", weight=1.0),
    # Rejected.
    event("erased", None, "2024-05-02 16:00:00", event_id="e6", weight=1.0),
    event("u3", None, "2024-05-02 16:00:00", event_id="e7", weight=1.0),
]
SCHEMA = pa.schema(
    [("user_id", TEXT), ("item_id", TEXT), ("event_at", pa.timestamp("us")), ("event_id", TEXT),
     ("weight", pa.float64()), ("device", TEXT), ("note", TEXT)]
)  # fmt: skip


def write_log(folder: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    """Write rows into two files, so that copies of an event are in different files."""
    for k in range(2):
        if kind == "parquet":
            write_rows(folder / f"{k}.parquet", rows[k::2], SCHEMA)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps({**row, "event_at": str(row["event_at"])}) for row in rows[k::2]]
            (folder / f"{k}.json").write_text("\n".join(lines))


@pytest.fixture(scope="module", params=["parquet", "json"])
def built(request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Tasks read plain Parquet logs themselves where they can, here on the second day; other logs are read by Spark."""
    folder = tmp_path_factory.mktemp("copies")
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at", "event_id": "event_id"}
    columns |= {"weight": "weight"}
    config = config_of(
        folder,
        events={"format": request.param, "columns": {**columns, "context": ["device"]}, "max_rejected_share": 0.5},
    )
    tables = open_tables(config, spark)
    add_tombstones(tables, ["erased"])
    write_log(folder / "events", request.param, COPIES)
    build_tiles(tables, config, take_inventory(tables, config.events), before=D3)
    rows = read_tiles(tables, start=None, end=D3).collect()
    tiles = {(row.event_date, row.user_id, row.item_id): row for row in rows}
    assert len(tiles) == len(rows)
    return Built(tiles, [row.row for row in tables.read(REJECTED_EVENTS).collect()])


def test_the_latest_copy_of_an_event_counts_once_per_day(built: Built) -> None:
    counted = [(*key, row.num_events, row.weight) for key, row in built.tiles.items() if key[2] in ("early", "late")]
    assert sorted(counted) == [(D1, "u1", "late", 1, 1.0), (D2, "u1", "late", 1, 1.0)]
    assert built.tiles[D2, "u1", "late"].last_event_at == datetime(2024, 5, 2, 10)


def test_the_largest_of_copies_with_the_same_time_counts(built: Built) -> None:
    tile = built.tiles[D1, "u1", "tie"]
    assert (tile.num_events, tile.weight) == (1, 5.0)


def test_a_value_takes_precedence_over_null_among_copies_with_the_same_time(built: Built) -> None:
    tile = built.tiles[D1, "u2", "null"]
    assert (tile.num_events, tile.num_by_context) == (1, {"device=tv": 1})


def test_rows_without_an_event_id_are_copies_only_if_all_columns_are_equal(built: Built) -> None:
    tile = built.tiles[D2, "u2", "equal"]
    assert (tile.num_events, tile.weight) == (3, 3.0)


def test_the_rows_of_an_erased_user_are_dropped_before_copies_and_all_other_rows_stay(built: Built) -> None:
    assert {key[1:] for key in built.tiles if key[1] not in ("u1", "u2")} == {("u3", "kept")}
    assert [json.loads(row)["user_id"] for row in built.rejected] == ["u3"]
