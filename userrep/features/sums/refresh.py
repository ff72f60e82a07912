"""The daily refresh: window sums are updated from one as-of date to another by the days that differ, then features.

A generation of ``user_window_sums`` is a complete state: an as-of date, and the tile revision of each day of all
windows. The next generation is built from the difference of two states: days that enter, leave or move to another
window's ring, and days whose tiles have a new revision. Rows of an old revision are subtracted exactly as they were
added. Sums are exact, so a refresh and a full rebuild give the same bits.
"""

import bisect
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, cast

from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from userrep.config import Config
from userrep.features.build import Features, feature_sets
from userrep.features.profiles import Profiles, refresh_profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.batches import SUMS_DDL
from userrep.features.sums.inputs import Inputs, StoredSums, TileDays
from userrep.features.sums.item_vector_files import dated_vectors, item_parts
from userrep.features.sums.plan import Plan, plan_ranges
from userrep.features.sums.pooling import Output, PoolingJob
from userrep.features.sums.tasks import pooled_rows, write_files
from userrep.features.sums.writing import Destination
from userrep.items.versions import Versions
from userrep.spark.session import shuffle_partitions
from userrep.store.buckets import user_slice
from userrep.store.file_tables import FileTables
from userrep.store.schemas import SUM_GENERATIONS, USER_WINDOW_SUMS
from userrep.store.tables import Keys, Tables
from userrep.tiles.ledger import NUM_CELLS, TileLedger, tile_ledger, tiles_by_cell
from userrep.utc import day_number, utc_now

_KEPT = 2  # generations whose rows are kept
_TILES_PER_USER = 30  # reading and writing one user's sums costs about as much as this many tiles
_MAX_DIFFERENCE = 0.7  # share of all tiles above which a full rebuild is no more work than an update


@dataclass(frozen=True)
class Generation:
    """A complete generation of window sums."""

    generation: int
    as_of: date
    valid_from: date
    revision_by_day: dict[date, int]
    num_users: int


@dataclass(frozen=True)
class Refresh:
    """The result of a refresh. ``since``: as-of date of the sums it started from; None for a rebuild from tiles."""

    since: date | None
    reason: str
    num_tiles: int
    num_users: int


@dataclass(frozen=True)
class Difference:
    """The tiles that differ between two states, as revisions by day: old only, new only, or in another ring."""

    leaving: dict[date, int]
    entering: dict[date, int]
    passing: dict[date, int]
    changed: tuple[date, ...]

    @classmethod
    def between(cls, base: Generation | None, target: Generation, spec: FeatureSpec) -> "Difference":
        """Compare the day revisions and rings of two states. ``base`` None: start from no days."""
        if base is None:
            return cls({}, target.revision_by_day, {}, ())
        before, after = base.revision_by_day, target.revision_by_day
        passing = {
            day: revision
            for day, revision in after.items()
            if before.get(day) == revision and _ring(spec, base.as_of, day) != _ring(spec, target.as_of, day)
        }
        return cls(
            leaving={day: revision for day, revision in before.items() if after.get(day) != revision},
            entering={day: revision for day, revision in after.items() if before.get(day) != revision},
            passing=passing,
            changed=tuple(sorted(day for day in after if before.get(day, after[day]) != after[day])),
        )

    @property
    def tiles(self) -> list[tuple[date, int]]:
        """All (day, revision) pairs to read."""
        return [*self.leaving.items(), *self.entering.items(), *self.passing.items()]


