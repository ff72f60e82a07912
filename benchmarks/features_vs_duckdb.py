"""How long does a full build of user features take, compared with DuckDB and SciPy in one process?

10M events of 100k users in a year, 20k items, windows of 7, 30 and 180 days and the default history window, 2
modalities with vectors of 64 numbers, in a warm session. DuckDB reads the same tile files, counts and joins. SciPy
multiplies a CSR matrix of weights with the item vectors in float32, with one thread per core; each thread writes a
Parquet file. Ours writes Delta, with its ledger. Both write a user's vectors as one packed column.

    make bench-features-vs-duckdb
    python -m benchmarks.features_vs_duckdb --small
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
from pyspark.sql import SparkSession

from benchmarks.answers import check_features
from benchmarks.logs import AS_OF, DIM, MODALITIES, WINDOWS_DAYS, WITH_HISTORY, LogSize, open_site
from benchmarks.report import Line, Skipped, alternating, ratio_line, run
from userrep.features.build import build_features
from userrep.features.spec import POOLED
from userrep.store.arrow import packed

SIZE = LogSize(events=10_000_000, users=100_000)

_USERS_PER_BATCH = 4096
_PARTS = ("num_night", "num_morning", "num_afternoon", "num_evening")


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Build the features with both and compare them."""
    with open_site(spark, size, root) as site:
        files, theirs = site.tile_files(), site.folder / "duckdb"
        taken = alternating(
            lambda: build_features(site.tables, site.config, site.versions, [AS_OF]),
            lambda: duckdb_features(f"read_parquet({files!r}, hive_partitioning = true)", site.items, theirs),
            check=lambda: check_features(site, theirs),
            runs=runs,
        )
        return ratio_line("features_vs_duckdb", size.facts(), taken, peer="DuckDB + SciPy")


