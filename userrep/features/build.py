"""Build ``user_features`` for as-of dates and record the inputs of each build in the ledger."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from userrep.features.sums.item_vector_files import dated_vectors, item_parts
from userrep.features.sums.plan import PoolingPlan, plan_ranges
from userrep.features.sums.pooling import Output, PoolingJob
from userrep.features.sums.pooling_tasks import Written, pooled_rows, write_outputs
from userrep.items.versions import Versions
from userrep.spark.session import shuffle_partitions
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import Target
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
) -> int:
    """Build the features of several as-of dates from the tiles, in one Spark job and one commit. Returns the row count.

    ``profiles``, ``ledger``: the profiles and the tile ledger pinned by the run. Without them, ``user_profiles`` is
    refreshed and the newest ledger read.

    Cost: one read of the tiles of all windows, including the history window (by default twice as many days as the
    longest other window). From one date to the next, only entering and leaving tiles are summed. Item vectors that are
    too large for a worker are processed in parts (features/sums/item_vector_files.py), which adds reads and shuffles
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
    plan = plan_ranges(cells, min_ranges=shuffle_partitions(tables.spark), item_parts=parts)
    job = PoolingJob(spec, dated_vectors(tables, config, versions, dates), ("features",))
    build = Features(tables, config, versions, dates, ledger.latest, profiles.profiles_hash)
    since = build.begin()
    if isinstance(tables, FileTables):
        counts = build.commit(tables, write_outputs(inputs, job, plan, build.targets(tables)), since=since)
    else:
        counts = build.write(inputs, job, plan, since=since)
    return build.record(counts)


@dataclass(frozen=True)
class Features:
    """A build of the features of ``dates``: from its entries in the ledger to the commit of its rows.

    ``latest``, ``profiles_hash``: the tile days and the fingerprint of the profile sources that the job uses.
    ``build_id`` marks the dates in the ledger until their rows are committed, so of two concurrent builds of a date
    only the one that began last can complete.
    """

    tables: Tables
    config: Config
    versions: Versions
    dates: Sequence[date]
    latest: dict[date, tuple[str, int]]
    profiles_hash: str
    build_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def begin(self) -> int:
        """Record in the ledger that these dates are being built. Returns the version of the table before that.

        So this build does not replace rows that a build which begins later has already recorded.
        """
        since = self.tables.version(self.table)
        key = {"lineage_id": self.versions.lineage_id, "begun_by": self.build_id}
        entries = [key | {"as_of": as_of} for as_of in self.dates]
        self.tables.add(FEATURE_SETS, entries, replacing=self._ledger_condition)
        return since

    @property
    def table(self) -> TableSchema:
        """The table of the lineage's features."""
        return features_table(self.config, self.versions.lineage_id)

    def targets(self, tables: FileTables) -> dict[Output, Target]:
        """Return the table of the features that tasks write."""
        return {"features": tables.target(self.table)}

    def commit(self, tables: FileTables, files: Sequence[Written], *, since: int) -> Counts:
        """Commit the features among the files that tasks wrote. ``since``: the version that ``begin`` returned."""
        written = [file for file in files if file.output == "features"]
        paths = [file.file for file in written]
        tables.commit(self.table, paths, replacing=lambda values: values["as_of"] in self.dates, since=since)
        num_users, num_inexact = Counter[date | None](), Counter[date | None]()
        for file in written:
            num_users[file.as_of] += file.file.num_rows
            num_inexact[file.as_of] += file.num_inexact
        return {day: (num_users[day], num_inexact[day]) for day in self.dates}

    def write(self, inputs: PoolingInputs, job: PoolingJob, plan: PoolingPlan, *, since: int) -> Counts:
        """Run a job and let Spark write its features. ``since``: the version that ``begin`` returned."""
        pooled = pooled_rows(inputs, job, plan, self.table.fields())
        self.tables.replace(pooled, self.table, [{"as_of": day} for day in self.dates], since=since)
        rows = stored_features(self.tables, self.config, self.versions.lineage_id, self.dates)
        counts = rows.groupBy("as_of").agg(F.count("*"), F.count_if(~F.col("is_exact"))).collect()
        return dict.fromkeys(self.dates, (0, 0)) | {as_of: (users, inexact) for as_of, users, inexact in counts}

    def record(self, counts: Counts) -> int:
        """Complete the ledger entries of the built dates, with the hash of their inputs. Returns the number of rows.

        Raises
        ------
        UserrepError
            If another run has started to build one of the dates since this build began.
        """
        lineage_id, now = self.versions.lineage_id, utc_now()
        built: list[dict[str, Any]] = [
            {
                "lineage_id": lineage_id, "as_of": as_of, "valid_from": self.versions.valid_at(as_of),
                "log_hash": log_hash(self.latest, self.config, self.versions, as_of), "sides_hash": self.profiles_hash,
                "num_users": num_users, "num_inexact": num_inexact, "built_at": now, "begun_by": None,
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
    """Read the features of some as-of dates in their stored form. Only the partitions of these dates are read."""
    return tables.read(features_table(config, lineage_id), [{"as_of": as_of} for as_of in as_ofs])


def read_features(tables: Tables, config: Config, lineage_id: str, as_ofs: Sequence[date]) -> DataFrame:
    """Read the features of some as-of dates with one column per block; pooled blocks are array<float>.

    Cost: all rows pass through Python once, as Arrow. ``stored_features`` is cheaper where no vector is needed.
    """
    spec = FeatureSpec.of(config)
    ddl = ", ".join(["as_of DATE, user_id STRING", *(f"`{name}` {kind}" for name, kind in spec.columns())])
    rows = stored_features(tables, config, lineage_id, as_ofs)
    return rows.mapInArrow(lambda batches: (exported_form(batch, spec) for batch in batches), ddl)