def refresh_features(
    tables: Tables,
    config: Config,
    versions: Versions,
    as_of: date,
    *,
    profiles: Profiles | None = None,
    full: bool = False,
) -> Refresh:
    """Update ``user_window_sums`` and the features of an as-of date from the tiles.

    ``profiles``: the profiles pinned by the run. Without them, ``user_profiles`` is refreshed first.

    Starts from the stored generation that differs least. Rebuilds from tiles alone if no generation uses the same
    item-vector version, if the difference is no less work, or with ``full``. Cost per day moved: the tiles of one
    entering day, and per window (including the history window) of one day that leaves its ring; for each changed day,
    its tiles twice. Sums are read twice and written once, features written once. No shuffle, unless the item vectors
    are too large for a worker (sums/item_vector_files.py), which adds reads and shuffles (features/sums/tasks.py).

    After a kill, the next run starts from the last complete generation. Only features are built if that generation
    already has the target state, as after a kill between sums and features, or if only profiles have changed.
    """
    spec, ledger = FeatureSpec.of(config), tile_ledger(tables)
    start = as_of - timedelta(days=spec.span)
    after = {day: revision for day, (_, revision) in ledger.latest.items() if start <= day < as_of}
    known = generations(tables, versions.lineage_id)
    number = 1 + max((generation.generation for generation in known), default=0)
    target = Generation(number, as_of, versions.valid_at(as_of), after, 0)
    update = SumsUpdate(tables, config, versions, target, ledger, known)
    base, reason = (None, "requested") if full else update.base()
    difference = Difference.between(base, target, spec)
    num_users = _RefreshRun(update, profiles or refresh_profiles(tables, config)).run(base, difference)
    return Refresh(base.as_of if base else None, reason, ledger.num_tiles(difference.tiles), num_users)


def generations(tables: Tables, lineage_id: str) -> list[Generation]:
    """Return a lineage's complete generations of window sums whose rows are kept, oldest first."""
    rows = tables.ledger(SUM_GENERATIONS, lineage_id=lineage_id)
    complete = [Generation(r.generation, r.as_of, r.valid_from, dict(r.revision_by_day), r.num_users) for r in rows]
    return sorted(complete, key=lambda generation: generation.generation)[-_KEPT:]


@dataclass(frozen=True)
class SumsUpdate:
    """An update of the sums from a stored generation to ``target``, whose number of users is not known yet.

    ``known``: the stored generations, oldest first.
    """

    tables: Tables
    config: Config
    versions: Versions
    target: Generation
    ledger: TileLedger
    known: list[Generation]

    def base(self) -> tuple[Generation | None, str]:
        """Choose the generation to start from, None for a rebuild, and return the reason for the choice."""
        target, ledger = self.target, self.ledger
        usable = [generation for generation in self.known if generation.valid_from == target.valid_from]
        if not self.known:
            return None, "no window sums yet"
        if not usable:
            return None, f"item vectors of {target.valid_from} are new to the window sums"
        spec = FeatureSpec.of(self.config)
        work = {old.generation: ledger.num_tiles(Difference.between(old, target, spec).tiles) for old in usable}
        best = min(usable, key=lambda old: (work[old.generation], -old.generation))
        if work[best.generation] > _MAX_DIFFERENCE * ledger.num_tiles(target.revision_by_day.items()):
            return None, f"too much differs from the sums of {best.as_of}"
        built = feature_sets(self.tables, self.versions.lineage_id).get(best.as_of)
        if built is not None and built.num_inexact:
            return None, f"sums of {built.num_inexact} users on {best.as_of} are not exact"
        return best, f"from the sums of {best.as_of}"

    def inputs(self, base: Generation | None, difference: Difference, profiles: Profiles) -> Inputs:
        """Return the inputs: the tiles that differ, the sums to start from, and the profiles."""
        tiles = [
            TileDays(difference.leaving, before=True, after=False),
            TileDays(difference.entering, before=False, after=True),
            TileDays(difference.passing, before=True, after=True),
        ]
        before = StoredSums(self.versions.lineage_id, base.generation, base.as_of) if base else None
        return Inputs(self.tables, tiles, before, profiles)

    def job(self, base: Generation | None, difference: Difference, outputs: tuple[Output, ...]) -> PoolingJob:
        """Return the pooling job of the update."""
        dated = dated_vectors(self.tables, self.config, self.versions, [self.target.valid_from])
        return PoolingJob(
            FeatureSpec.of(self.config),
            ((self.target.as_of, dated[0][1]),),
            outputs,
            before=base.as_of if base else None,
            changed_days=tuple(day_number(day) for day in (*difference.changed, *difference.leaving)),
        )

    def plan(self, base: Generation | None, difference: Difference) -> Plan:
        """Distribute the update over tasks."""
        work = tiles_by_cell(self.tables, self.ledger, difference.tiles)
        work += (base.num_users if base else 0) * _TILES_PER_USER // NUM_CELLS
        plan = plan_ranges(work, min_ranges=shuffle_partitions(self.tables.spark))
        parts = item_parts(self.tables, self.config, self.versions, [self.target.valid_from])
        return replace(plan, item_parts=parts.num_parts)


