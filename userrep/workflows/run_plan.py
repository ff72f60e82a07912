"""The stages that a run would execute or skip, with the time that each is expected to take.

A run records this at its start, and ``--dry-run`` prints it. The decisions are those of the stages themselves: they
compare the same ledgers.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

from userrep.errors import plural
from userrep.features.ledger import feature_sets, stale_features
from userrep.features.profiles import fingerprint_without_spark
from userrep.features.spec import FeatureSpec
from userrep.items.versions import Versions
from userrep.operations.stage_rates import Prediction, StageRates
from userrep.spaces.registry import Space
from userrep.spaces.snapshots import PUBLISHED, STAGED, list_snapshots
from userrep.spaces.stale import stale_dates, without_snapshot
from userrep.store.buckets import NUM_BUCKETS, power_of_two
from userrep.tiles.build import stale_days
from userrep.tiles.inventory.inventory import mapping_of
from userrep.tiles.ledger import TileLedger, tile_ledger
from userrep.workflows.schedule import Schedule

DATES_PER_GROUP = 8  # dates of a backfill that share one pass over the tiles; a kill loses at most this many


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a run. ``reason``: why it runs or is skipped. ``expected`` is 0 for a skipped stage."""

    stage: str
    runs: bool
    reason: str
    expected: Prediction


