"""The daily refresh: window sums moved from one as-of date to another by the days that differ, then features.

A generation of ``user_window_sums`` is a whole state: an as-of date, and of each day of all windows the revision of
its tiles that is in it. The next one is made from the difference of the two states: days that enter, leave, or pass
from one window's ring to the next, and days whose tiles have a new revision, whose old rows are taken out as exactly
as they were put in. Sums are exact, so that a refresh and a full rebuild give the same bits.
"""

import bisect
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, cast

from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from userrep.config import Config
from userrep.features.build import Features, feature_sets
from userrep.features.sides import Profiles, refresh_profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.batches import SUMS_DDL
from userrep.features.sums.inputs import Inputs, SumsOf, TileDays
from userrep.features.sums.item_files import dated_vectors, item_parts
from userrep.features.sums.plan import Plan, plan_ranges
from userrep.features.sums.pooling import Output, PoolingJob
from userrep.features.sums.tasks import pooled, written
from userrep.features.sums.writing import Destination
from userrep.items.versions import Versions
from userrep.spark.session import shuffle_partitions
from userrep.store.buckets import user_slice
from userrep.store.file_tables import FileTables
from userrep.store.schemas import SUM_GENERATIONS, USER_WINDOW_SUMS
from userrep.store.tables import Keys, Tables
from userrep.tiles.tiles import NUM_CELLS, TileLedger, tile_ledger, tiles_by_cell
from userrep.utc import day_number, utc_now

_KEPT = 2  # generations whose rows stay
_TILES_PER_USER = 30  # tiles whose work is about that of reading and writing one user's sums
_WORTH_IT = 0.7  # a difference of more than that share of all tiles is no less work than a full rebuild


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
    """What a refresh did: from which as-of date's sums (None: from the tiles alone, for ``reason``)."""

    since: date | None
    reason: str
    num_tiles: int
    num_users: int


@dataclass(frozen=True)
class Difference:
    """The tiles that lie between two states, as (day, revision): only before, only after, or in another ring."""

    leaving: dict[date, int]
    entering: dict[date, int]
    passing: dict[date, int]
    changed: tuple[date, ...]

    @classmethod
    def between(cls, base: Generation | None, made: Generation, spec: FeatureSpec) -> "Difference":
        """Compare two states: the revisions of their days, and the rings that the days are in; None: no days."""
        if base is None:
            return cls({}, made.revision_by_day, {}, ())
        before, after = base.revision_by_day, made.revision_by_day
        passing = {
            day: revision
            for day, revision in after.items()
            if before.get(day) == revision and _ring(spec, base.as_of, day) != _ring(spec, made.as_of, day)
        }
        return cls(
            leaving={day: revision for day, revision in before.items() if after.get(day) != revision},
            entering={day: revision for day, revision in after.items() if before.get(day) != revision},
            passing=passing,
            changed=tuple(sorted(day for day in after if before.get(day, after[day]) != after[day])),
        )

    @property
    def tiles(self) -> list[tuple[date, int]]:
        """All (day, revision) to be read."""
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
    """Bring ``user_window_sums`` and the features of an as-of date up to date with the tiles.

    ``profiles``: those of the run; without them, the users' profiles are brought up to date.

    Starts from the generation of sums that differs least; from the tiles alone where there is none of the same version
    of the item vectors, where the difference is no less work, or with ``full``. Cost: of tiles, one day that enters
    and one per window, the history's too, that leaves its ring, per day moved; two for each changed day; the sums are
    read twice and written once, the features written once; no shuffle. Only item vectors that are too large for a
    worker are taken in parts (sums/item_files.py), which costs more reading and shuffles (features/sums/tasks.py).
    Killed at any moment, the next run starts from the last complete generation. Where that is of this very state, as
    after a kill between sums and features, or where profiles alone have changed, only features are made.
    """
    spec, ledger = FeatureSpec.of(config), tile_ledger(tables)
    start = as_of - timedelta(days=spec.span)
    after = {day: revision for day, (_, revision) in ledger.latest.items() if start <= day < as_of}
    known = generations(tables, versions.lineage_id)
    number = 1 + max((generation.generation for generation in known), default=0)
    made = Generation(number, as_of, versions.valid_at(as_of), after, 0)
    work = Motion(tables, config, versions, made, ledger, known)
    base, reason = (None, "asked for") if full else work.base()
    difference = Difference.between(base, made, spec)
    num_users = _Refresh(work, profiles or refresh_profiles(tables, config)).run(base, difference)
    return Refresh(base.as_of if base else None, reason, ledger.num_tiles(difference.tiles), num_users)


