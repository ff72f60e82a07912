"""The daily refresh: window sums are updated from one as-of date to another by the days that differ, then features.

The next generation of ``user_window_sums`` is built from the difference of two states: days that enter, leave or move
to another window's ring, and days whose tiles have a new revision. Rows of an old revision are subtracted exactly as
they were added. Sums are exact, so a refresh and a full rebuild give the same bits.

States of a generation. Each arrow is one commit. A refresh that is killed leaves the state above the arrow.

    reserved     a number in the log of user_window_sums; files that tasks have written are not in the table
       |    the commit of its rows
    written      no run reads its rows, and a later refresh drops them, but not in a catalog
       |    its row in sum_generations
    named        the newest; the next refresh may start from it, and builds only features if it is the target
       |    the row of the next generation in sum_generations
    superseded   one of the newest two; a refresh may still start from it
       |    the commit of the rows of a generation after that
    dropped      without rows; still one of the newest two until that generation is named (``SumsUpdate._why_unusable``)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from pyspark.sql import functions as F

from userrep.config import Config
from userrep.features.build import Features
from userrep.features.ledger import feature_sets, log_hash
from userrep.features.profiles import Profiles, refresh_profiles
from userrep.features.spec import FeatureSpec
from userrep.features.sums.batches import SUMS_DDL
from userrep.features.sums.generations import Generation, TileDays, differing_tiles, generations
from userrep.features.sums.inputs import PoolingInputs
from userrep.features.sums.item_matrix import item_parts, vector_files
from userrep.features.sums.plan import plan_ranges
from userrep.features.sums.pooling import Output, PoolingJob
from userrep.features.sums.pooling_tasks import Pooling, Written
from userrep.items.versions import Versions
from userrep.spark.session import shuffle_partitions
from userrep.store.buckets import user_slice
from userrep.store.file_tables import FileTables
from userrep.store.schemas import SUM_GENERATIONS, USER_WINDOW_SUMS, fields_of
from userrep.store.tables import Keys, Tables
from userrep.tiles.ledger import NUM_CELLS, TileLedger, tile_ledger, tiles_by_cell
from userrep.utc import day_number, utc_now

_TILES_PER_USER = 30  # reading and writing one user's sums costs about as much as this many tiles
_MAX_DIFFERENCE = 0.7  # share of all tiles above which a full rebuild is no more work than an update


class Refresh(NamedTuple):
    """The result of a refresh. ``since``: as-of date of the sums it started from; None for a rebuild from tiles."""

    since: date | None
    reason: str
    num_tiles: int
    num_users: int


def refresh_features(
    tables: Tables,
    config: Config,
    versions: Versions,
    as_of: date,
    *,
    profiles: Profiles | None = None,
    ledger: TileLedger | None = None,
    full: bool = False,
) -> Refresh:
    """Update ``user_window_sums`` and the features of an as-of date from the tiles.

    ``profiles``, ``ledger``: the profiles and the tile ledger pinned by the run. Without them, ``user_profiles`` is
    refreshed and the newest ledger read.

    Starts from the stored generation that differs least. Rebuilds from tiles alone if no generation uses the same
    item-vector version, if the difference is no less work, or with ``full``. Cost per day moved: the tiles of one
    entering day, and per window (including the history window) of one day that leaves its ring; for each changed day,
    its tiles twice. Sums are read twice and written once, features written once. No shuffle, unless the item vectors
    are too large for a worker (sums/item_matrix.py), which adds reads and shuffles (sums/pooling_tasks.py).

    After a kill, the next run starts from the last complete generation. Only features are built if that generation
    already has the target state, as after a kill between sums and features, or if only profiles have changed.
    """
    ledger = ledger or tile_ledger(tables)
    revisions = ledger.revisions(as_of - timedelta(days=FeatureSpec.of(config).span), as_of)
    target = Generation(versions.lineage_id, 0, as_of, versions.valid_at(as_of), revisions, 0)
    update = SumsUpdate(target, tables, config, versions, ledger, full=full)
    num_users = _run(update, profiles or refresh_profiles(tables, config))
    base, reason = update.choice
    return Refresh(base.as_of if base else None, reason, ledger.num_tiles(update.difference), num_users)


@dataclass(frozen=True)
class SumsUpdate:
    """An update of the sums to ``target``, whose number and number of users are not known yet.

    It starts from one of the stored generations or, with ``full``, from none.
    """

    target: Generation
    tables: Tables
    config: Config
    versions: Versions
    ledger: TileLedger
    full: bool = False

    @cached_property
    def _stored(self) -> tuple[int, list[Generation]]:
        """A version of ``user_window_sums``, and the generations in the ledger at that time, oldest first.

        Rows are committed before the ledger names them, and other runs may drop them later: while the version stays the
        same, it has all rows that the ledger names, except those that were dropped before.
        """
        version, known = -1, list[Generation]()
        while version != (newest := self.tables.version(USER_WINDOW_SUMS)):
            version, known = newest, generations(self.tables, self.versions.lineage_id)
        return version, known

    @property
    def known(self) -> list[Generation]:
        """The stored generations, oldest first."""
        return self._stored[1]

    @property
    def sums_version(self) -> int:
        """The version of ``user_window_sums`` to read the base from."""
        return self._stored[0]

    @property
    def base(self) -> Generation | None:
        """The generation to start from, None for a rebuild."""
        return self.choice[0]

    @cached_property
    def choice(self) -> tuple[Generation | None, str]:
        """The generation to start from, None for a rebuild, and the reason."""
        if self.full:
            return None, "requested"
        target, ledger, spec = self.target, self.ledger, FeatureSpec.of(self.config)
        usable = [generation for generation in self.known if generation.valid_from == target.valid_from]
        if not self.known:
            return None, "no window sums yet"
        if not usable:
            return None, f"item vectors of {target.valid_from} are new to the window sums"
        work = {old.generation: ledger.num_tiles(differing_tiles(old, target, spec)) for old in usable}
        best = min(usable, key=lambda old: (work[old.generation], -old.generation))
        if work[best.generation] > _MAX_DIFFERENCE * ledger.num_tiles(target.revision_by_day.items()):
            return None, f"too much differs from the sums of {best.as_of}"
        unusable = self._why_unusable(best)
        return (None, unusable) if unusable else (best, f"from the sums of {best.as_of}")

    def _why_unusable(self, base: Generation) -> str | None:
        """Return why stored sums are dropped, not exact, or not known to be exact; None if they are exact.

        The number of users with inexact sums is recorded with the features of the date. If these were built again,
        from other days than the sums, it says nothing about the sums. Only the newest sums are known to have rows: a
        refresh that was killed between its commits has dropped those of the earlier ones.
        """
        if base != self.known[-1] and (base.lineage_id, base.generation) not in {
            key[:2] for key in self.tables.partitions(USER_WINDOW_SUMS)
        }:
            return f"rows of the sums of {base.as_of} were dropped by a refresh that was killed"
        built = feature_sets(self.tables, self.versions.lineage_id).get(base.as_of)
        if built is None:
            target = self.target  # after a kill between sums and features, only features are missing
            if (base.as_of, base.revision_by_day) == (target.as_of, target.revision_by_day):
                return None
            return f"a build of the features of {base.as_of} was cut off, so it is not known whether the sums are exact"
        days = self.ledger.contents(base.revision_by_day)
        if built.log_hash != log_hash(days, self.config, self.versions, base.as_of):
            return f"features of {base.as_of} were built from other days than the sums"
        return f"sums of {built.num_inexact} users on {base.as_of} are not exact" if built.num_inexact else None

    @cached_property
    def difference(self) -> TileDays:
        """The tiles that differ between the base and the target."""
        return differing_tiles(self.base, self.target, FeatureSpec.of(self.config))

    def pooling(self, profiles: Profiles, *outputs: Output) -> Pooling:
        """Return the work of the update, on the tiles that differ, the sums to start from, and the profiles."""
        tables, target, base = self.tables, self.target, self.base
        files = vector_files(tables, self.versions, [target.valid_from])
        parts = item_parts(tables, self.config, self.versions, [target.valid_from]).num_parts
        job = PoolingJob(
            FeatureSpec.of(self.config),
            ((target.as_of, files[target.valid_from]),),
            outputs,
            before=base.as_of if base else None,
            changed_days=tuple(day_number(day) for (day, _), (_, stays) in self.difference.items() if not stays),
            item_parts=parts,
        )
        cells = tiles_by_cell(tables, self.ledger, self.difference)
        cells += (base.num_users if base else 0) * _TILES_PER_USER // NUM_CELLS
        plan = plan_ranges(cells, min_ranges=shuffle_partitions(tables.spark), item_parts=parts)
        inputs = PoolingInputs(tables, self.difference, base, profiles.version, self.sums_version if base else None)
        return Pooling(inputs, job, plan)


def _run(update: SumsUpdate, profiles: Profiles) -> int:
    """Write sums, then features, and after each the ledger row that makes it visible. Returns the user count."""
    tables, base, target = update.tables, update.base, update.target
    is_current = base is not None and base.as_of == target.as_of and not update.difference
    pooling = update.pooling(profiles, "features") if is_current else update.pooling(profiles, "sums", "features")
    features = Features(tables, update.config, update.versions, [target.as_of], update.ledger, profiles).begin()
    since = tables.version(USER_WINDOW_SUMS)
    if base is not None and is_current:
        target = base
    else:
        first = update.known[-1].generation + 1 if update.known else 1
        target = target._replace(generation=tables.reserve(USER_WINDOW_SUMS, target.lineage_id, first=first))
    if isinstance(tables, FileTables):
        files = pooling.write(
            {"features": tables.target(features.table), "sums": tables.target(USER_WINDOW_SUMS)},
            lineage_id=target.lineage_id, generation=target.generation,
        )  # fmt: skip
        if not is_current:
            _record(tables, target, num_users=_commit_sums(tables, update, target, files, since=since))
        return features.record(features.commit(tables, files))
    if not is_current:
        _record(tables, target, num_users=_write_sums(update, target, pooling))
    version = pooling.inputs.sums_version if is_current else None  # the newest has the sums that were just written
    inputs = pooling.inputs._replace(tiles={}, sums=target, sums_version=version)
    pooling = Pooling(inputs, replace(pooling.job.for_adding_up(), outputs=("features",)), pooling.plan)
    return features.record(features.write(pooling))


def _commit_sums(
    tables: FileTables, update: SumsUpdate, target: Generation, files: Sequence[Written], *, since: int
) -> int:
    """Commit the sums among the files that tasks wrote. Returns the number of users.

    Of the earlier rows, only those of the newest complete generation are kept.
    """
    first_kept = update.known[-1].generation if update.known else 0

    def is_replaced(values: dict[str, Any]) -> bool:
        return bool(values["lineage_id"] == target.lineage_id and values["generation"] < first_kept)

    sums = [written.file for written in files if written.output == "sums"]
    tables.commit(USER_WINDOW_SUMS, sums, replacing=is_replaced, since=since)
    return sum(file.num_rows for file in sums)


def _write_sums(update: SumsUpdate, target: Generation, pooling: Pooling) -> int:
    """Let Spark write the sums. Returns the number of users.

    No other run writes this generation, whose number is reserved, or still uses those that it replaces.
    """
    tables, inputs = update.tables, pooling.inputs._replace(profiles_version=None)
    sums = Pooling(inputs, replace(pooling.job, outputs=("sums",)), pooling.plan).rows(fields_of(SUMS_DDL))
    replaced = [target, *update.known[:-1]]
    keys: Keys = [{"lineage_id": state.lineage_id, "generation": state.generation} for state in replaced]
    sums = sums.withColumns({name: F.lit(value) for name, value in keys[0].items()})
    sums = sums.withColumn("user_slice", user_slice(pooling.plan.num_ranges))
    tables.replace(sums, USER_WINDOW_SUMS, keys)
    return tables.read(USER_WINDOW_SUMS, keys[:1]).count()


def _record(tables: Tables, target: Generation, *, num_users: int) -> None:
    tables.add(SUM_GENERATIONS, [target._replace(num_users=num_users)._asdict() | {"built_at": utc_now()}])
