"""The batch stages in order: what each needs, whether it is up to date, and what it writes.

Every stage looks at the tables, does what is missing, and records itself. Killed at any moment and run again, a
pipeline ends in the same tables as an undisturbed one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from datetime import date, timedelta
from functools import cached_property

from pyspark.sql import SparkSession

from userrep.config import Config
from userrep.errors import GateRefusedError, UsageError
from userrep.examples.return_propensity import (
    CONSUMER,
    INPUTS,
    OWNER,
    Outcome,
    model_folder,
    train_return_propensity,
)
from userrep.features.build import DATES_PER_JOB, build_features, feature_sets, features_table, stale_features
from userrep.features.heavy import heavy_users
from userrep.features.sides import Profiles, check_sources, refresh_profiles
from userrep.features.sums.item_files import item_parts
from userrep.features.sums.refresh import refresh_features
from userrep.ids import short_hash
from userrep.items.versions import items_without_vector, train_versions
from userrep.logs import to_stderr
from userrep.model.self_check import SelfCheck
from userrep.monitoring.drift import FAIL, WARN, measure_drift, newest_measurable
from userrep.sources.open_log import OpenLog
from userrep.spaces import registry
from userrep.spaces.consumers import declare_ready, register_consumer
from userrep.spaces.create import check_training, create_space, is_trained_so, next_space_id
from userrep.spaces.registry import Space, find_space
from userrep.spaces.snapshots import (
    PUBLISHED,
    REFUSED,
    STAGED,
    list_snapshots,
    publish_snapshots,
    snapshot_inputs,
    stage_snapshots,
    staged_snapshots,
)
from userrep.spaces.unrecorded import record_kept
from userrep.store import schemas
from userrep.store.leases import held
from userrep.store.places import open_tables
from userrep.store.storage import artifacts_root, check_writable
from userrep.tiles.inventory.inventory import take_inventory
from userrep.tiles.tile_build import build_tiles
from userrep.utc import utc_now
from userrep.workflows.runs import Runs, StageRun
from userrep.workflows.schedule import Schedule

_STAGES = (
    "take_inventory", "build_activity_tiles", "train_item_vectors", "build_user_features", "check_quality",
    "train_autoencoder", "embed_users", "publish_snapshot", "promote", "train_return_propensity",
)  # fmt: skip


@dataclass
class Pipeline:
    """The batch stages over one configuration and as-of date (None: the day after the log's last)."""

    config: Config
    spark: SparkSession
    as_of: InitVar[date | None] = None
    report: Callable[[str], None] = to_stderr
    outcomes: list[Outcome] = field(default_factory=list)
    self_check: SelfCheck | None = None

    def __post_init__(self, as_of: date | None) -> None:
        self._wanted_as_of = as_of
        self.tables = open_tables(self.config, self.spark)
        self.runs = Runs(self.tables, self.config, report=self.report)

    def run(self, *, retrain: bool = False) -> Space:
        """Run all stages; train where no space can be used yet, or with ``retrain``; return the space that serves.

        Raises AlreadyRunningError if another pipeline is at work on these tables.
        """
        with self.held("pipeline"):
            return self._run(retrain=retrain)

    def check(self) -> None:
        """Check root and sources before anything is written. Raises UsageError with what is wrong with them."""
        check_writable(artifacts_root(self.config))
        _ = self.logs

    @cached_property
    def logs(self) -> list[OpenLog]:
        """The log's sources, listed once for all stages. Raises UsageError with what is wrong with any source."""
        return check_sources(self.spark, self.config)

    @cached_property
    def profiles(self) -> Profiles:
        """The users' profiles, brought up to date once for all stages."""
        return refresh_profiles(self.tables, self.config)

    def _fresh_sides(self) -> dict[date, str]:
        return {self.schedule.as_of: self.profiles.sides_hash}

    @contextmanager
    def held(self, job: str) -> Iterator[None]:
        """Check root and sources, then hold a job's lease meanwhile; raises what ``check`` and ``leases.held`` do."""
        self.check()
        with held(self.tables, job):
            yield

    def _run(self, *, retrain: bool) -> Space:
        has_check = self.config.quality.self_check
        self.runs.expect([stage for stage in _STAGES if has_check or stage != "check_quality"])
        schedule = self.schedule
        dates = schedule.feature_dates(retrain=retrain)
        if retrain or schedule.usable_space is None:
            check_training(self.tables, self.config, self.report)
        self.build_activity_tiles()
        self.train_item_vectors(dates)
        self.build_user_features(dates, leave_sums=True)
        space = schedule.unfinished_candidate() if retrain else schedule.usable_space
        space = self.train_autoencoder() if space is None else self._kept(space)
        self.embed_users(space, schedule.snapshot_dates(space))
        self.publish_snapshots(space, schedule.snapshot_dates(space))
        self.promote_first(space)
        self.train_return_propensity(space)
        return find_space(self.tables, None)

    @cached_property
    def schedule(self) -> Schedule:
        """The dates of this run. Reads what is new in the log; refuses an as-of date outside of it."""
        with self.runs.stage("take_inventory") as run:
            inventory = take_inventory(self.tables, self.config.events, self.logs)
            if self._wanted_as_of is not None:
                inventory.check_as_of(self._wanted_as_of)
                inventory.check_window(self._wanted_as_of, self.config.windows_days[-1])
            run.num_rows = sum(day.num_rows or 0 for day in inventory.days)
            run.reason = f"{inventory.first_day} to {inventory.last_day}, {inventory.num_new_files} files read"
            as_of = self._wanted_as_of or inventory.last_day + timedelta(days=1)
            schedule = Schedule(self.config, self.tables, inventory, as_of)
            run.outputs = {
                "as_of": as_of,
                "source_files": self.tables.version(schemas.SOURCE_FILES),
                "lineage_id": schedule.lineage_id,
                "spaces": {space.space_id: space.content_hash for space in schedule.registry.spaces},
            }
        for warning in inventory.warnings:
            self.report(warning)
        return schedule

    def build_activity_tiles(self) -> None:
        """Bring the tiles of all days before the as-of date up to date."""
        with self.runs.stage("build_activity_tiles") as run:
            inventory = self.schedule.inventory
            build = build_tiles(self.tables, self.config, inventory, before=self.schedule.as_of)
            if not build.days:
                return run.skip(f"{build.num_up_to_date} days")
            run.num_rows = build.num_tiles
            run.reason = f"{len(build.days)} days new or changed, {build.num_up_to_date} up to date"
            if build.num_rejected:
                run.reason += f"; {build.num_rejected:,} rows rejected"
            run.outputs = {"days": len(build.days), "num_events": build.num_events, "num_rejected": build.num_rejected}
        return None

    def train_item_vectors(self, as_ofs: list[date]) -> None:
        """Make the versions of the item vectors that these as-of dates need."""
        with self.runs.stage("train_item_vectors", [schemas.TILE_DAYS]) as run:
            versions = self.schedule.versions
            missing = versions.missing(as_ofs)
            if not missing:
                return run.skip(f"{len({versions.valid_at(day) for day in as_ofs})} versions")
            run.reason = f"{len(missing)} versions missing, {missing[0]} to {missing[-1]}"
            run.num_rows = train_versions(self.tables, self.config, versions, missing, self.report)
            without = items_without_vector(self.tables, versions.lineage_id, missing[-1])
            run.reason += "".join(f"; {n:,} items without a {name} vector" for name, n in without.items() if n)
            run.outputs = {"lineage_id": versions.lineage_id, "versions": missing}
        return None

    def build_user_features(self, as_ofs: list[date], *, force: Sequence[date] = (), leave_sums: bool = False) -> None:
        """Build the features of these dates that are missing or stale, and those of ``force`` in any case.

        ``leave_sums``: the features of the as-of date are made together with its window sums, in a pass over the tiles
        of their own, so that the next ``daily`` moves the sums on instead of adding all tiles up.
        """
        inputs = [schemas.TILE_DAYS, schemas.ITEM_VECTOR_VERSIONS]
        with self.runs.stage("build_user_features", inputs) as run:
            days, versions = sorted(set(as_ofs)), self.schedule.versions
            stale = stale_features(self.tables, self.config, versions, days, fresh_sides=self._fresh_sides())
            stale |= {day: "asked for" for day in force if day not in stale}
            if not stale:
                return run.skip(f"{len(days)} as-of dates")
            reasons = sorted(set(stale.values()))
            run.reason = f"{len(stale)} of {len(days)} as-of dates: {', '.join(reasons)}"
            with_sums = [day for day in stale if leave_sums and day == self.schedule.as_of]
            alone = [day for day in sorted(stale) if day not in with_sums]
            groups = [alone[k : k + DATES_PER_JOB] for k in range(0, len(alone), DATES_PER_JOB)]
            parts = max(item_parts(self.tables, self.config, versions, group) for group in (*groups, with_sums))
            run.reason += f"; {parts}" if parts.num_parts > 1 else ""
            for done, group in enumerate(groups):
                run.num_rows += build_features(self.tables, self.config, versions, group, profiles=self.profiles)
                if len(groups) > 1:
                    self.report(
                        f"features of {min(len(alone), (done + 1) * DATES_PER_JOB)} of {len(stale)} as-of dates"
                    )
            for day in with_sums:
                made = refresh_features(self.tables, self.config, versions, day, profiles=self.profiles)
                run.num_rows += made.num_users
            sets = feature_sets(self.tables, versions.lineage_id)
            inexact = sum(sets[day].num_inexact for day in stale)
            if inexact:
                run.reason += f"; {inexact} users beyond exact sums (weights too large)"
            run.outputs = {
                "table": features_table(self.config, versions.lineage_id).name,
                "as_ofs": list(stale),
                "profiles": self.profiles._asdict(),
            }
            self._tell_heavy_users(run, max(stale))
        return None

    def refresh_user_features(self) -> None:
        """Move the window sums to the as-of date, and make its features of them, unless these are up to date."""
        inputs = [schemas.TILE_DAYS, schemas.ITEM_VECTOR_VERSIONS, schemas.SUM_GENERATIONS]
        with self.runs.stage("refresh_user_features", inputs) as run:
            as_of, versions = self.schedule.as_of, self.schedule.versions
            stale = stale_features(self.tables, self.config, versions, [as_of], fresh_sides=self._fresh_sides())
            if not stale:
                return run.skip(f"features of {as_of}")
            done = refresh_features(self.tables, self.config, versions, as_of, profiles=self.profiles)
            how = f"moved on {done.reason}" if done.since else f"rebuilt: {done.reason}"
            run.num_rows, run.reason = done.num_users, f"{stale[as_of]}; {how}, {done.num_tiles:,} tiles read"
            parts = item_parts(self.tables, self.config, versions, [as_of])
            run.reason += f"; {parts}" if parts.num_parts > 1 else ""
            run.outputs = {"as_of": as_of, "since": done.since, "num_tiles": done.num_tiles}
            run.outputs["profiles"] = self.profiles._asdict()
            self._tell_heavy_users(run, as_of)
        return None

    def _tell_heavy_users(self, run: StageRun, as_of: date) -> None:
        found = heavy_users(self.tables, self.config, self.schedule.versions.lineage_id, as_of)
        if found is not None:
            run.reason += f"; {found}"
            run.outputs["heavy_users"] = found._asdict()

    def check_quality(self) -> SelfCheck | None:
        """Judge a model of these settings that is trained on less of the log; None without a check.

        Raises
        ------
        GateRefusedError
            If it is not worth what ``quality.min_gain`` asks for, or that cannot be told.
        """
        quality, schedule = self.config.quality, self.schedule
        if not quality.self_check:
            return None
        from userrep.evaluation import self_check as checks  # and with it scikit-learn, LightGBM and torch

        check_training(self.tables, self.config, self.report)
        check = checks.plan_check(
            schedule.training_as_ofs,
            until=schedule.until,
            future_days=max(self.config.future_days, default=0),
            every_days=self.config.training.as_ofs.every_days,
            horizons=self.config.evaluation.horizons_days,
        )
        with self.runs.stage("check_quality", [features_table(self.config, schedule.lineage_id)]) as run:
            try:
                if check is None:
                    raise UsageError("the log is too short: more than half of the training dates would have to go")
                found = checks.self_check(
                    self.tables, self.config, space_id=next_space_id(self.tables, self.config, schedule.until),
                    versions=schedule.versions, check=check, report=lambda line: self.report(f"self-check: {line}"),
                )  # fmt: skip
            except UsageError as error:
                if quality.min_gain is not None:
                    raise GateRefusedError(f"quality.min_gain is set, and there is no self-check: {error}") from error
                run.reason = f"no check: {error}"
                return None
            run.num_rows = found.num_test_users
            run.reason = f"trained until {found.trained_until}, {found.summary}"
            run.outputs = found.model_dump(mode="json")
            checks.check_gain(found, quality.min_gain, self.report)
        return found

    def train_autoencoder(self) -> Space:
        """Train a new space and register it as a candidate, after its self-check."""
        with held(self.tables, "train_autoencoder", nested=True):
            self.self_check = self.check_quality()
            return self._train_autoencoder()

    def _train_autoencoder(self) -> Space:
        table = features_table(self.config, self.schedule.versions.lineage_id)
        with self.runs.stage("train_autoencoder", [table]) as run:
            run.reason = "no space yet" if self.schedule.usable_space is None else "asked for"
            self._tell_short_history()
            space = create_space(
                self.tables,
                self.config,
                versions=self.schedule.versions,
                as_ofs=self.schedule.training_as_ofs,
                until=self.schedule.until,
                self_check=self.self_check,
                report=self.report,
            )
            record_kept(self.tables, self.config, self.report)
            run.num_rows = self.tables.read(schemas.TRAINING_ROWS).where(f"space_id = '{space.space_id}'").count()
            run.outputs = {"space_id": space.space_id}
            run.reason += f"; space {space.space_id}"
        return space

    def _tell_short_history(self) -> None:
        """Say so where training rows know less of a history than later rows will."""
        days, first, log = (
            self.config.history_window,
            self.schedule.training_as_ofs[0],
            self.schedule.inventory.first_day,
        )
        if days and first - timedelta(days=days) < log:
            self.report(
                f"the log begins on {log}: on {first}, the first training date, the history has not had its {days} "
                "days; history_days: 0 leaves it out"
            )

    def train_unless_trained(self) -> Space:
        """Train a new space, unless the newest is just that and has no snapshot yet: a scheduler tries tasks again."""
        candidate = self.schedule.unfinished_candidate()
        if candidate is not None and is_trained_so(candidate, self.config, self.schedule.until):
            return self._kept(candidate)
        return self.train_autoencoder()

    def _kept(self, space: Space) -> Space:
        with self.runs.stage("train_autoencoder") as run:
            record_kept(self.tables, self.config, self.report)  # one that MLflow did not take in time
            is_begun = list_snapshots(self.tables, space.space_id, states=(PUBLISHED, REFUSED))
            state = f"{space.state}; --retrain trains a new one" if is_begun else "trained, and has no snapshot yet"
            run.skip(f"space {space.space_id} is {state}")
        return space

    def embed_users(self, space: Space, as_ofs: Sequence[date]) -> None:
        """Stage snapshots of these dates, but for those of the same inputs that are staged or published."""
        with self.runs.stage("embed_users", [features_table(self.config, space.lineage_id)]) as run:
            missing = self._without_snapshot(space, as_ofs, STAGED, PUBLISHED)
            if not missing:
                return run.skip(f"{len(as_ofs)} snapshots of space {space.space_id}")
            staged = stage_snapshots(self.tables, self.config, space, missing)
            run.num_rows = sum(snapshot.num_users for snapshot in staged)
            run.reason = f"{len(staged)} snapshots, the last {staged[-1].snapshot_id}"
            run.outputs = {"snapshots": [snapshot.snapshot_id for snapshot in staged]}
        return None

    def monitor_drift(self, space: Space, as_of: date) -> None:
        """Measure how far the newest snapshot of a date, staged or published, has moved from the one before it.

        Raises
        ------
        GateRefusedError
            If it is further than ``drift.fail`` allows.
        """
        with self.runs.stage("monitor_drift", [schemas.USER_EMBEDDINGS]) as run:
            drift = measure_drift(self.tables, self.config, space, newest_measurable(self.tables, space, as_of))
            if drift is None:
                return run.skip(f"space {space.space_id} has no snapshot before {as_of}")
            run.num_rows, run.outputs = len(drift.metrics), dict(drift.metrics)
            names = f"{drift.snapshot.snapshot_id} against {drift.before.snapshot_id}"
            if failed := drift.said(FAIL):
                raise GateRefusedError(
                    f"drift: {names}: {', '.join(failed)}, more than drift.fail allows. Look at the log's last days, "
                    "or set other limits; what is published stays as it is."
                )
            found = f"{names}: {', '.join(drift.said(WARN)) or 'nothing'} past drift.warn"
            if not drift.is_new:
                return run.skip(found)
            run.reason = found
        return None

    def publish_snapshots(self, space: Space, as_ofs: Sequence[date], *, on_time: bool = True) -> None:
        """Put the staged snapshots of these dates through the gates and publish them.

        ``on_time``: first revisions are available when a run on time would have had them, not by the clock.
        """
        with self.runs.stage("publish_snapshot", [schemas.USER_EMBEDDINGS]) as run:
            missing = self._without_snapshot(space, as_ofs, PUBLISHED)
            if not missing:
                return run.skip(f"{len(as_ofs)} snapshots of space {space.space_id}")
            staged = staged_snapshots(self.tables, space, missing)
            published = publish_snapshots(self.tables, self.config, space, staged, on_time=on_time)
            registry.mark_ready(self.tables, space)
            run.num_rows = sum(snapshot.num_users for snapshot in published)
            last = published[-1]
            run.reason = f"{len(published)} snapshots, the last available at {last.available_at:%Y-%m-%d %H:%M} UTC"
            run.outputs = {snapshot.snapshot_id: snapshot.gates for snapshot in published}
        return None

    def promote_first(self, space: Space) -> None:
        """Promote a space where nothing serves yet."""
        with self.runs.stage("promote") as run:
            serving = registry.read_registry(self.tables).serving
            if serving is not None:
                return run.skip(f"space {serving.space_id} is serving")
            registry.promote(self.tables, find_space(self.tables, space.space_id))
            run.reason = f"nothing was serving; space {space.space_id} is now"
        return None

    def train_return_propensity(self, space: Space) -> None:
        """Train the example consumer on published snapshots; its figures go to ``consumer_results``.

        As consumers do, it registers itself, and declares itself ready for the space once its model is saved.
        """
        with self.runs.stage("train_return_propensity", [schemas.SNAPSHOTS, schemas.TILE_DAYS]) as run:
            dates = self.schedule.label_dates(space)
            if not dates.test:
                horizon = self.config.downstream.horizon_days
                return run.skip(
                    f"no labels yet: wants an as-of date {horizon} days or more after {space.trained_until}, "
                    "and as many days of labels before it"
                )
            register_consumer(self.tables, CONSUMER, owner=OWNER)
            used = [s for s in list_snapshots(self.tables, space.space_id) if s.as_of in dates.all]
            key = short_hash([space.content_hash, [s.snapshot_id for s in used], self.config.downstream.model_dump()])
            earlier = self.tables.ledger(schemas.CONSUMER_RESULTS, inputs_hash=key)
            if earlier:
                by_input = {row.input: Outcome(row.input, row.dims, row.auc) for row in earlier}
                self.outcomes = [by_input[name] for name in INPUTS]
                declare_ready(self.tables, CONSUMER, space.space_id)
                return run.skip(f"space {space.space_id}, {len(used)} snapshots")
            folder = model_folder(self.tables, space)
            self.outcomes, counts, ids = train_return_propensity(self.tables, self.config, space, dates, folder=folder)
            same = {
                "consumer": CONSUMER,
                "space_id": space.space_id,
                "inputs_hash": key,
                "num_train": counts["train"],
                "num_test": counts["test"],
                "snapshot_ids": ids,
                "trained_at": utc_now(),
            }
            self.tables.add(schemas.CONSUMER_RESULTS, [vars(outcome) | same for outcome in self.outcomes])
            declare_ready(self.tables, CONSUMER, space.space_id)
            run.num_rows = sum(counts.values())
            run.outputs = {"auc": {o.input: o.auc for o in self.outcomes}, "model": folder}
        return None

    def _without_snapshot(self, space: Space, as_ofs: Sequence[date], *states: str) -> list[date]:
        """Return the dates that have no snapshot in these states made from the features as they are."""
        sets = feature_sets(self.tables, space.lineage_id)
        there = {(s.as_of, s.inputs_hash) for s in list_snapshots(self.tables, space.space_id, states=states)}
        return [day for day in as_ofs if day not in sets or (day, snapshot_inputs(space, sets[day])) not in there]