def generations(tables: Tables, lineage_id: str) -> list[Generation]:
    """Return a lineage's complete generations of window sums whose rows are kept, oldest first."""
    rows = tables.ledger(SUM_GENERATIONS, lineage_id=lineage_id)
    found = [Generation(r.generation, r.as_of, r.valid_from, dict(r.revision_by_day), r.num_users) for r in rows]
    return sorted(found, key=lambda made: made.generation)[-_KEPT:]


@dataclass(frozen=True)
class Motion:
    """A way from a state of the sums that is there to another one, ``made``, whose number of users is not known yet."""

    tables: Tables
    config: Config
    versions: Versions
    made: Generation
    ledger: TileLedger
    known: list[Generation]

    def base(self) -> tuple[Generation | None, str]:
        """Choose the generation to start from, and say why it is that or none."""
        made, ledger = self.made, self.ledger
        usable = [generation for generation in self.known if generation.valid_from == made.valid_from]
        if not self.known:
            return None, "no window sums yet"
        if not usable:
            return None, f"item vectors of {made.valid_from} are new to the window sums"
        spec = FeatureSpec.of(self.config)
        work = {before.generation: ledger.num_tiles(Difference.between(before, made, spec).tiles) for before in usable}
        found = min(usable, key=lambda before: (work[before.generation], -before.generation))
        if work[found.generation] > _WORTH_IT * ledger.num_tiles(made.revision_by_day.items()):
            return None, f"too much differs from the sums of {found.as_of}"
        built = feature_sets(self.tables, self.versions.lineage_id).get(found.as_of)
        if built is not None and built.num_inexact:
            return None, f"{built.num_inexact} users were beyond exact sums on {found.as_of}"
        return found, f"from the sums of {found.as_of}"

    def inputs(self, base: Generation | None, difference: Difference, profiles: Profiles) -> Inputs:
        """Return what is read: the tiles in between, the sums to start from, and the profiles."""
        tiles = [
            TileDays(difference.leaving, before=True, after=False),
            TileDays(difference.entering, before=False, after=True),
            TileDays(difference.passing, before=True, after=True),
        ]
        before = SumsOf(self.versions.lineage_id, base.generation, base.as_of) if base else None
        return Inputs(self.tables, tiles, before, profiles)

    def job(self, base: Generation | None, difference: Difference, outputs: tuple[Output, ...]) -> PoolingJob:
        """Say what tasks make of it."""
        dated = dated_vectors(self.tables, self.config, self.versions, [self.made.valid_from])
        return PoolingJob(
            FeatureSpec.of(self.config),
            ((self.made.as_of, dated[0][1]),),
            outputs,
            before=base.as_of if base else None,
            changed_days=tuple(day_number(day) for day in (*difference.changed, *difference.leaving)),
        )

    def plan(self, base: Generation | None, difference: Difference) -> Plan:
        """Spread it over tasks."""
        work = tiles_by_cell(self.tables, self.ledger, difference.tiles)
        work += (base.num_users if base else 0) * _TILES_PER_USER // NUM_CELLS
        plan = plan_ranges(work, min_ranges=shuffle_partitions(self.tables.spark))
        parts = item_parts(self.tables, self.config, self.versions, [self.made.valid_from])
        return replace(plan, item_parts=parts.num_parts)