@dataclass(frozen=True)
class RunPlan:
    """The plan of a run on a schedule.

    ``unread``: number of files of the log whose days are not known before they are read, so that every stage may run.
    Cost: reads of a few ledgers.
    """

    schedule: Schedule
    rates: StageRates
    unread: int = 0

    def pipeline(self, *, retrain: bool = False) -> list[PlannedStage]:
        """Return the stages of ``userrep pipeline``, in order."""
        schedule, space = self.schedule, self.schedule.space_of_pipeline(retrain=retrain)
        dates, embedded = schedule.feature_dates(space), schedule.snapshot_dates(space)
        sampled = schedule.sampled_dates(space)
        num_buckets = schedule.num_sampled_buckets if sampled else NUM_BUCKETS
        serving, stale = schedule.registry.serving, self._stale_features([day for day in dates if day not in sampled])
        stale |= self._stale_features(sampled, num_buckets)
        share = power_of_two(num_buckets) / NUM_BUCKETS
        features = self._features("build_user_features", dates, stale, sampled=sampled, share=share)
        stages = [*self._log_stages(), self._item_vectors(dates), features]
        if space is not None:
            training = f"space {space.space_id} is {space.state}"
        else:
            training = f"a new space, from {plural(len(schedule.training_as_ofs), 'training date')}"
            if self.schedule.config.quality.self_check:
                stages.append(self._stage("check_quality", True, "before a training"))
        promotion = f"space {serving.space_id} is serving" if serving else "no space is serving"
        return [
            *stages,
            self._stage("train_autoencoder", space is None, training),
            *self._snapshots(space, embedded, stale),
            self._stage("promote", serving is None, promotion),
        ]

    def daily(self) -> list[PlannedStage]:
        """Return the stages of ``userrep daily``, in order; those of snapshots once for each space in use."""
        dates = [self.schedule.as_of]
        stale = self._stale_features(dates)
        stages = [*self._log_stages(), self._item_vectors(dates)]
        stages.append(self._features("refresh_user_features", dates, stale))
        for space in self.schedule.spaces_to_refresh:
            embed, publish = self._snapshots(space, dates, stale)
            stages.append(embed)
            if publish.runs:
                has_before = any(s.as_of < dates[0] for s in list_snapshots(self.schedule.tables, space.space_id))
                drift = "compared with the previous date" if has_before else "no snapshot before this date"
                stages.append(self._stage("monitor_drift", has_before, f"space {space.space_id}: {drift}"))
            stages.append(publish)
        if self.schedule.has_stream:
            stages.append(self._stage("open_days", bool(stale), "stream bases", self._num_users))
        return stages

    def backfill(self, as_ofs: Sequence[date] = ()) -> list[PlannedStage]:
        """Return the stages of ``userrep backfill``, in order; those of dates once for each group of dates.

        Without ``as_ofs``, those of ``userrep backfill --stale``.
        """
        stages = self._log_stages()
        for space, dates in [(self.schedule.space_to_use(), as_ofs)] if as_ofs else self.stale_published():
            if not dates:
                continue
            stages.append(self._item_vectors(dates))
            stale = self._stale_features(dates)
            for start in range(0, len(dates), DATES_PER_GROUP):
                group = dates[start : start + DATES_PER_GROUP]
                stages += [self._features("build_user_features", group, stale), *self._snapshots(space, group, stale)]
        return stages

    def stale_published(self) -> list[tuple[Space, list[date]]]:
        """Return the published dates of the spaces in use that ``userrep backfill --stale`` would rebuild.

        These are the ``stale_dates``, and those that will be stale once changed days are built.
        """
        dates_by_space, stale = [], stale_dates(self.schedule.tables, self.schedule.config, self._ledger)
        for space in self.schedule.spaces_to_refresh:
            published = list_snapshots(self.schedule.tables, space.space_id)
            changing = [snapshot.as_of for snapshot in published if self._will_change(snapshot.as_of)]
            dates_by_space.append((space, sorted({*stale.get(space.space_id, []), *changing})))
        return dates_by_space

    @cached_property
    def _ledger(self) -> TileLedger:
        return tile_ledger(self.schedule.tables)

    @cached_property
    def days_to_build(self) -> list[date]:
        """The days before the as-of date whose tiles are missing, or whose rows have changed or vanished."""
        before = self.schedule.as_of
        log_days = {day.day: day for day in self.schedule.inventory.days if day.day < before}
        mapping = mapping_of(self.schedule.config.events)
        changed, vanished = stale_days(log_days, self._ledger, before, mapping)
        return sorted({*changed, *vanished})

    @cached_property
    def _versions(self) -> Versions:
        return self.schedule.versions  # which reads them each time, because stages of a run build some

    @cached_property
    def _profiles_hash(self) -> str | None:
        return fingerprint_without_spark(self.schedule.config)

    @cached_property
    def _num_users(self) -> int | None:
        """The users of the newest features; None before the first."""
        sets = feature_sets(self.schedule.tables, self.schedule.lineage_id)
        return sets[max(sets)].num_users if sets else None

    def _stage(self, stage: str, runs: bool, reason: str, amount: float | None = None) -> PlannedStage:
        expected = self.rates.predict(stage, amount) if runs else Prediction(0.0, 0.0)
        return PlannedStage(stage, runs, reason, expected)

    def _log_stages(self) -> list[PlannedStage]:
        """Return the stages that read the log: the inventory and the tiles."""
        days, inventory = set(self.days_to_build), self.schedule.inventory
        rows = sum(day.expected_rows for day in inventory.days if day.day in days)
        num_days = len(days) or sum(day.day < self.schedule.as_of for day in inventory.days)
        tiles = f"{plural(num_days, 'day')} {'new or changed' if days else 'up to date'}"
        tiles += f"; days of {plural(self.unread, 'file')} not known yet" if self.unread else ""
        return [
            self._stage("take_inventory", True, plural(inventory.num_new_files, "new file")),
            self._stage("build_activity_tiles", bool(days or self.unread), tiles, None if self.unread else rows),
        ]

    def _item_vectors(self, as_ofs: Sequence[date]) -> PlannedStage:
        missing = self._versions.missing(as_ofs)
        reason = f"{plural(len(missing), 'version')} missing" if missing else "versions up to date"
        return self._stage("train_item_vectors", bool(missing), reason, len(missing))

    def _stale_features(self, as_ofs: Sequence[date], num_buckets: int = NUM_BUCKETS) -> dict[date, str]:
        """Return the dates whose features would be built, with the reason, also those whose days are built first."""
        schedule = self.schedule
        hashes = {schedule.as_of: self._profiles_hash} if self._profiles_hash else {}
        stale = stale_features(
            schedule.tables,
            schedule.config,
            self._versions,
            as_ofs,
            profile_hashes=hashes,
            ledger=self._ledger,
            num_buckets=num_buckets,
        )
        return dict.fromkeys(filter(self._will_change, as_ofs), "days of the log changed") | stale

    def _will_change(self, as_of: date) -> bool:
        """Return whether days of a date's windows are built before its features."""
        since = as_of - timedelta(days=FeatureSpec.of(self.schedule.config).span)
        return bool(self.unread) or any(since <= day < as_of for day in self.days_to_build)

    def _features(
        self,
        stage: str,
        as_ofs: Sequence[date],
        stale: Mapping[date, str],
        *,
        sampled: Collection[date] = (),
        share: float = 1.0,
    ) -> PlannedStage:
        """Return the stage of the features. ``share``: of the users whose features the dates ``sampled`` need."""
        reasons, dates = {day: stale[day] for day in {*as_ofs} & {*stale}}, plural(len({*as_ofs}), "as-of date")
        if not reasons:
            return self._stage(stage, False, f"{dates} up to date")
        reason = f"{len(reasons)} of {dates}: {', '.join(sorted({*reasons.values()}))}"
        num_dates = sum(share if day in sampled else 1 for day in reasons)
        return self._stage(stage, True, reason, self._num_users and self._num_users * num_dates)

    def _snapshots(
        self, space: Space | None, as_ofs: Sequence[date], stale: Collection[date]
    ) -> tuple[PlannedStage, PlannedStage]:
        """Return the stages that embed and publish. ``space`` None: the space to be trained.

        A date needs a new snapshot if its features would be built, or if no snapshot has them.
        """
        name = "the new space" if space is None else f"space {space.space_id}"

        def stage(stage: str, *states: str) -> PlannedStage:
            missing = as_ofs if space is None else without_snapshot(self.schedule.tables, space, as_ofs, *states)
            num = len({*missing, *({*as_ofs} & {*stale})})
            what = f"{plural(num or len(as_ofs), 'snapshot')} of {name}" + ("" if num else " up to date")
            return self._stage(stage, num > 0, what, self._num_users and self._num_users * num)

        return stage("embed_users", STAGED, PUBLISHED), stage("publish_snapshot", PUBLISHED)
