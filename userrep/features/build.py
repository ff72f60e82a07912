"""Build ``user_features`` for as-of dates and record the inputs of each build in the ledger."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.features.layout import exported_form
from userrep.features.profiles import Profiles, refresh_profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.generations import TileDays
from userrep.features.sums.inputs import Inputs
from userrep.features.sums.item_vector_files import dated_vectors, item_parts
from userrep.features.sums.plan import Plan, plan_ranges
from userrep.features.sums.pooling import Output, PoolingJob
from userrep.features.sums.tasks import Destination, Written, pooled_rows, write_files
from userrep.ids import short_hash
from userrep.items.versions import Versions
from userrep.spark.session import shuffle_partitions
from userrep.store.delta_files import changed_meanwhile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import FEATURE_SETS, USER_FEATURES, TableSchema, user_features
from userrep.store.sql import sql_in
from userrep.store.tables import Tables
from userrep.tiles.ledger import days_fingerprint, tile_ledger, tiles_by_cell
from userrep.utc import utc_now

DATES_PER_JOB = 16  # each task keeps one open Parquet writer per date
Counts = Mapping[date, tuple[int, int]]  # the users of each date, and those whose sums are not exact


class FeatureSet(NamedTuple):
    """One build of the features of an as-of date. ``hash`` identifies the inputs of the build."""

    as_of: date
    log_hash: str
    profiles_hash: str
    num_users: int
    num_inexact: int

    @property
    def hash(self) -> str:
        return short_hash([self.log_hash, self.profiles_hash])


def feature_sets(tables: Tables, lineage_id: str) -> dict[date, FeatureSet]:
    """Return the completed build of each as-of date, without builds in progress. Driver memory: one entry per date."""
    rows = [row for row in tables.ledger(FEATURE_SETS, lineage_id=lineage_id) if row.begun_by is None]
    return {r.as_of: FeatureSet(r.as_of, r.log_hash, r.sides_hash, r.num_users, r.num_inexact) for r in rows}


def stale_features(
    tables: Tables, config: Config, versions: Versions, as_ofs: Sequence[date], *, profile_hashes: Mapping[date, str]
) -> dict[date, str]:
    """Return the as-of dates whose features are missing or were built from other inputs, with the reason.

    ``profile_hashes``: fingerprint of the user profiles, for the dates that must also reflect changed users and picks.
    Other dates ignore such changes: history stays as it was published.
    """
    built = feature_sets(tables, versions.lineage_id)
    days = tile_ledger(tables).latest
    reasons = {}
    for as_of in as_ofs:
        if as_of not in built:
            reasons[as_of] = "not built yet"
        elif built[as_of].log_hash != log_hash(days, config, versions, as_of):
            reasons[as_of] = "days of the log or item vectors changed"
        elif as_of in profile_hashes and built[as_of].profiles_hash != profile_hashes[as_of]:
            reasons[as_of] = "users or picks changed"
    return reasons


def build_features(
    tables: Tables, config: Config, versions: Versions, as_ofs: Sequence[date], *, profiles: Profiles | None = None
) -> int:
    """Build the features of several as-of dates from the tiles, in one Spark job and one commit. Returns the row count.

    ``profiles``: the profiles pinned by the run. Without them, ``user_profiles`` is refreshed first.

    Cost: one read of the tiles of all windows, including the history window (by default twice as many days as the
    longest other window). From one date to the next, only entering and leaving tiles are summed. Item vectors that are
    too large for a worker are processed in parts (features/sums/item_vector_files.py), which adds reads and shuffles
    (features/sums/tasks.py). The ledger is written last, so the next run replaces the rows of a killed run.

    Raises
    ------
    UserrepError
        If another run has started to build one of the dates in the meantime.
    """
    spec, dates, ledger = FeatureSpec.of(config), sorted(as_ofs), tile_ledger(tables)
    revisions = ledger.revisions(dates[0] - timedelta(days=spec.span), dates[-1])
    tiles, profiles = [TileDays(revisions, before=False, after=True)], profiles or refresh_profiles(tables, config)
    inputs = Inputs(tables, tiles, sums=None, profiles_version=profiles.version)
    parts = item_parts(tables, config, versions, dates).num_parts
    cells = tiles_by_cell(tables, ledger, revisions.items())
    plan = plan_ranges(cells, min_ranges=shuffle_partitions(tables.spark), item_parts=parts)
    job = PoolingJob(spec, dated_vectors(tables, config, versions, dates), ("features",))
    build = Features(tables, config, versions, dates, ledger.latest, profiles.profiles_hash)
    since = build.begin()
    if isinstance(tables, FileTables):
        counts = build.commit(tables, write_files(inputs, job, plan, build.destination(tables)), since=since)
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

    def destination(self, tables: FileTables) -> dict[Output, Destination]:
        """Return the destination of the feature files that tasks write."""
        return {"features": Destination(tables.target(self.table), {})}

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

    def write(self, inputs: Inputs, job: PoolingJob, plan: Plan, *, since: int) -> Counts:
        """Run a job and let Spark write its features. ``since``: the version that ``begin`` returned."""
        pooled = pooled_rows(inputs, job, plan, self.tables.read(self.table).schema)
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
        return f"lineage_id = '{self.versions.lineage_id}' AND {sql_in('as_of', list(self.dates))}"


def features_table(config: Config, lineage_id: str) -> TableSchema:
    """Return the schema of a lineage's feature table."""
    return user_features(lineage_id, FeatureSpec.of(config).ddl())


def features_tables(tables: Tables) -> list[TableSchema]:
    """Return the schemas of the feature tables of all lineages, as stored."""
    schemas = []
    stored = [name for name in tables.stored() if name.startswith(USER_FEATURES)]
    for lineage_id in (name.removeprefix(USER_FEATURES) for name in stored):
        columns = tables.fields(user_features(lineage_id, "")).fields[2:]  # without as_of and user_id
        ddl = [f"{column.name} {column.dataType.simpleString().upper()}" for column in columns]
        schemas.append(user_features(lineage_id, ", ".join(ddl)))
    return schemas


def stored_features(tables: Tables, config: Config, lineage_id: str, as_ofs: Sequence[date]) -> DataFrame:
    """Read the features of some as-of dates in their stored form. Only the partitions of these dates are read."""
    return tables.read(features_table(config, lineage_id)).where(sql_in("as_of", list(as_ofs)))


def read_features(tables: Tables, config: Config, lineage_id: str, as_ofs: Sequence[date]) -> DataFrame:
    """Read the features of some as-of dates with one column per block; pooled blocks are array<float>.

    Cost: all rows pass through Python once, as Arrow. ``stored_features`` is cheaper where no vector is needed.
    """
    spec = FeatureSpec.of(config)
    ddl = ", ".join(["as_of DATE, user_id STRING", *(f"`{name}` {kind}" for name, kind in spec.columns())])
    rows = stored_features(tables, config, lineage_id, as_ofs)
    return rows.mapInArrow(lambda batches: (exported_form(batch, spec) for batch in batches), ddl)


def log_hash(days: dict[date, tuple[str, int]], config: Config, versions: Versions, as_of: date) -> str:
    """Hash the tile days of the windows and the item-vector version that an as-of date is built from."""
    start = as_of - timedelta(days=FeatureSpec.of(config).span)
    version = versions.valid_at(as_of)
    return short_hash([days_fingerprint(days, start=start, end=as_of), str(version)])
