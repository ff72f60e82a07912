"""The daily refresh: window sums moved from one as-of date to another by the days that differ, then features.

A generation of ``user_window_sums`` is a whole state: an as-of date, and of each day of the longest window the revision
of its tiles that is in it. The next one is made from the difference of the two states: days that enter, leave, or pass
from one window's ring to the next, and days whose tiles have a new revision, whose old rows are taken out as exactly
as they were put in. Sums are exact, so that a refresh and a full rebuild give the same bits.
"""

import bisect
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from userrep.config import Config
from userrep.events.buckets import user_slice
from userrep.events.tiles import NUM_CELLS, TileLedger, rows_of_revisions, tile_ledger, tiles_by_cell
from userrep.features.accumulate import day_number
from userrep.features.build import dated_vectors, feature_sets, features_table, read_profiles, write_features
from userrep.features.columns import SUMS_DDL
from userrep.features.pooling import PoolingJob, VectorFiles
from userrep.features.spec import FeatureSpec
from userrep.features.tasks import Inputs, Plan, SumRows, TileRows, plan_ranges, pooled
from userrep.items.versions import Versions
from userrep.schemas import SUM_GENERATIONS, USER_WINDOW_SUMS
from userrep.tables import Tables

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


def refresh_features(tables: Tables, config: Config, versions: Versions, as_of: date, *, full: bool = False) -> Refresh:
    """Bring ``user_window_sums`` and the features of an as-of date up to date with the tiles.

    Starts from the generation of sums that differs least; from the tiles alone where there is none of the same version
    of the item vectors, where the difference is no less work, or with ``full``. Cost: of tiles, one day that enters
    and one per window that leaves its ring, per day moved; two for each changed day; the sums are read twice and
    written once, the features written once; no shuffle. Killed at any moment, the next run starts from the last
    complete generation.
    """
    spec, ledger = FeatureSpec.of(config), tile_ledger(tables)
    start = as_of - timedelta(days=spec.longest)
    after = {day: revision for day, (_, revision) in ledger.latest.items() if start <= day < as_of}
    known = generations(tables, versions.lineage_id)
    number = 1 + max((generation.generation for generation in known), default=0)
    made = Generation(number, as_of, versions.valid_at(as_of), after, 0)
    work = _Refresh(tables, config, versions, dated_vectors(tables, config, versions, [as_of]))
    base, reason = (None, "asked for") if full else work.base(known, made, ledger)
    difference = Difference.between(base, made, spec)
    made = work.write_sums(base, made, difference, ledger)
    features = work.features_of(made)
    num_users = write_features(tables, config, versions, features, [as_of], latest=ledger.latest)
    return Refresh(base.as_of if base else None, reason, ledger.num_tiles(difference.tiles), num_users)


def generations(tables: Tables, lineage_id: str) -> list[Generation]:
    """Return a lineage's complete generations of window sums whose rows are kept, oldest first."""
    rows = tables.read(SUM_GENERATIONS).where(f"lineage_id = '{lineage_id}'").collect()
    found = [Generation(r.generation, r.as_of, r.valid_from, dict(r.revision_by_day), r.num_users) for r in rows]
    return sorted(found, key=lambda made: made.generation)[-_KEPT:]


@dataclass(frozen=True)
class _Refresh:
    """The steps of a refresh."""

    tables: Tables
    config: Config
    versions: Versions
    vectors: tuple[tuple[date, VectorFiles], ...]

    def base(self, known: list[Generation], made: Generation, ledger: TileLedger) -> tuple[Generation | None, str]:
        """Choose the generation to start from, and say why it is that or none."""
        usable = [generation for generation in known if generation.valid_from == made.valid_from]
        if not known:
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

    def write_sums(
        self, base: Generation | None, made: Generation, difference: Difference, ledger: TileLedger
    ) -> Generation:
        """Write a generation, and then the row of the ledger that makes it count; older ones go, but for the last."""
        job = PoolingJob(
            FeatureSpec.of(self.config),
            self.vectors,
            "sums",
            before=base.as_of if base else None,
            changed_days=tuple(day_number(day) for day in difference.changed),
        )
        tiles = [
            TileRows(rows_of_revisions(self.tables, difference.leaving), before=True, after=False),
            TileRows(rows_of_revisions(self.tables, difference.entering), before=False, after=True),
            TileRows(rows_of_revisions(self.tables, difference.passing), before=True, after=True),
        ]
        before = SumRows(self._rows_of(base), base.as_of) if base else None
        inputs = Inputs(tiles, sums=before, profiles=None, is_direct=self.tables.has_files)
        plan = self._plan(tiles_by_cell(self.tables, ledger, difference.tiles), base.num_users if base else 0)
        sums = pooled(inputs, job, plan, cast(StructType, StructType.fromDDL(SUMS_DDL)))
        keys = {"lineage_id": F.lit(self.versions.lineage_id), "generation": F.lit(made.generation)}
        where = (
            f"lineage_id = '{self.versions.lineage_id}' AND "
            f"(generation >= {made.generation} OR generation <= {made.generation - _KEPT})"
        )
        rows = sums.withColumns({**keys, "user_slice": user_slice(plan.num_ranges)})
        self.tables.replace(rows, USER_WINDOW_SUMS, where)
        made = replace(made, num_users=self._rows_of(made).count())
        row = vars(made) | {"lineage_id": self.versions.lineage_id, "built_at": datetime.now(UTC).replace(tzinfo=None)}
        schema = self.tables.read(SUM_GENERATIONS).schema
        self.tables.append(self.tables.spark.createDataFrame([row], schema), SUM_GENERATIONS)
        return made

    def features_of(self, made: Generation) -> DataFrame:
        """Make features of a generation of sums and of the users' profiles."""
        job = PoolingJob(FeatureSpec.of(self.config), self.vectors, "features", adds_up=True)
        sums, profiles = SumRows(self._rows_of(made), made.as_of), read_profiles(self.tables, self.config)
        inputs = Inputs([], sums=sums, profiles=profiles, is_direct=self.tables.has_files)
        schema = self.tables.read(features_table(self.config, self.versions.lineage_id)).schema
        return pooled(inputs, job, self._plan(np.zeros(NUM_CELLS, np.int64), made.num_users), schema)

    def _plan(self, num_tiles: NDArray[np.int64], num_users: int) -> Plan:
        work = num_tiles + num_users * _TILES_PER_USER // NUM_CELLS
        return plan_ranges(work, min_ranges=self.tables.shuffle_partitions())

    def _rows_of(self, generation: Generation) -> DataFrame:
        where = f"lineage_id = '{self.versions.lineage_id}' AND generation = {generation.generation}"
        return self.tables.read(USER_WINDOW_SUMS).where(where)


def _ring(spec: FeatureSpec, as_of: date, day: date) -> int:
    """Return which window's ring a day is in."""
    return bisect.bisect_left(spec.windows_days, (as_of - day).days)
