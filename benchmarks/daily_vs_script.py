"""How long does a daily run take, compared with a script that builds features and embeddings from the raw log?

100M events of 500k users in a year, one file per day. Window sums and a snapshot of the previous day exist, and a new
day of the log arrives. Ours is ``userrep daily``: inventory, tiles of the day, refresh of the sums, features,
embeddings, gates, a published snapshot. The script reads the windows of the raw log with DuckDB, without duplicates,
pools with SciPy, encodes with torch and the same weights, and writes Parquet. It keeps nothing from the previous day.
Times are printed only if features and embeddings agree. The Spark session is warm.

    make bench-daily-vs-script
    python -m benchmarks.daily_vs_script --small
"""

import os
import statistics
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyspark.sql import SparkSession

from benchmarks.answers import check_features, rows_of
from benchmarks.features_vs_duckdb import duckdb_features
from benchmarks.inference_data import save_space
from benchmarks.logs import AS_OF, WITH_HISTORY, LogSize, Site, add_next_day, open_site, with_own_log
from benchmarks.report import Line, ratio_line, run, seconds_of
from userrep.features.layout import InputLayout, Moments, Scaler
from userrep.features.ledger import features_table
from userrep.features.spec import FeatureSpec
from userrep.model.artifact import load_artifact
from userrep.spaces.registry import add_candidate, artifact_folder, find_space, list_spaces
from userrep.spaces.snapshots import newest_snapshot
from userrep.store.arrow import combined, listed, stacked
from userrep.store.filesystem import open_parquet
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.workflows.daily import daily
from userrep.workflows.data_stages import refresh_user_features
from userrep.workflows.run_context import RunContext
from userrep.workflows.space_stages import embed_users, publish_snapshots

SIZE = LogSize(events=100_000_000, users=500_000)
NIGHT = AS_OF + timedelta(days=1)
_BATCH = 4096


def measure(spark: SparkSession, size: LogSize, root: Path, runs: int) -> Line:
    """Run both in new tables each time, since a daily run changes the tables that it begins with."""
    found = [_night(spark, size, root) for _ in range(runs)]
    stages = [by_stage for _, _, by_stage in found]
    return ratio_line(
        "daily_vs_script",
        size.facts(),
        [(seconds, peer_seconds) for seconds, peer_seconds, _ in found],
        peer="DuckDB, SciPy and torch from the raw log",
        by_stage={name: round(statistics.median(run[name] for run in stages), 2) for name in stages[0]},
    )


def _night(spark: SparkSession, size: LogSize, root: Path) -> tuple[float, float, dict[str, float]]:
    """Build the previous day, add a day to the log, and run both; return their seconds, and ours by stage."""
    with open_site(spark, size, root) as kept:
        site = with_own_log(kept)
        work = RunContext(site.config, spark, AS_OF)
        refresh_user_features(work)
        space_id = add_space(site)
        space = find_space(site.tables, space_id)
        embed_users(work, space, [AS_OF])
        publish_snapshots(work, space, [AS_OF])
        add_next_day(size, site.log)
        night = RunContext(site.config, spark, NIGHT)
        seconds = seconds_of(lambda: daily(night, on_time=True))
        out = site.folder / "script"
        peer_seconds = seconds_of(lambda: _script(site, space_id, out))
        check_features(site, out / "features", as_of=NIGHT)
        _check_vectors(site, space_id, out)
        return seconds, peer_seconds, {stage.stage: stage.seconds for stage in night.runs.stages}


def add_space(site: Site) -> str:
    """Register a space with untrained weights and a scaler of the previous day's first users; return its id."""
    spec = FeatureSpec.of(site.config)
    layout, table = InputLayout.of(spec, {}), features_table(site.config, site.versions.lineage_id)
    file = site.tables.files(table, lambda values: values["as_of"] == AS_OF)[0]
    rows = next(open_parquet(f"{site.tables.uri(table)}/{file.path}").iter_batches(10_000))
    scaler = Scaler.fit(layout, Moments.of(layout.raw(rows)))
    lineage_id = site.versions.lineage_id
    content_hash = save_space(site.config, layout, scaler, lineage_id=lineage_id)
    add_candidate(site.tables, space_id="s1", lineage_id=lineage_id, trained_until=AS_OF, content_hash=content_hash)
    return list_spaces(site.tables)[-1].space_id


def _script(site: Site, space_id: str, out: Path) -> None:
    """Compute features of all events in the windows, and their embeddings."""
    start = NIGHT - timedelta(days=WITH_HISTORY[-1])
    raw = f"SELECT DISTINCT * FROM read_parquet('{site.log}/*.parquet')"
    hours = {"night": "< 6", "morning": "BETWEEN 6 AND 11", "afternoon": "BETWEEN 12 AND 17", "evening": "> 17"}
    parts = ", ".join(f"count_if(hour(event_at) {within})::INTEGER AS num_{name}" for name, within in hours.items())
    tiles = (
        "(SELECT user_id, item_id, event_at::DATE AS event_date, count(*)::INTEGER AS num_events, "
        f"sum(weight) AS weight, max(event_at)::TIMESTAMP AS last_event_at, {parts} FROM ({raw}) "
        f"WHERE event_at >= DATE '{start}' AND event_at < DATE '{NIGHT}' GROUP BY ALL)"
    )
    duckdb_features(tiles, site.items, out / "features", as_of=NIGHT, kept=True)
    artifact = load_artifact(artifact_folder(site.tables, find_space(site.tables, space_id)))
    model = artifact.encoder()
    torch.set_num_threads(os.cpu_count() or 1)
    (out / "embeddings").mkdir()
    for file in sorted((out / "features").glob("*.parquet")):
        written = []
        for batch in pq.ParquetFile(file).iter_batches(_BATCH):
            x_BF = artifact.scaler.apply(artifact.layout, artifact.layout.raw(batch))
            with torch.inference_mode():
                z_BD = model.encode(torch.from_numpy(x_BF)).numpy()
            written.append(pa.table({"user_id": batch.column("user_id"), "embedding": listed(z_BD)}))
        pq.write_table(pa.concat_tables(written), out / "embeddings" / file.name)


def _check_vectors(site: Site, space_id: str, out: Path) -> None:
    snapshot = newest_snapshot(site.tables, space_id, NIGHT)
    ours = rows_of(site.tables, USER_EMBEDDINGS, snapshot.key, ["user_id", "embedding"])
    theirs = pq.read_table(out / "embeddings").sort_by("user_id")
    if ours["user_id"].combine_chunks() != theirs["user_id"].combine_chunks():
        raise AssertionError("users of the night's snapshot are not the script's")
    both = [stacked(combined(table["embedding"]), len(table["embedding"][0])) for table in (ours, theirs)]
    if not np.allclose(*both, rtol=0, atol=1e-3):
        raise AssertionError("vectors of the night's snapshot are not the script's")


if __name__ == "__main__":
    run("daily_vs_script", measure, SIZE, runs=3)
