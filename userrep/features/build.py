"""Build ``user_features`` of as-of dates, and the ledger that says from what they were built."""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.features.layout import in_lists
from userrep.features.sides import Profiles, refresh_profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.inputs import Inputs, TileDays
from userrep.features.sums.item_files import dated_vectors, item_parts
from userrep.features.sums.plan import Plan, plan_ranges
from userrep.features.sums.pooling import Output, PoolingJob
from userrep.features.sums.tasks import pooled, written
from userrep.features.sums.writing import Destination, Written
from userrep.ids import short_hash
from userrep.items.versions import Versions
from userrep.spark.session import shuffle_partitions
from userrep.store.delta_files import changed_meanwhile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import FEATURE_SETS, USER_FEATURES, TableSchema, user_features
from userrep.store.sql import sql_in
from userrep.store.tables import Tables
from userrep.tiles.tiles import days_fingerprint, latest_tile_days, tile_ledger, tiles_by_cell
from userrep.utc import utc_now

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
    """Return the build of each as-of date, but for those that are under way. Driver memory: one entry a date."""
    rows = tables.ledger(FEATURE_SETS, lineage_id=lineage_id)
    return {
        row.as_of: FeatureSet(row.as_of, row.log_hash, row.sides_hash, row.num_users, row.num_inexact)
        for row in rows
        if row.begun_by is None
    }


def stale_features(
    tables: Tables,
    config: Config,
    versions: Versions,
    as_ofs: Sequence[date],
    *,
    fresh_sides: Mapping[date, str] | None = None,
) -> dict[date, str]:
    """Return the dates whose features are missing or were made from other inputs, with the reason.

    ``fresh_sides``: dates for which users and picks count too, with their fingerprint. For the others they do not:
    history stays as it was published.
    """
    built = feature_sets(tables, versions.lineage_id)
    days = latest_tile_days(tables)
    fresh_sides, reasons = fresh_sides or {}, {}
    for as_of in as_ofs:
        if as_of not in built:
            reasons[as_of] = "not built yet"
        elif built[as_of].log_hash != log_hash(days, config, versions, as_of):
            reasons[as_of] = "days of the log or item vectors changed"
        elif as_of in fresh_sides and built[as_of].sides_hash != fresh_sides[as_of]:
            reasons[as_of] = "users or picks changed"
    return reasons


def build_features(
    tables: Tables, config: Config, versions: Versions, as_ofs: Sequence[date], *, profiles: Profiles | None = None
) -> int:
    """Build the features of several as-of dates from the tiles, in one Spark job and one commit. Returns the rows.

    ``profiles``: those of the run; without them, the users' profiles are brought up to date.

    Cost: one read of the tiles of all windows together, the history's too, which by default is twice as many days as
    the longest of the others; from one date to the next, only what enters and leaves is summed. Item vectors that are
    too large for a worker are taken in parts (features/sums/item_files.py), which costs more reading and shuffles
    (features/sums/tasks.py). The ledger is written last: a run that was killed before leaves rows that the next run
    replaces. Raises UserrepError if another run has begun to build one of the dates meanwhile.
    """
    spec, dates = FeatureSpec.of(config), sorted(as_ofs)
    ledger = tile_ledger(tables)
    start = dates[0] - timedelta(days=spec.span)
    revisions = {day: revision for day, (_, revision) in ledger.latest.items() if start <= day < dates[-1]}
    tiles, profiles = [TileDays(revisions, before=False, after=True)], profiles or refresh_profiles(tables, config)
    inputs = Inputs(tables, tiles, sums=None, profiles=profiles)
    plan = plan_ranges(tiles_by_cell(tables, ledger, revisions.items()), min_ranges=shuffle_partitions(tables.spark))
    plan = replace(plan, item_parts=item_parts(tables, config, versions, dates).num_parts)
    job = PoolingJob(spec, dated_vectors(tables, config, versions, dates), ("features",))
    made = Features.begun(tables, config, versions, ledger.latest, profiles=profiles, dates=dates)
    if isinstance(tables, FileTables):
        counts = made.commit(tables, written(inputs, job, plan, made.destination(tables)), dates)
    else:
        counts = made.write(inputs, job, plan, dates)
    return made.record(counts)