class _RefreshRun:
    """One run of a refresh, and the tables it writes."""

    def __init__(self, update: SumsUpdate, profiles: Profiles) -> None:
        self.update, self.target, self.profiles = update, update.target, profiles
        self.tables, self.config, self.versions = update.tables, update.config, update.versions

    def run(self, base: Generation | None, difference: Difference) -> int:
        """Write sums, then features, and after each the ledger row that makes it visible. Returns the user count."""
        as_of, tables, update = self.target.as_of, self.tables, self.update
        current = base if base is not None and base.as_of == as_of and not difference.tiles else None
        inputs = update.inputs(base, difference, self.profiles)
        outputs: tuple[Output, ...] = ("features",) if current else ("sums", "features")
        job, plan = update.job(base, difference, outputs), update.plan(base, difference)
        latest = update.ledger.latest
        features = Features.begin(tables, self.config, self.versions, latest, profiles=self.profiles, dates=[as_of])
        since = tables.version(USER_WINDOW_SUMS)
        if not current:
            number = tables.reserve(USER_WINDOW_SUMS, self.versions.lineage_id, first=self.target.generation)
            self.target = replace(self.target, generation=number)
        if isinstance(tables, FileTables):
            files = write_files(inputs, job, plan, self._destination(tables) | features.destination(tables))
            if not current:
                sums = [output.file for output in files if output.output == "sums"]
                tables.commit(USER_WINDOW_SUMS, sums, replacing=self._is_replaced, since=since)
                self._record(sum(file.num_rows for file in sums))
            counts = features.commit(tables, files, [as_of])
        else:
            if not current:
                self._record(self._write(inputs, job, plan))
            sums_now = StoredSums(self.versions.lineage_id, (current or self.target).generation, as_of)
            feature_job = replace(job.for_adding_up(), outputs=("features",))
            counts = features.write(replace(inputs, tiles=[], sums=sums_now), feature_job, plan, [as_of])
        return features.record(counts)

    def _destination(self, tables: FileTables) -> dict[Output, Destination]:
        values = {"lineage_id": self.versions.lineage_id, "generation": self.target.generation}
        return {"sums": Destination(tables.target(USER_WINDOW_SUMS), values)}

    @property
    def _first_kept(self) -> int:
        """The newest complete generation; its rows are kept in addition to this one's. 0 if there is none."""
        return self.update.known[-1].generation if self.update.known else 0

    def _is_replaced(self, values: dict[str, Any]) -> bool:
        """Return whether this commit deletes rows: those of older generations, and of killed runs before them."""
        return bool(values["lineage_id"] == self.versions.lineage_id and values["generation"] < self._first_kept)

    def _write(self, inputs: Inputs, job: PoolingJob, plan: Plan) -> int:
        """Let Spark write the sums. Returns the number of users."""
        lineage_id, generation = self.versions.lineage_id, self.target.generation
        schema = cast(StructType, StructType.fromDDL(SUMS_DDL))
        sums = pooled_rows(inputs.without_profiles(), replace(job, outputs=("sums",)), plan, schema)
        keys = {"lineage_id": F.lit(lineage_id), "generation": F.lit(generation)}
        rows = sums.withColumns({**keys, "user_slice": user_slice(plan.num_ranges)})
        old = [earlier.generation for earlier in self.update.known[:-1]]
        replaced: Keys = [{"lineage_id": lineage_id, "generation": number} for number in (generation, *old)]
        self.tables.replace(rows, USER_WINDOW_SUMS, replaced)
        condition = f"lineage_id = '{lineage_id}' AND generation = {generation}"
        return self.tables.read(USER_WINDOW_SUMS).where(condition).count()

    def _record(self, num_users: int) -> None:
        keys = {"lineage_id": self.versions.lineage_id, "built_at": utc_now()}
        self.tables.add(SUM_GENERATIONS, [vars(replace(self.target, num_users=num_users)) | keys])


def _ring(spec: FeatureSpec, as_of: date, day: date) -> int:
    """Return the index of the ring that a day is in."""
    return bisect.bisect_left(spec.windows, (as_of - day).days)