class _Refresh:
    """A refresh on its way: what it writes."""

    def __init__(self, motion: Motion, profiles: Profiles) -> None:
        self.motion, self.made, self.profiles = motion, motion.made, profiles
        self.tables, self.config, self.versions = motion.tables, motion.config, motion.versions

    def run(self, base: Generation | None, difference: Difference) -> int:
        """Write sums, then features, then the row of each ledger that makes them count; return the users."""
        as_of, tables, motion = self.made.as_of, self.tables, self.motion
        there = base if base is not None and base.as_of == as_of and not difference.tiles else None
        inputs = motion.inputs(base, difference, self.profiles)
        outputs: tuple[Output, ...] = ("features",) if there else ("sums", "features")
        job, plan = motion.job(base, difference, outputs), motion.plan(base, difference)
        latest = motion.ledger.latest
        features = Features.begun(tables, self.config, self.versions, latest, profiles=self.profiles, dates=[as_of])
        since = tables.version(USER_WINDOW_SUMS)
        if not there:
            number = tables.reserve(USER_WINDOW_SUMS, self.versions.lineage_id, first=self.made.generation)
            self.made = replace(self.made, generation=number)
        if isinstance(tables, FileTables):
            files = written(inputs, job, plan, self._destination(tables) | features.destination(tables))
            if not there:
                sums = [of.file for of in files if of.output == "sums"]
                tables.commit(USER_WINDOW_SUMS, sums, replacing=self._is_replaced, since=since)
                self._record(sum(file.num_rows for file in sums))
            counts = features.commit(tables, files, [as_of])
        else:
            if not there:
                self._record(self._write(inputs, job, plan))
            sums_now = SumsOf(self.versions.lineage_id, (there or self.made).generation, as_of)
            of_sums = replace(job.for_adding_up(), outputs=("features",))
            counts = features.write(replace(inputs, tiles=[], sums=sums_now), of_sums, plan, [as_of])
        return features.record(counts)

    def _destination(self, tables: FileTables) -> dict[Output, Destination]:
        values = {"lineage_id": self.versions.lineage_id, "generation": self.made.generation}
        return {"sums": Destination(tables.target(USER_WINDOW_SUMS), values)}

    @property
    def _first_kept(self) -> int:
        """The newest complete generation, whose rows stay next to those of this one; 0 if there is none."""
        return self.motion.known[-1].generation if self.motion.known else 0

    def _is_replaced(self, of: dict[str, Any]) -> bool:
        """Return whether rows go when this generation comes: of older generations, and of runs killed before them."""
        return bool(of["lineage_id"] == self.versions.lineage_id and of["generation"] < self._first_kept)

    def _write(self, inputs: Inputs, job: PoolingJob, plan: Plan) -> int:
        """Let Spark write the sums; return the users."""
        lineage_id, generation = self.versions.lineage_id, self.made.generation
        schema = cast(StructType, StructType.fromDDL(SUMS_DDL))
        sums = pooled(inputs.without_profiles(), replace(job, outputs=("sums",)), plan, schema)
        keys = {"lineage_id": F.lit(lineage_id), "generation": F.lit(generation)}
        rows = sums.withColumns({**keys, "user_slice": user_slice(plan.num_ranges)})
        old = [earlier.generation for earlier in self.motion.known[:-1]]
        replaced: Keys = [{"lineage_id": lineage_id, "generation": number} for number in (generation, *old)]
        self.tables.replace(rows, USER_WINDOW_SUMS, replaced)
        written_now = self.tables.read(USER_WINDOW_SUMS).where(
            f"lineage_id = '{lineage_id}' AND generation = {generation}"
        )
        return written_now.count()

    def _record(self, num_users: int) -> None:
        row = vars(replace(self.made, num_users=num_users)) | {
            "lineage_id": self.versions.lineage_id,
            "built_at": utc_now(),
        }
        self.tables.add(SUM_GENERATIONS, [row])


def _ring(spec: FeatureSpec, as_of: date, day: date) -> int:
    """Return which window's ring a day is in."""
    return bisect.bisect_left(spec.windows, (as_of - day).days)
