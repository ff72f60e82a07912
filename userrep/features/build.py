"""Build ``user_features`` of as-of dates, and the ledger that says from what they were built."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.events.tiles import days_fingerprint, latest_tile_days, read_tiles
from userrep.features.pooling import VectorFiles, pooled_features, rows_by_user
from userrep.features.sides import read_picks, read_users, sides_fingerprint
from userrep.features.spec import FeatureSpec
from userrep.ids import short_hash
from userrep.items.versions import Versions, read_vectors
from userrep.schemas import FEATURE_SETS, ITEM_INDEX, TableSchema, user_features
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
        elif built[as_of].log_hash != _log_hash(days, config, versions, as_of):
            reasons[as_of] = "days of the log or item vectors changed"
        elif as_of in fresh_sides and built[as_of].sides_hash != sides:
            reasons[as_of] = "users or picks changed"
    return reasons


def build_features(tables: Tables, config: Config, versions: Versions, as_ofs: Sequence[date]) -> int:
    """Build the features of several as-of dates in one Spark job and one commit. Returns the rows written.

    Cost: one read of the tiles of the windows, one shuffle by user, one write. The ledger is written last: a run that
    was killed before leaves rows that the next run replaces.
    """
    spec = FeatureSpec.of(config)
    table = features_table(config, versions.lineage_id)
    start, end = min(as_ofs) - timedelta(days=spec.longest), max(as_ofs)
    index = tables.read(ITEM_INDEX).where(f"lineage_id = '{versions.lineage_id}'").select("item_id", "item_index")
    rows = rows_by_user(
        read_tiles(tables, start=start, end=end),
        index,
        users=read_users(tables.spark, config.users) if config.users else None,
        picks=read_picks(tables.spark, config.onboarding) if config.onboarding else None,
        context=spec.context_column is not None,
    )
    num_items = index.count()
    files = {
        v: _vector_files(tables, versions.lineage_id, v, num_items) for v in {versions.valid_at(d) for d in as_ofs}
    }
    dated = [(as_of, files[versions.valid_at(as_of)]) for as_of in sorted(as_ofs)]
    days = latest_tile_days(tables)
    ledger = [(as_of, versions.valid_at(as_of), _log_hash(days, config, versions, as_of)) for as_of in sorted(as_ofs)]
    sides = sides_fingerprint(tables.spark, config)
    features = pooled_features(rows, spec=spec, as_ofs=dated, schema=tables.read(table).schema)
    tables.replace(features, table, sql_in("as_of", sorted(as_ofs)))
    counts = tables.read(table).where(sql_in("as_of", sorted(as_ofs))).groupBy("as_of").agg(
        F.count("*").alias("num_users"), F.count_if(~F.col("is_exact")).alias("num_inexact")
    )  # fmt: skip
    built = tables.spark.createDataFrame(ledger, "as_of DATE, valid_from DATE, log_hash STRING")
    done = built.join(counts, on="as_of", how="left").na.fill(0, ["num_users", "num_inexact"])
    done = done.withColumns(
        {
            "lineage_id": F.lit(versions.lineage_id),
            "sides_hash": F.lit(sides),
            "built_at": F.current_timestamp(),
        }
    )
    tables.append(done, FEATURE_SETS)
    sets = feature_sets(tables, versions.lineage_id)
    return sum(sets[as_of].num_users for as_of in as_ofs)


def features_table(config: Config, lineage_id: str) -> TableSchema:
    """Return the schema of a lineage's features."""
    return user_features(lineage_id, FeatureSpec.of(config).ddl())


def read_features(tables: Tables, config: Config, lineage_id: str, as_ofs: Sequence[date]) -> DataFrame:
    """Read the features of some as-of dates; only their partitions are read."""
    return tables.read(features_table(config, lineage_id)).where(sql_in("as_of", list(as_ofs)))


def _vector_files(tables: Tables, lineage_id: str, version: date, num_items: int) -> VectorFiles:
    vectors = read_vectors(tables, lineage_id, version)
    names = sorted(row.modality for row in vectors.select("modality").distinct().collect())
    files = tuple((name, tuple(sorted(vectors.where(f"modality = '{name}'").inputFiles()))) for name in names)
    return VectorFiles(num_items, files)


def _log_hash(days: dict[date, tuple[str, int]], config: Config, versions: Versions, as_of: date) -> str:
    """Hash the windows' days and the item vectors' version that an as-of date is made from."""
    start = as_of - timedelta(days=config.windows_days[-1])
    version = versions.valid_at(as_of)
    return short_hash([days_fingerprint(days, start=start, end=as_of), str(version)])
