"""Build ``user_features`` of as-of dates, and the ledger that says from what they were built."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.events.buckets import partition_values
from userrep.events.tiles import days_fingerprint, latest_tile_days, rows_of_revisions, tile_ledger, tiles_by_cell
from userrep.features.pooling import PoolingJob, VectorFiles
from userrep.features.sides import refresh_profiles, sides_fingerprint
from userrep.features.spec import FeatureSpec
from userrep.features.tasks import Inputs, TileRows, plan_ranges, pooled
from userrep.ids import short_hash
from userrep.items.versions import Versions, read_vectors
from userrep.schemas import FEATURE_SETS, USER_PROFILES, TableSchema, user_features
from userrep.tables import Tables, sql_in

DATES_PER_JOB = 16  # each task keeps one Parquet writer per date open


@dataclass(frozen=True)
class FeatureSet:
    """One build of the features of an as-of date. ``hash`` names the inputs that it was made from."""

    as_of: date
    log_hash: str
    sides_hash: str
    num_users: int
    num_inexact: int

    @property
    def hash(self) -> str:
        return short_hash([self.log_hash, self.sides_hash])


def feature_sets(tables: Tables, lineage_id: str) -> dict[date, FeatureSet]:
    """Return the newest build of each as-of date. Driver memory: one entry a date."""
    sets = tables.read(FEATURE_SETS).where(f"lineage_id = '{lineage_id}'")
    newest = sets.groupBy("as_of").agg(F.max_by(F.struct("*"), "built_at").alias("s")).select("s.*").collect()
    return {
        row.as_of: FeatureSet(row.as_of, row.log_hash, row.sides_hash, row.num_users, row.num_inexact) for row in newest
    }


def stale_features(
    tables: Tables, config: Config, versions: Versions, as_ofs: Sequence[date], *, fresh_sides: Sequence[date] = ()
) -> dict[date, str]:
    """Return the dates whose features are missing or were made from other inputs, with the reason.

    A change of the users or picks tables counts for ``fresh_sides`` alone: history stays as it was published.
    """
    built = feature_sets(tables, versions.lineage_id)
    days = latest_tile_days(tables)
    sides = sides_fingerprint(tables.spark, config) if fresh_sides else ""
    reasons = {}
    for as_of in as_ofs:
        if as_of not in built:
            reasons[as_of] = "not built yet"
        elif built[as_of].log_hash != log_hash(days, config, versions, as_of):
            reasons[as_of] = "days of the log or item vectors changed"
        elif as_of in fresh_sides and built[as_of].sides_hash != sides:
            reasons[as_of] = "users or picks changed"
    return reasons


def build_features(tables: Tables, config: Config, versions: Versions, as_ofs: Sequence[date]) -> int:
    """Build the features of several as-of dates from the tiles, in one Spark job and one commit. Returns the rows.

    Cost: one read of the tiles of all windows together; from one date to the next, only what enters and leaves is
    summed. The ledger is written last: a run that was killed before leaves rows that the next run replaces.
    """
    spec, dates = FeatureSpec.of(config), sorted(as_ofs)
    ledger = tile_ledger(tables)
    start = dates[0] - timedelta(days=spec.longest)
    revisions = {day: revision for day, (_, revision) in ledger.latest.items() if start <= day < dates[-1]}
    tiles = [TileRows(rows_of_revisions(tables, revisions), before=False, after=True)]
    inputs = Inputs(tiles, sums=None, profiles=read_profiles(tables, config), is_direct=tables.has_files)
    cells = tiles_by_cell(tables, ledger, list(revisions.items()))
    plan = plan_ranges(cells, min_ranges=tables.shuffle_partitions())
    job = PoolingJob(spec, dated_vectors(tables, config, versions, dates), "features")
    table = features_table(config, versions.lineage_id)
    features = pooled(inputs, job, plan, tables.read(table).schema)
    return write_features(tables, config, versions, features, dates, latest=ledger.latest)


def write_features(
    tables: Tables,
    config: Config,
    versions: Versions,
    features: DataFrame,
    dates: Sequence[date],
    *,
    latest: dict[date, tuple[str, int]],
) -> int:
    """Replace the features of some dates, then say in the ledger from which content of the log they were made."""
    table = features_table(config, versions.lineage_id)
    sides = sides_fingerprint(tables.spark, config)
    tables.replace(features, table, sql_in("as_of", list(dates)))
    written = tables.read(table).where(sql_in("as_of", list(dates))).groupBy("as_of").agg(
        F.count("*").alias("num_users"), F.count_if(~F.col("is_exact")).alias("num_inexact")
    )  # fmt: skip
    counts = {row.as_of: (row.num_users, row.num_inexact) for row in written.collect()}
    now = datetime.now(UTC).replace(tzinfo=None)
    built = [
        {
            "lineage_id": versions.lineage_id,
            "as_of": as_of,
            "valid_from": versions.valid_at(as_of),
            "log_hash": log_hash(latest, config, versions, as_of),
            "sides_hash": sides,
            "num_users": counts.get(as_of, (0, 0))[0],
            "num_inexact": counts.get(as_of, (0, 0))[1],
            "built_at": now,
        }
        for as_of in dates
    ]
    tables.append(tables.spark.createDataFrame(built, tables.read(FEATURE_SETS).schema), FEATURE_SETS)
    return sum(num_users for num_users, _ in counts.values())


def features_table(config: Config, lineage_id: str) -> TableSchema:
    """Return the schema of a lineage's features."""
    return user_features(lineage_id, FeatureSpec.of(config).ddl())


def read_features(tables: Tables, config: Config, lineage_id: str, as_ofs: Sequence[date]) -> DataFrame:
    """Read the features of some as-of dates; only their partitions are read."""
    return tables.read(features_table(config, lineage_id)).where(sql_in("as_of", list(as_ofs)))


def read_profiles(tables: Tables, config: Config) -> DataFrame | None:
    """Read the users' profiles, brought up to date before; None where there are neither users nor picks."""
    if config.users is None and config.onboarding is None:
        return None
    content = refresh_profiles(tables, config)
    return tables.read(USER_PROFILES).where(f"content_hash = '{content}'")


def dated_vectors(
    tables: Tables, config: Config, versions: Versions, dates: Sequence[date]
) -> tuple[tuple[date, VectorFiles], ...]:
    """Pin the files of the item vectors that each date uses."""
    files = {
        v: _vector_files(tables, config, versions.lineage_id, v) for v in {versions.valid_at(day) for day in dates}
    }
    return tuple((day, files[versions.valid_at(day)]) for day in dates)


def log_hash(days: dict[date, tuple[str, int]], config: Config, versions: Versions, as_of: date) -> str:
    """Hash the windows' days and the item vectors' version that an as-of date is made from."""
    start = as_of - timedelta(days=config.windows_days[-1])
    version = versions.valid_at(as_of)
    return short_hash([days_fingerprint(days, start=start, end=as_of), str(version)])


def _vector_files(tables: Tables, config: Config, lineage_id: str, version: date) -> VectorFiles:
    paths = read_vectors(tables, lineage_id, version).inputFiles()
    by_modality = {name: [p for p in paths if partition_values(p)["modality"] == name] for name in config.item_vectors}
    return VectorFiles(tuple((name, tuple(sorted(by_modality[name]))) for name in sorted(by_modality)))
