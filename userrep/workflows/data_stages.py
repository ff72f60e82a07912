"""The batch stages from the log to user features: tiles, item vectors, window sums and features."""

import logging
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.config import Config
from userrep.errors import UsageError, plural
from userrep.features.build import DATES_PER_JOB, build_features, stored_features
from userrep.features.ledger import feature_sets, features_table, stale_features
from userrep.features.sums.item_matrix import item_parts
from userrep.features.sums.refresh import refresh_features
from userrep.items.version_training import train_versions
from userrep.items.versions import Versions, items_without_vector
from userrep.store.buckets import NUM_BUCKETS, power_of_two
from userrep.store.schemas import ITEM_VECTOR_VERSIONS, SUM_GENERATIONS, TILE_DAYS
from userrep.store.tables import Tables
from userrep.tiles.build import build_tiles
from userrep.tiles.ledger import NO_ROWS, tile_ledger
from userrep.workflows.run_context import RunContext
from userrep.workflows.runs import StageRun

logger = logging.getLogger(__name__)

LARGE_SHARE = 0.01  # of all events
TIMES_THE_MEAN = 20  # events, relative to the mean per user: in a small log, 1 % of all events is not unusual


def build_activity_tiles(work: RunContext) -> None:
    """Build the tiles of new and changed days before the as-of date."""
    with work.runs.stage("build_activity_tiles") as run:
        build = build_tiles(work.tables, work.config, work.schedule.inventory, before=work.schedule.as_of)
        work.tiles = tile_ledger(work.tables)
        if not build.days:
            run.skip(plural(build.num_up_to_date, "day"))
            return
        run.num_rows = build.num_tiles
        run.reason = f"{plural(len(build.days), 'day')} new or changed, {build.num_up_to_date} up to date"
        if build.vanished:
            logger.warning(
                f"tiles: {plural(len(build.vanished), 'day')} from {build.vanished[0]} to {build.vanished[-1]} left "
                "the log, so features no longer count their events"
            )
        if build.num_rejected:
            run.reason += f"; {plural(build.num_rejected, 'row')} rejected"
        run.outputs = {"days": len(build.days), "num_events": build.num_events, "num_rejected": build.num_rejected}


def train_item_vectors(work: RunContext, as_ofs: Sequence[date]) -> None:
    """Build the missing versions of the item vectors that these as-of dates need."""
    with work.runs.stage("train_item_vectors", pinned=_pinned(work)) as run:
        versions = work.schedule.versions
        missing = versions.missing(as_ofs)
        if not missing:
            run.skip(plural(len({versions.valid_at(day) for day in as_ofs}), "version"))
            return
        _check_tiles(work, before=missing[-1])
        run.reason = f"{plural(len(missing), 'version')} missing, {missing[0]} to {missing[-1]}"
        run.num_rows = train_versions(work.tables, work.config, versions, missing, ledger=work.tiles)
        num_without = items_without_vector(work.tables, versions.lineage_id, missing[-1])
        run.reason += "".join(f"; {plural(n, 'item')} without a {name} vector" for name, n in num_without.items() if n)
        run.outputs = {"lineage_id": versions.lineage_id, "versions": missing}


def build_user_features(
    work: RunContext,
    as_ofs: Collection[date],
    *,
    sampled: Collection[date] = (),
    force: Collection[date] = (),
    leave_sums: bool = False,
) -> None:
    """Build the features of these dates that are missing or stale, and always those of ``force``.

    ``sampled``: those of the dates for which ``num_sampled_buckets`` of the schedule are enough, which follow from the
    number of users as of the date of the run. Its features are therefore built first.
    ``leave_sums``: also build the window sums of the as-of date, in a separate pass over the tiles, so that the next
    daily run updates them instead of summing all tiles.
    """
    with work.runs.stage("build_user_features", [ITEM_VECTOR_VERSIONS], pinned=_pinned(work)) as run:
        builds, as_of, num_buckets = _Builds(work, run, {*force}), work.schedule.as_of, NUM_BUCKETS
        num_dates = len({*as_ofs})
        if leave_sums:
            builds.refresh(as_of)
        elif sampled:
            builds.build([as_of])
        if sampled:
            num_buckets = work.schedule.num_sampled_buckets
        if num_buckets < NUM_BUCKETS:
            builds.build(sampled, num_buckets=num_buckets)
            as_ofs = {*as_ofs} - {*sampled}
        builds.build(as_ofs)
        builds.describe(plural(num_dates, "as-of date"))


def refresh_user_features(work: RunContext) -> None:
    """Update the window sums to the as-of date and build its features from them, unless these are up to date."""
    tables = [ITEM_VECTOR_VERSIONS, SUM_GENERATIONS]
    with work.runs.stage("refresh_user_features", tables, pinned=_pinned(work)) as run:
        builds = _Builds(work, run)
        builds.refresh(work.schedule.as_of)
        builds.describe("1 as-of date")


def _check_tiles(work: RunContext, *, before: date) -> None:
    """Raise UsageError if the log has days before a date that are newer than all tiles before it.

    What is built without them would stay so: item vectors for good. A day between others that have tiles arrived late
    and does not matter here: it makes dates stale, as late rows of a day do.
    """
    built = [day for day, entry in work.tiles.days.items() if day < before and entry.content != NO_ROWS]
    newest = max(built, default=date.min)
    missing = [day.day for day in work.schedule.inventory.days if newest < day.day < before]
    if missing:
        raise UsageError(
            f"tiles: missing for {plural(len(missing), 'day')} of the log before {before}, the first is {missing[0]}. "
            f"Run `userrep run build_activity_tiles --as-of {work.schedule.as_of}` first."
        )


