"""The batch pipeline: its stages, in order.

Each stage compares its outputs with its inputs, builds what is missing or stale, and records itself in ``job_runs``.
A pipeline that is killed at any point and run again ends with the same tables as an uninterrupted one.
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
from userrep.features.profiles import Profiles, check_sources, refresh_profiles
from userrep.features.sums.item_vector_files import item_parts
from userrep.features.sums.refresh import refresh_features
from userrep.ids import short_hash
from userrep.items.versions import items_without_vector, train_versions
from userrep.logs import to_stderr
from userrep.model.self_check import SelfCheck
from userrep.monitoring.drift import FAIL, WARN, measure_drift, newest_measurable
from userrep.sources.listing import Listings
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
from userrep.store.filesystem import artifacts_root, check_writable
from userrep.store.leases import held
from userrep.store.open import open_tables
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory
from userrep.utc import utc_now
from userrep.workflows.runs import Runs, StageRun
from userrep.workflows.schedule import Schedule

_STAGES = (
    "take_inventory", "build_activity_tiles", "train_item_vectors", "build_user_features", "check_quality",
    "train_autoencoder", "embed_users", "publish_snapshot", "promote", "train_return_propensity",
)  # fmt: skip


@dataclass
class Pipeline:
    """The batch stages for one configuration and as-of date. ``as_of`` None: the day after the last day of the log.

    ``listings``: of the log, by the checks before Spark. ``outcomes``: results of the example consumer, once it is
    trained. ``self_check``: the result of the self-check of a new space.
    """

    config: Config
    spark: SparkSession
    as_of: InitVar[date | None] = None
    report: Callable[[str], None] = to_stderr
    listings: Listings = field(default_factory=Listings)
    outcomes: list[Outcome] = field(default_factory=list)
    self_check: SelfCheck | None = None

    def __post_init__(self, as_of: date | None) -> None:
        self._requested_as_of = as_of
        self.tables = open_tables(self.config, self.spark)
        self.runs = Runs(self.tables, self.config, report=self.report)

    def run(self, *, retrain: bool = False) -> Space:
        """Run all stages; return the serving space. A space is trained if none is usable, or with ``retrain``.

        Raises
        ------
        AlreadyRunningError
            If another pipeline is active on these tables.
        """
        with self.lease("pipeline"):
            return self._run(retrain=retrain)

    def check(self) -> None:
        """Check root and sources before anything is written. Raises UsageError with all faults."""
        check_writable(artifacts_root(self.config))
        _ = self.logs

    @cached_property
    def logs(self) -> list[OpenLog]:
        """The sources of the event log, listed once for all stages. Raises UsageError with all faults."""
        return check_sources(self.spark, self.config, self.listings)

    @cached_property
    def profiles(self) -> Profiles:
        """The user profiles, refreshed once for all stages."""
        return refresh_profiles(self.tables, self.config)

    def _profile_hashes(self) -> dict[date, str]:
        return {self.schedule.as_of: self.profiles.profiles_hash}

    @contextmanager
    def lease(self, job: str) -> Iterator[None]:
        """Check root and sources, then hold the lease of a job in the block. Raises what ``leases.held`` does."""
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
        space = self.train_autoencoder() if space is None else self._skip_training(space)
        self.embed_users(space, schedule.snapshot_dates(space))
        self.publish_snapshots(space, schedule.snapshot_dates(space))
        self.promote_first(space)
        self.train_return_propensity(space)
        return find_space(self.tables, None)

    @cached_property
    def schedule(self) -> Schedule:
        """The dates of this run. Runs the stage ``take_inventory``, which reads the new files of the log.

        Raises
        ------
        UsageError
            If the as-of date is outside the log, or the log is too short for it.
        """
        with self.runs.stage("take_inventory") as run:
            inventory = take_inventory(self.tables, self.config.events, self.logs)
            if self._requested_as_of is not None:
                inventory.check_as_of(self._requested_as_of, retry_within=self.config.freshness.error_after)
                inventory.check_window(self._requested_as_of, self.config.windows_days[-1])
            run.num_rows = sum(day.num_rows or 0 for day in inventory.days)
            run.reason = f"{inventory.first_day} to {inventory.last_day}, {inventory.num_new_files} files read"
            as_of = self._requested_as_of or inventory.last_day + timedelta(days=1)
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
        """Build the tiles of new and changed days before the as-of date."""
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
        """Build the missing versions of the item vectors that these as-of dates need."""
        with self.runs.stage("train_item_vectors", [schemas.TILE_DAYS]) as run:
            versions = self.schedule.versions
            missing = versions.missing(as_ofs)
            if not missing:
                return run.skip(f"{len({versions.valid_at(day) for day in as_ofs})} versions")
            run.reason = f"{len(missing)} versions missing, {missing[0]} to {missing[-1]}"
            run.num_rows = train_versions(self.tables, self.config, versions, missing, self.report)
            num_without = items_without_vector(self.tables, versions.lineage_id, missing[-1])
            run.reason += "".join(f"; {n:,} items without a {name} vector" for name, n in num_without.items() if n)
            run.outputs = {"lineage_id": versions.lineage_id, "versions": missing}
        return None

    def build_user_features(self, as_ofs: list[date], *, force: Sequence[date] = (), leave_sums: bool = False) -> None:
        """Build the features of these dates that are missing or stale, and always those of ``force``.

        ``leave_sums``: also build the window sums of the as-of date, in a separate pass over the tiles, so that the
        next daily run updates them instead of summing all tiles.
        """
        inputs = [schemas.TILE_DAYS, schemas.ITEM_VECTOR_VERSIONS]
        with self.runs.stage("build_user_features", inputs) as run:
            days, versions = sorted(set(as_ofs)), self.schedule.versions
            stale = stale_features(self.tables, self.config, versions, days, profile_hashes=self._profile_hashes())
            stale |= {day: "requested" for day in force if day not in stale}
            if not stale:
                return run.skip(f"{len(days)} as-of dates")
            reasons = sorted(set(stale.values()))
            run.reason = f"{len(stale)} of {len(days)} as-of dates: {', '.join(reasons)}"
            with_sums = [day for day in stale if leave_sums and day == self.schedule.as_of]
            without_sums = [day for day in sorted(stale) if day not in with_sums]
            groups = [without_sums[k : k + DATES_PER_JOB] for k in range(0, len(without_sums), DATES_PER_JOB)]
            parts = max(item_parts(self.tables, self.config, versions, group) for group in (*groups, with_sums))
            run.reason += f"; {parts}" if parts.num_parts > 1 else ""
            for done, group in enumerate(groups):
                run.num_rows += build_features(self.tables, self.config, versions, group, profiles=self.profiles)
                if len(groups) > 1:
                    num_done = min(len(without_sums), (done + 1) * DATES_PER_JOB)
                    self.report(f"features of {num_done} of {len(stale)} as-of dates")
            for day in with_sums:
                refresh = refresh_features(self.tables, self.config, versions, day, profiles=self.profiles)
                run.num_rows += refresh.num_users
            sets = feature_sets(self.tables, versions.lineage_id)
            inexact = sum(sets[day].num_inexact for day in stale)
            if inexact:
                run.reason += f"; {inexact} users with inexact sums (weights too large)"
            run.outputs = {
                "table": features_table(self.config, versions.lineage_id).name,
                "as_ofs": list(stale),
                "profiles": self.profiles._asdict(),
            }
            self._report_heavy_users(run, max(stale))
        return None

    def refresh_user_features(self) -> None:
        """Update the window sums to the as-of date and build its features from them, unless these are up to date."""
        inputs = [schemas.TILE_DAYS, schemas.ITEM_VECTOR_VERSIONS, schemas.SUM_GENERATIONS]
        with self.runs.stage("refresh_user_features", inputs) as run:
            as_of, versions = self.schedule.as_of, self.schedule.versions
            stale = stale_features(self.tables, self.config, versions, [as_of], profile_hashes=self._profile_hashes())
            if not stale:
                return run.skip(f"features of {as_of}")
            refresh = refresh_features(self.tables, self.config, versions, as_of, profiles=self.profiles)
            how = f"updated {refresh.reason}" if refresh.since else f"rebuilt: {refresh.reason}"
            run.num_rows, run.reason = refresh.num_users, f"{stale[as_of]}; {how}, {refresh.num_tiles:,} tiles read"
            parts = item_parts(self.tables, self.config, versions, [as_of])
            run.reason += f"; {parts}" if parts.num_parts > 1 else ""
            run.outputs = {"as_of": as_of, "since": refresh.since, "num_tiles": refresh.num_tiles}
            run.outputs["profiles"] = self.profiles._asdict()
            self._report_heavy_users(run, as_of)
        return None

    def _report_heavy_users(self, run: StageRun, as_of: date) -> None:
        users = heavy_users(self.tables, self.config, self.schedule.versions.lineage_id, as_of)
        if users is not None:
            run.reason += f"; {users}"
            run.outputs["heavy_users"] = users._asdict()

    def check_quality(self) -> SelfCheck | None:
        """Train a model with these settings on less of the log and evaluate it; None if off or the log is too short.

        Raises
        ------
        GateRefusedError
            If ``quality.min_gain`` is set and the gain is lower or cannot be measured.
        """
        quality, schedule = self.config.quality, self.schedule
        if not quality.self_check:
            return None
        from userrep.evaluation import self_check as checks  # imports scikit-learn, LightGBM and torch

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
                    raise UsageError("the log is too short: a check would drop more than half of the training dates")
                result = checks.self_check(
                    self.tables, self.config, space_id=next_space_id(self.tables, self.config, schedule.until),
                    versions=schedule.versions, check=check, report=lambda line: self.report(f"self-check: {line}"),
                )  # fmt: skip
            except UsageError as error:
                if quality.min_gain is not None:
                    raise GateRefusedError(f"quality.min_gain is set, but the self-check failed: {error}") from error
                run.reason = f"no check: {error}"
                return None
            run.num_rows = result.num_test_users
            run.reason = f"trained until {result.trained_until}, {result.summary}"
            run.outputs = result.model_dump(mode="json")
            checks.check_gain(result, quality.min_gain, self.report)
        return result

    def train_autoencoder(self) -> Space:
        """Run the self-check, then train a new space and register it as a candidate."""
        with held(self.tables, "train_autoencoder", nested=True):
            self.self_check = self.check_quality()
            return self._train_autoencoder()

    def _train_autoencoder(self) -> Space:
        table = features_table(self.config, self.schedule.versions.lineage_id)
        with self.runs.stage("train_autoencoder", [table]) as run:
            run.reason = "no space yet" if self.schedule.usable_space is None else "requested"
            self._warn_short_history()
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

    def _warn_short_history(self) -> None:
        """Report training dates with less history than later dates will have."""
        days, first_training_date = self.config.history_window, self.schedule.training_as_ofs[0]
        first_day = self.schedule.inventory.first_day
        if days and first_training_date - timedelta(days=days) < first_day:
            self.report(
                f"the log starts on {first_day}, so the first training date, {first_training_date}, has less than "
                f"{days} days of history; set history_days: 0 to leave history out"
            )

    def train_unless_trained(self) -> Space:
        """Train a new space, unless the same training has left a candidate without a first snapshot.

        A scheduler that retries this task therefore does not train twice.
        """
        candidate = self.schedule.unfinished_candidate()
        if candidate is not None and is_trained_so(candidate, self.config, self.schedule.until):
            return self._skip_training(candidate)
        return self.train_autoencoder()

    def _skip_training(self, space: Space) -> Space:
        with self.runs.stage("train_autoencoder") as run:
            record_kept(self.tables, self.config, self.report)  # trainings that MLflow did not accept at the time
            is_judged = list_snapshots(self.tables, space.space_id, states=(PUBLISHED, REFUSED))
            state = f"{space.state}; use --retrain to train a new one" if is_judged else "trained, without a snapshot"
            run.skip(f"space {space.space_id} is {state}")
        return space

    def embed_users(self, space: Space, as_ofs: Sequence[date]) -> None:
        """Stage snapshots of these dates, unless one of the same inputs is staged or published."""
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
        """Measure the drift between the newest snapshot of a date, staged or published, and the previous date's.

        Raises
        ------
        GateRefusedError
            If a metric is past ``drift.fail``.
        """
        with self.runs.stage("monitor_drift", [schemas.USER_EMBEDDINGS]) as run:
            drift = measure_drift(self.tables, self.config, space, newest_measurable(self.tables, space, as_of))
            if drift is None:
                return run.skip(f"space {space.space_id} has no snapshot before {as_of}")
            run.num_rows, run.outputs = len(drift.metrics), dict(drift.metrics)
            names = f"{drift.snapshot.snapshot_id} against {drift.before.snapshot_id}"
            if failed := drift.said(FAIL):
                raise GateRefusedError(
                    f"drift: {names}: past drift.fail: {', '.join(failed)}. Check the last days of the log, or change "
                    "the limits. Published snapshots do not change."
                )
            result = f"{names}: {', '.join(drift.said(WARN)) or 'nothing'} past drift.warn"
            if not drift.is_new:
                return run.skip(result)
            run.reason = result
        return None

    def publish_snapshots(self, space: Space, as_ofs: Sequence[date], *, on_time: bool = True) -> None:
        """Check the staged snapshots of these dates against the gates and publish them.

        ``on_time``: first revisions get the ``available_at`` of a run on time instead of the current time.
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
        """Promote a space if no space is serving yet."""
        with self.runs.stage("promote") as run:
            serving = registry.read_registry(self.tables).serving
            if serving is not None:
                return run.skip(f"space {serving.space_id} is serving")
            registry.promote(self.tables, find_space(self.tables, space.space_id))
            run.reason = f"space {space.space_id} is the first serving space"
        return None

    def train_return_propensity(self, space: Space) -> None:
        """Train the example consumer on published snapshots and write its results to ``consumer_results``.

        Like any consumer, it registers itself and declares itself ready for the space once its model is saved.
        """
        with self.runs.stage("train_return_propensity", [schemas.SNAPSHOTS, schemas.TILE_DAYS]) as run:
            dates = self.schedule.label_dates(space)
            if not dates.test:
                horizon = self.config.downstream.horizon_days
                return run.skip(
                    f"no labels yet: needs an as-of date at least {horizon} days after {space.trained_until}, "
                    "and as many days of labels before it"
                )
            register_consumer(self.tables, CONSUMER, owner=OWNER)
            snapshots = [s for s in list_snapshots(self.tables, space.space_id) if s.as_of in dates.all]
            inputs = [space.content_hash, [s.snapshot_id for s in snapshots], self.config.downstream.model_dump()]
            inputs_hash = short_hash(inputs)
            earlier = self.tables.ledger(schemas.CONSUMER_RESULTS, inputs_hash=inputs_hash)
            if earlier:
                by_input = {row.input: Outcome(row.input, row.dims, row.auc) for row in earlier}
                self.outcomes = [by_input[name] for name in INPUTS]
                declare_ready(self.tables, CONSUMER, space.space_id)
                return run.skip(f"space {space.space_id}, {len(snapshots)} snapshots")
            folder = model_folder(self.tables, space)
            self.outcomes, counts, ids = train_return_propensity(self.tables, self.config, space, dates, folder=folder)
            common = {
                "consumer": CONSUMER,
                "space_id": space.space_id,
                "inputs_hash": inputs_hash,
                "num_train": counts["train"],
                "num_test": counts["test"],
                "snapshot_ids": ids,
                "trained_at": utc_now(),
            }
            self.tables.add(schemas.CONSUMER_RESULTS, [vars(outcome) | common for outcome in self.outcomes])
            declare_ready(self.tables, CONSUMER, space.space_id)
            run.num_rows = sum(counts.values())
            run.outputs = {"auc": {o.input: o.auc for o in self.outcomes}, "model": folder}
        return None

    def _without_snapshot(self, space: Space, as_ofs: Sequence[date], *states: str) -> list[date]:
        """Return the dates without a snapshot of the current features in one of these states."""
        sets = feature_sets(self.tables, space.lineage_id)
        existing = {(s.as_of, s.inputs_hash) for s in list_snapshots(self.tables, space.space_id, states=states)}
        return [day for day in as_ofs if day not in sets or (day, snapshot_inputs(space, sets[day])) not in existing]
