"""How long do activity tiles take from the raw log, compared with DuckDB?

10M events, 100k users, 20k items, 180 days, one file per day. Rows have ids, and 1% are duplicated. Ours takes the
inventory and builds the tiles. DuckDB drops invalid rows, keeps the later of two rows with one id on a day, sums by
day, user and item, and writes Parquet partitioned by day. One line for a Parquet log (``tiles_vs_duckdb``), one for the
same rows as JSON (``tiles_vs_duckdb_json``) and one as CSV (``tiles_vs_duckdb_csv``), which DuckDB reads with its own
readers and declared types.

    make bench-tiles-vs-duckdb
    python -m benchmarks.tiles_vs_duckdb --small
"""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.answers import check_same, content_hash
from benchmarks.logs import AS_OF, SMALL, LogSize, log_files, site_config
from benchmarks.report import Line, Skipped, alternating, ratio_line, run
from userrep.store.open import open_tables
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory
from userrep.tiles.ledger import read_tiles

SIZE = LogSize(events=10_000_000, users=100_000, days=180, copies=True)
SMALL_SIZE = LogSize(events=SMALL.events, users=SMALL.users, items=SMALL.items, days=SMALL.days, copies=True)

_HOURS = {"num_night": 0, "num_morning": 1, "num_afternoon": 2, "num_evening": 3}


_COLUMNS = {
    "event_id": "VARCHAR", "user_id": "VARCHAR", "item_id": "VARCHAR", "event_at": "TIMESTAMPTZ", "weight": "DOUBLE"
}  # fmt: skip
_READERS = {
    "parquet": "read_parquet('LOG/*.parquet')",
    "json": f"read_json('LOG/*.json', format = 'newline_delimited', columns = {_COLUMNS})",
    "csv": f"read_csv('LOG/*.csv', header = true, auto_detect = false, columns = {_COLUMNS})",
}
LINES = {"parquet": "tiles_vs_duckdb", "json": "tiles_vs_duckdb_json", "csv": "tiles_vs_duckdb_csv"}


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int, *, log_format: str = "parquet") -> Line:
    """Build the tiles with both engines, each time from nothing."""
    log, items = log_files(size, root)
    if log_format != "parquet":
        log = _converted(log, log_format)
    folder = root / f"run-{uuid4().hex}"

    def ours() -> None:
        shutil.rmtree(folder / "ours", ignore_errors=True)
        # Delta keeps what it knows of a table by its path: another folder for each run.
        nonlocal tables
        config = site_config(folder / "ours" / uuid4().hex, log, items, event_id=True, log_format=log_format)
        tables = open_tables(config, spark)
        build_tiles(tables, config, take_inventory(tables, config.events), before=AS_OF)

    def check() -> None:
        theirs = spark.read.parquet(str(folder / "duckdb"))
        ours = read_tiles(tables, start=None, end=AS_OF)
        check_same(content_hash(_comparable(ours)), content_hash(_comparable(theirs)))

    tables = None
    try:
        theirs = partial(duckdb_tiles, log, folder / "duckdb", log_format=log_format)
        taken = alternating(ours, theirs, check=check, runs=runs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ratio_line(LINES[log_format], size.facts(), taken, peer="DuckDB")


def _converted(log: Path, log_format: str) -> Path:
    """Return the folder of the same log as JSON or CSV, one file per Parquet file; write it if it does not exist."""
    folder = log.parent / f"events-{log_format}"
    if not folder.exists():
        staged = log.parent / f".{log_format}-{uuid4().hex}"  # a killed run leaves no half of a log
        staged.mkdir()
        at = "strftime(event_at AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ') AS event_at"
        columns = ", ".join(at if name == "event_at" else name for name in _COLUMNS)
        options = {"json": "FORMAT json", "csv": "FORMAT csv, HEADER"}[log_format]
        with _duckdb().connect() as db:
            db.execute("SET TimeZone = 'UTC'")
            for file in sorted(log.glob("*.parquet")):
                rows = f"SELECT {columns} FROM read_parquet('{file}')"
                db.execute(f"COPY ({rows}) TO '{staged / file.stem}.{log_format}' ({options})")
        staged.rename(folder)
    return folder


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise Skipped(f"duckdb does not import ({error})") from None
    return duckdb


def duckdb_tiles(log: Path, out: Path, *, log_format: str = "parquet") -> None:
    """Deduplicate, aggregate and write, in one query."""
    duckdb = _duckdb()
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = ", ".join(f"count(*) FILTER (WHERE part = {part}) AS {name}" for name, part in _HOURS.items())
    with duckdb.connect() as db:
        db.execute(f"SET threads = {os.cpu_count()}; SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
        db.execute(
            f"""
            COPY (
                WITH valid AS (
                    SELECT event_id, user_id, item_id, make_timestamp(epoch_us(event_at)) AS event_at,
                        round(weight * 256) / 256 AS weight
                    FROM {_READERS[log_format].replace("LOG", str(log))}
                    WHERE trim(user_id) != '' AND trim(item_id) != '' AND weight >= 0 AND isfinite(weight)
                        AND event_at BETWEEN '1971-01-01' AND '2200-01-01'
                ), events AS (
                    SELECT event_at::DATE AS event_date, user_id, item_id, event_at, weight, hour(event_at) // 6 AS part
                    FROM valid
                    QUALIFY row_number() OVER (
                        PARTITION BY event_at::DATE, event_id
                        ORDER BY event_at DESC, user_id DESC, item_id DESC, weight DESC
                    ) = 1
                )
                SELECT event_date, user_id, item_id, 'event' AS event_type, count(*) AS num_events,
                    sum(weight) AS weight, max(event_at) AS last_event_at, {parts}
                FROM events GROUP BY event_date, user_id, item_id
            ) TO '{out}' (FORMAT parquet, PARTITION_BY (event_date))
            """
        )


def _comparable(tiles: DataFrame) -> DataFrame:
    """Return the columns that are compared, one row per tile."""
    numbers = [F.col(name).cast("bigint").alias(name) for name in ("num_events", *_HOURS)]
    last = F.unix_micros(F.col("last_event_at").cast("timestamp")).alias("last_event_us")
    return tiles.select(F.to_date("event_date").alias("event_date"), "user_id", "item_id", "weight", last, *numbers)


if __name__ == "__main__":
    for log_format, line in LINES.items():
        run(line, partial(measure, log_format=log_format), SIZE, runs=3, small=SMALL_SIZE)