def _pinned(work: RunContext) -> dict[str, int]:
    return {TILE_DAYS.name: work.tiles.version}


@dataclass
class _Builds:
    """The builds of a stage. ``force``: dates that are built even if they are up to date.

    ``stale``: the dates that this stage builds, with the reason. ``groups``: those of each job. ``sampled``: those that
    are built for a sample of the users. ``notes``: for the record.
    """

    work: RunContext
    run: StageRun
    force: Set[date] = frozenset()
    stale: dict[date, str] = field(default_factory=dict)
    groups: list[list[date]] = field(default_factory=list)
    sampled: set[date] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def build(self, as_ofs: Collection[date], *, num_buckets: int = NUM_BUCKETS) -> None:
        """Build the features of stale dates from the tiles, for the users in at least this number of buckets."""
        days, built_buckets = self._stale(as_ofs, num_buckets), power_of_two(num_buckets)
        if days and built_buckets < NUM_BUCKETS:
            self.sampled.update(days)
            self.notes.append(f"{plural(len(days), 'date')} for 1 in {NUM_BUCKETS // built_buckets} users")
        groups = [days[k : k + DATES_PER_JOB] for k in range(0, len(days), DATES_PER_JOB)]
        for done, group in enumerate(groups, start=1):
            self.run.num_rows += build_features(*self._inputs, group, **self._pinned, num_buckets=built_buckets)
            if len(groups) > 1:
                logger.info(f"features of {min(len(days), done * DATES_PER_JOB)} of {plural(len(days), 'as-of date')}")
        self.groups += groups

    def refresh(self, as_of: date) -> None:
        """Build the features of a date from its window sums if they are stale."""
        if not self._stale([as_of]):
            return
        refresh = refresh_features(*self._inputs, as_of, **self._pinned)
        how = f"updated {refresh.reason}" if refresh.since else f"rebuilt: {refresh.reason}"
        self.notes.append(f"{how}, {plural(refresh.num_tiles, 'tile')} read")
        self.run.num_rows += refresh.num_users
        self.run.outputs |= {"since": refresh.since, "num_tiles": refresh.num_tiles}
        self.groups.append([as_of])

    @property
    def _inputs(self) -> tuple[Tables, Config, Versions]:
        return self.work.tables, self.work.config, self.work.schedule.versions

    @property
    def _pinned(self) -> dict[str, Any]:
        return {"profiles": self.work.profiles, "ledger": self.work.tiles}

    def _stale(self, as_ofs: Collection[date], num_buckets: int = NUM_BUCKETS) -> list[date]:
        """Return the dates to build, without those that this stage has built."""
        work, days = self.work, sorted({*as_ofs} - self.stale.keys())
        hashes = {work.schedule.as_of: work.profiles.profiles_hash}
        stale = stale_features(*self._inputs, days, profile_hashes=hashes, ledger=work.tiles, num_buckets=num_buckets)
        stale |= {day: "requested" for day in days if day in self.force and day not in stale}
        if stale:
            work.schedule.versions.check_built(stale)
            _check_tiles(work, before=max(stale))
        self.stale |= stale
        return sorted(stale)

    def describe(self, dates: str) -> None:
        """Record what was built. ``dates``: the number of dates that are needed."""
        work, run, stale = self.work, self.run, self.stale
        if not stale:
            run.skip(dates)
            return
        tables, config, versions = self._inputs
        run.reason = f"{len(stale)} of {dates}: {', '.join(sorted(set(stale.values())))}"
        run.outputs |= {"table": features_table(config, versions.lineage_id).name, "as_ofs": sorted(stale)}
        run.outputs["profiles"] = work.profiles._asdict()
        parts = max(item_parts(tables, config, versions, group) for group in self.groups)
        notes = [*self.notes, *([str(parts)] if parts.num_parts > 1 else [])]
        sets = feature_sets(tables, versions.lineage_id, sampled=True)
        if inexact := sum(sets[day].num_inexact for day in stale if day in sets):
            notes.append(f"{plural(inexact, 'user')} with inexact sums (weights too large)")
        if of_all_users := stale.keys() - self.sampled:
            newest = stored_features(tables, config, versions.lineage_id, [max(of_all_users)])
            users = heavy_users(newest, config.windows_days[-1])
            if users is not None:
                notes.append(str(users))
                run.outputs["heavy_users"] = users._asdict()
        run.reason = "; ".join([run.reason, *notes])


class HeavyUsers(NamedTuple):
    """The number of users with a suspiciously large share of all events of a window, and the largest share.

    Examples are bots, test accounts and shared tills.
    """

    num_users: int
    largest_share: float
    window_days: int

    def __str__(self) -> str:
        several = f"{self.num_users} users have {LARGE_SHARE:.0%} or more each, the largest"
        subject = several if self.num_users > 1 else "one user has"
        return f"{subject} {self.largest_share:.1%} of all events of {self.window_days} days"


def heavy_users(features: DataFrame, window_days: int) -> HeavyUsers | None:
    """Find users with at least 1 % of all events of a window and 20 times the mean; None if there are none.

    ``features``: those of one as-of date. The result contains no ids, because reports outlive users. Cost: one column
    of the features is read, twice if there are heavy users; only counts are shuffled.
    """
    rows = features.select(F.col(f"num_events_{window_days}d").alias("n"))
    total, mean, largest = rows.agg(F.sum("n"), F.avg("n"), F.max("n")).first() or (0, 0, 0)
    threshold = max(LARGE_SHARE * (total or 0), TIMES_THE_MEAN * (mean or 0))
    if not total or largest < threshold:
        return None
    return HeavyUsers(rows.where(F.col("n") >= threshold).count(), largest / total, window_days)
