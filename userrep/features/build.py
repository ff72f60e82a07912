"""Build ``user_features`` for as-of dates and record the inputs of each build in the ledger."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import changed_meanwhile
from userrep.features.layout import exported_form
from userrep.features.ledger import features_table, log_hash
from userrep.features.profiles import Profiles, refresh_profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.inputs import PoolingInputs
from userrep.features.sums.item_matrix import item_parts, vector_files
from userrep.features.sums.plan import plan_ranges
from userrep.features.sums.pooling import PoolingJob
from userrep.features.sums.pooling_tasks import Pooling, Written
from userrep.items.versions import Versions
from userrep.spark.session import shuffle_partitions
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.file_tables import FileTables
from userrep.store.schemas import FEATURE_SETS, TableSchema
from userrep.store.sql import sql_any
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileLedger, tile_ledger, tiles_by_cell
from userrep.utc import utc_now

DATES_PER_JOB = 16  # each task keeps one open Parquet writer per date
Counts = Mapping[date, tuple[int, int]]  # the users of each date, and those whose sums are not exact


def build_features(
    tables: Tables,
    config: Config,
    versions: Versions,
    as_ofs: Sequence[date],
    *,
    profiles: Profiles | None = None,
    ledger: TileLedger | None = None,
    num_buckets: int = NUM_BUCKETS,
) -> int:
    """Build the features of several as-of dates from the tiles, in one Spark job and one commit. Returns the row count.

    ``profiles``, ``ledger``: the profiles and the tile ledger pinned by the run. Without them, ``user_profiles`` is
    refreshed and the newest ledger read. ``num_buckets``: a power of two; only users in buckets below it are built.

    Cost: one read of these users' tiles in all windows, including the history window (by default twice as many days as
    the longest other window). From one date to the next, only entering and leaving tiles are summed. Item vectors that
    are too large for a worker are processed in parts (features/sums/item_matrix.py), which adds reads and shuffles
    (features/sums/pooling_tasks.py). The ledger is written last, so the next run replaces the rows of a killed run.

    Raises
    ------
    UserrepError
        If another run has started to build one of the dates in the meantime.
    """
    spec, dates, ledger = FeatureSpec.of(config), sorted(as_ofs), ledger or tile_ledger(tables)
    revisions = ledger.revisions(dates[0] - timedelta(days=spec.span), dates[-1])
    profiles = profiles or refresh_profiles(tables, config)
    tiles = dict.fromkeys(revisions.items(), (False, True))
    inputs = PoolingInputs(tables, tiles, sums=None, profiles_version=profiles.version)
    cells, parts = tiles_by_cell(tables, ledger, tiles), item_parts(tables, config, versions, dates).num_parts
    dated = tuple(vector_files(tables, versions, dates).items())
    job = PoolingJob(spec, dated, ("features",), item_parts=parts)
    plan = plan_ranges(
        cells, min_ranges=shuffle_partitions(tables.spark), item_parts=parts, one_in=NUM_BUCKETS // num_buckets
    )
    pooling = Pooling(inputs, job, plan)
    build = Features(tables, config, versions, dates, ledger, profiles, num_buckets=num_buckets).begin()
    if isinstance(tables, FileTables):
        return build.record(build.commit(tables, pooling.write({"features": tables.target(build.table)})))
    return build.record(build.write(pooling))


@dataclass(frozen=True)
class Features:
    """A build of the features of ``dates``: from its entries in the ledger to the commit of its rows.

    ``ledger``, ``profiles``: the tile ledger and the profiles that the job uses. ``num_buckets``: see ``FeatureSet``.
    ``build_id`` marks the dates in the feature ledger until their rows are committed, so of two concurrent builds of a
    date only the one that began last can complete. ``since``: the version of the table before that, so this build does
    not replace rows that a build which begins later has already recorded.
    """

    tables: Tables
    config: Config
    versions: Versions
    dates: Sequence[date]
    ledger: TileLedger
    profiles: Profiles
    num_buckets: int = NUM_BUCKETS
    build_id: str = ""
    since: int = 0

    def begin(self) -> "Features":
        """Record in the ledger that these dates are being built. Returns the build with its id."""
        begun = replace(self, build_id=uuid.uuid4().hex, since=self.tables.version(self.table))
        key = {"lineage_id": self.versions.lineage_id, "begun_by": begun.build_id}
        self.tables.add(FEATURE_SETS, [key | {"as_of": day} for day in self.dates], replacing=self._ledger_condition)
        return begun

    @property
    def table(self) -> TableSchema:
        """The table of the lineage's features."""
        return features_table(self.config, self.versions.lineage_id)

    def commit(self, tables: FileTables, files: Sequence[Written]) -> Counts:
        """Commit the features among the files that tasks wrote."""
        written = [file for file in files if file.output == "features"]
        paths = [file.file for file in written]
        tables.commit(self.table, paths, replacing=lambda values: values["as_of"] in self.dates, since=self.since)
        num_users, num_inexact = Counter[str](), Counter[str]()
        for file in written:
            as_of = file.file.values["as_of"]
            num_users[as_of] += file.file.num_rows
            num_inexact[as_of] += file.num_inexact
        return {day: (num_users[str(day)], num_inexact[str(day)]) for day in self.dates}

    def write(self, pooling: Pooling) -> Counts:
        """Let Spark write the features that a job computes."""
        rows, keys = pooling.rows(self.table.fields()), [{"as_of": day} for day in self.dates]
        self.tables.replace(rows, self.table, keys, since=self.since)
        counted = F.count("*"), F.count_if(~F.col("is_exact"))
        counts = self.tables.read(self.table, keys).groupBy("as_of").agg(*counted).collect()
        return dict.fromkeys(self.dates, (0, 0)) | {as_of: (users, inexact) for as_of, users, inexact in counts}

    def record(self, counts: Counts) -> int:
        """Complete the ledger entries of the built dates, with the hash of their inputs. Returns the number of rows.

        Raises
        ------
        UserrepError
            If another run has started to build one of the dates since this build began.
        """
        lineage_id, now = self.versions.lineage_id, utc_now()
        num_buckets = self.num_buckets if self.num_buckets < NUM_BUCKETS else None
        built: list[dict[str, Any]] = [
            {
                "lineage_id": lineage_id, "as_of": as_of, "valid_from": self.versions.valid_at(as_of),
                "log_hash": log_hash(self.ledger.latest, self.config, self.versions, as_of),
                "sides_hash": self.profiles.profiles_hash, "num_buckets": num_buckets, "num_users": num_users,
                "num_inexact": num_inexact, "built_at": now, "begun_by": None,
            }
            for as_of, (num_users, num_inexact) in counts.items()
        ]  # fmt: skip
        own_entries = {(as_of, self.build_id) for as_of in self.dates}
        if not self.tables.change(
            FEATURE_SETS,
            lambda rows: built if own_entries <= {(row.as_of, row.begun_by) for row in rows} else None,
            replacing=self._ledger_condition,
            lineage_id=lineage_id,
        ):
            raise changed_meanwhile(FEATURE_SETS.name)
        return sum(num_users for num_users, _ in counts.values())

    @property
    def _ledger_condition(self) -> str:
        return sql_any([{"lineage_id": self.versions.lineage_id, "as_of": day} for day in self.dates])


def stored_features(tables: Tables, config: Config, lineage_id: str, as_ofs: Sequence[date]) -> DataFrame:
    """Read the features of some as-of dates in their stored form. Only the partitions of these dates are read.

    Those of a date that is only trained on may be those of a sample of the users (``FeatureSet.num_buckets``).
    """
    return tables.read(features_table(config, lineage_id), [{"as_of": as_of} for as_of in as_ofs])


def read_features(tables: Tables, config: Config, lineage_id: str, as_ofs: Sequence[date]) -> DataFrame:
    """Read the features of some as-of dates with one column per block; pooled blocks are array<float>.

    Rows are those of ``stored_features``, which is cheaper where no vector is needed. Cost: all rows pass through
    Python once, as Arrow.
    """
    spec = FeatureSpec.of(config)
    ddl = ", ".join(["as_of DATE, user_id STRING", *(f"`{name}` {kind}" for name, kind in spec.columns())])
    rows = stored_features(tables, config, lineage_id, as_ofs)
    return rows.mapInArrow(lambda batches: (exported_form(batch, spec) for batch in batches), ddl)