@dataclass(frozen=True)
class Features:
    """What becomes of features that a job makes.

    ``latest``, ``sides_hash``: the days of tiles, and the files of users and picks, as the job has seen them.
    ``since``: the table's version when it began. ``build_id`` stands in the ledger in the place of what the dates were
    built from, until the new rows are there: so of two builds of a date the one that began last counts, or none.
    """

    tables: Tables
    config: Config
    versions: Versions
    latest: dict[date, tuple[str, int]]
    sides_hash: str
    since: int
    build_id: str

    @classmethod
    def begun(
        cls,
        tables: Tables,
        config: Config,
        versions: Versions,
        latest: dict[date, tuple[str, int]],
        *,
        profiles: Profiles,
        dates: Sequence[date],
    ) -> "Features":
        """Note what a job starts from, and in the ledger that it builds these dates."""
        build_id, lineage_id = uuid.uuid4().hex, versions.lineage_id
        begun = [{"lineage_id": lineage_id, "as_of": as_of, "begun_by": build_id} for as_of in dates]
        tables.add(FEATURE_SETS, begun, replacing=_are_of(lineage_id, dates))
        since = tables.version(features_table(config, lineage_id))
        return cls(tables, config, versions, latest, profiles.sides_hash, since, build_id)

    @property
    def table(self) -> TableSchema:
        """The lineage's table of features."""
        return features_table(self.config, self.versions.lineage_id)

    def destination(self, tables: FileTables) -> dict[Output, Destination]:
        """Return where tasks write features."""
        return {"features": Destination(tables.target(self.table), {})}

    def commit(self, tables: FileTables, made: Sequence[Written], dates: Sequence[date]) -> dict[date, tuple[int, int]]:
        """Put what tasks have written in the place of the features of ``dates``; count users, and inexact ones."""
        mine = [of for of in made if of.output == "features"]
        files = [of.file for of in mine]
        tables.commit(self.table, files, replacing=lambda of: of["as_of"] in dates, since=self.since)
        return {
            day: (
                sum(of.file.num_rows for of in mine if of.as_of == day),
                sum(of.num_inexact for of in mine if of.as_of == day),
            )
            for day in dates
        }

    def write(self, inputs: Inputs, job: PoolingJob, plan: Plan, dates: Sequence[date]) -> dict[date, tuple[int, int]]:
        """Run a job and let Spark write its features of ``dates``; count users, and inexact ones."""
        schema = self.tables.read(self.table).schema
        self.tables.replace(pooled(inputs, job, plan, schema), self.table, [{"as_of": day} for day in dates])
        rows = self.tables.read(self.table).where(sql_in("as_of", list(dates))).groupBy("as_of").agg(
            F.count("*").alias("num_users"), F.count_if(~F.col("is_exact")).alias("num_inexact")
        )  # fmt: skip
        counts = {row.as_of: (row.num_users, row.num_inexact) for row in rows.collect()}
        return {day: counts.get(day, (0, 0)) for day in dates}

    def record(self, counts: dict[date, tuple[int, int]]) -> int:
        """Say in the ledger from which content of the log features were made; return the number of rows.

        Raises
        ------
        UserrepError
            If another run has begun to build one of the dates since this one began.
        """
        now = utc_now()
        built: list[dict[str, Any]] = [
            {
                "lineage_id": self.versions.lineage_id,
                "as_of": as_of,
                "valid_from": self.versions.valid_at(as_of),
                "log_hash": log_hash(self.latest, self.config, self.versions, as_of),
                "sides_hash": self.sides_hash,
                "num_users": num_users,
                "num_inexact": num_inexact,
                "built_at": now,
                "begun_by": None,
            }
            for as_of, (num_users, num_inexact) in counts.items()
        ]
        lineage_id, dates = self.versions.lineage_id, list(counts)
        mine = {(as_of, self.build_id) for as_of in dates}
        if not self.tables.change(
            FEATURE_SETS,
            built,
            replacing=_are_of(lineage_id, dates),
            only_if=lambda rows: mine <= {(row.as_of, row.begun_by) for row in rows},
            lineage_id=lineage_id,
        ):
            raise changed_meanwhile(FEATURE_SETS.name)
        return sum(num_users for num_users, _ in counts.values())


def _are_of(lineage_id: str, dates: Sequence[date]) -> str:
    """Select the ledger's rows of some dates."""
    return f"lineage_id = '{lineage_id}' AND {sql_in('as_of', list(dates))}"


def features_table(config: Config, lineage_id: str) -> TableSchema:
    """Return the schema of a lineage's features."""
    return user_features(lineage_id, FeatureSpec.of(config).ddl())


def features_tables(tables: Tables) -> list[TableSchema]:
    """Return the schemas of all lineages' features, as they are stored."""
    found = []
    for name in tables.stored(USER_FEATURES):
        lineage_id = name.removeprefix(USER_FEATURES)
        columns = tables.fields(user_features(lineage_id, "")).fields[2:]
        named = [f"{of.name} {of.dataType.simpleString().upper()}" for of in columns]  # but for as_of and user_id
        found.append(user_features(lineage_id, ", ".join(named)))
    return found


def stored_features(tables: Tables, config: Config, lineage_id: str, as_ofs: Sequence[date]) -> DataFrame:
    """Read the features of some as-of dates as they are stored; only their partitions are read."""
    return tables.read(features_table(config, lineage_id)).where(sql_in("as_of", list(as_ofs)))


def read_features(tables: Tables, config: Config, lineage_id: str, as_ofs: Sequence[date]) -> DataFrame:
    """Read the features of some as-of dates, a column per block: array<float> each for pooled vectors.

    Cost: rows pass through Python once, in Arrow; where no vector is wanted, take ``stored_features``.
    """
    spec = FeatureSpec.of(config)
    ddl = ", ".join(["as_of DATE, user_id STRING", *(f"`{name}` {kind}" for name, kind in spec.columns())])

    def with_lists(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return (in_lists(batch, spec) for batch in batches)

    return stored_features(tables, config, lineage_id, as_ofs).mapInArrow(with_lists, ddl)


def log_hash(days: dict[date, tuple[str, int]], config: Config, versions: Versions, as_of: date) -> str:
    """Hash the windows' days and the item vectors' version that an as-of date is made from."""
    start = as_of - timedelta(days=FeatureSpec.of(config).span)
    version = versions.valid_at(as_of)
    return short_hash([days_fingerprint(days, start=start, end=as_of), str(version)])