def duckdb_features(tiles: str, items: Path, out: Path, *, as_of: date = AS_OF, kept: bool = False) -> None:
    """Compute the features of the as-of date and write them as Parquet, a file for each thread.

    ``tiles``: what SQL selects the columns of ``user_item_days`` from; with ``kept``, DuckDB keeps them. Rings are the
    parts of windows that the next shorter one does not hold; windows are sums of rings.
    """
    try:
        import duckdb
    except ImportError as error:
        raise Skipped(f"duckdb does not import ({error})") from None
    num_threads, num_rings = os.cpu_count() or 1, len(WITH_HISTORY)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with duckdb.connect() as db:
        db.execute(f"SET threads = {num_threads}; SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
        # Half of the machine's memory, and the disk above: the rest is for NumPy's arrays and the session of our side.
        db.execute(f"SET memory_limit = '{psutil.virtual_memory().total // 2}B'; SET temp_directory = '{out}.spilled'")
        kind = "TABLE" if kept else "VIEW"
        db.execute(f"CREATE {kind} tiles AS SELECT *, DATE '{as_of}' - event_date AS age FROM {tiles}")
        db.execute(_user_days())
        db.execute(f"CREATE TABLE users AS {_users(as_of)}")
        items_table = db.sql(f"SELECT vec FROM read_parquet('{items}') WHERE vec IS NOT NULL ORDER BY item_id")
        vectors = items_table.to_arrow_table().column("vec").combine_chunks().flatten().to_numpy().reshape(-1, DIM)
        db.execute(
            "CREATE TABLE items AS SELECT item_id, (row_number() OVER (ORDER BY item_id) - 1)::INTEGER AS item "
            f"FROM read_parquet('{items}') WHERE vec IS NOT NULL"
        )
        ring = " + ".join(f"(age > {window})::INTEGER" for window in WITH_HISTORY[:-1])
        cells = db.sql(
            f"SELECT row * {num_rings} + {ring} AS cell, item, weight::FLOAT AS weight "
            "FROM tiles JOIN users USING (user_id) JOIN items USING (item_id) ORDER BY cell"
        ).fetchnumpy()
        users = db.sql("SELECT * FROM users ORDER BY row").to_arrow_table().drop_columns("row")
    starts = np.zeros(len(users) * num_rings + 1, np.int64)
    np.cumsum(np.bincount(cells["cell"], minlength=len(starts) - 1), out=starts[1:])
    shape = (len(starts) - 1, len(vectors))
    weights = scipy.sparse.csr_matrix((cells["weight"], cells["item"], starts), shape=shape)
    dense = np.concatenate([vectors] * len(MODALITIES), axis=1)
    bounds = np.linspace(0, len(users), num_threads + 1).astype(int)

    def write(k: int) -> None:
        _write_features(users, weights, dense, (bounds[k], bounds[k + 1]), out / f"part-{k}.parquet")

    with ThreadPoolExecutor(num_threads) as threads:
        list(threads.map(write, range(num_threads)))


def _user_days() -> str:
    parts = ", ".join(f"sum({part})::INTEGER AS {part}" for part in _PARTS)
    return (
        "CREATE TABLE user_days AS SELECT user_id, event_date, any_value(age) AS age, "
        f"sum(num_events)::INTEGER AS num_events, sum(weight) AS weight, max(last_event_at) AS last_event_at, {parts} "
        "FROM tiles GROUP BY user_id, event_date"
    )


def _users(as_of: date) -> str:
    """Write a user's counts and other scalars, from the values of the user's days."""
    longest = WINDOWS_DAYS[-1]
    active = f"FILTER (WHERE age <= {longest})"
    columns = ["(row_number() OVER (ORDER BY user_id) - 1)::INTEGER AS row", "user_id"]
    for window in WITH_HISTORY:
        inside = f"FILTER (WHERE age <= {window})"
        columns += [
            f"coalesce(sum(num_events) {inside}, 0)::BIGINT AS num_events_{window}d",
            f"coalesce(sum(weight) {inside}, 0) AS weight_{window}d",
            f"count(*) {inside} AS num_active_days_{window}d",
        ]
    columns += [
        f"(epoch_us(TIMESTAMP '{as_of}') - epoch_us(max(last_event_at))) / 86400000000 AS days_since_last_event",
        f"(max(age) {active})::DOUBLE AS days_since_first_event",
    ]
    by_part = ", ".join(f"sum({part}) {active} / sum(num_events) {active}" for part in _PARTS)
    by_day = [
        f"coalesce(sum(num_events) FILTER (WHERE age <= {longest} AND isodow(event_date) = {day}), 0) "
        f"/ sum(num_events) {active}"
        for day in range(1, 8)
    ]
    columns += [
        f"[{by_part}]::FLOAT[] AS part_of_day_{longest}d",
        f"[{', '.join(by_day)}]::FLOAT[] AS weekday_{longest}d",
    ]
    return f"SELECT {', '.join(columns)} FROM user_days GROUP BY user_id HAVING min(age) <= {longest}"


def _write_features(
    users: pa.Table, weights: scipy.sparse.csr_matrix, dense: np.ndarray, part: tuple[int, int], path: Path
) -> None:
    """Multiply, sum, divide and write the users of one thread, batch by batch."""
    num_rings, writer = len(WITH_HISTORY), None
    for start in range(*part, _USERS_PER_BATCH):
        stop = min(start + _USERS_PER_BATCH, part[1])
        rows = weights[start * num_rings : stop * num_rings]
        pooled = (rows @ dense).reshape(stop - start, num_rings, -1).cumsum(axis=1)
        total = np.asarray(rows.sum(axis=1)).reshape(stop - start, num_rings).cumsum(axis=1)
        batch = users.slice(start, stop - start)
        means = pooled / np.where(total > 0, total, 1)[:, :, None]
        by_modality = means.reshape(stop - start, num_rings, len(MODALITIES), DIM).swapaxes(1, 2)
        batch = batch.append_column(
            POOLED, packed(by_modality.reshape(stop - start, -1).astype(np.float32, copy=False))
        )
        for w, window in enumerate(WITH_HISTORY):
            for modality in MODALITIES:
                batch = batch.append_column(f"has_{modality}_{window}d", pa.array(total[:, w] > 0))
        writer = writer or pq.ParquetWriter(path, batch.schema, use_dictionary=["user_id"])
        writer.write_table(batch)
    if writer:
        writer.close()


if __name__ == "__main__":
    run("features_vs_duckdb", measure, SIZE, runs=3)
