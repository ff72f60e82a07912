"""The context of a run: its tables, its inputs, resolved once for all stages, and the record of its stages."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import cached_property

from pyspark.sql import SparkSession

from userrep.config import Config
from userrep.errors import plural
from userrep.features.profiles import Profiles, check_sources, refresh_profiles
from userrep.model.self_check import SelfCheck
from userrep.sources.listing import Listings
from userrep.sources.open_log import OpenLog
from userrep.store.file_tables import FileTables
from userrep.store.leases import held
from userrep.store.open import artifacts_root, open_tables
from userrep.store.schemas import SOURCE_FILES
from userrep.store.write_access import check_writable
from userrep.tiles.inventory.inventory import take_inventory
from userrep.tiles.ledger import TileLedger, tile_ledger
from userrep.tracking.lineage import check_lineage_client
from userrep.utc import newest_as_of, utc_now
from userrep.workflows.alerts import alerting, check_alerts
from userrep.workflows.run_plan import PlannedStage, RunPlan
from userrep.workflows.runs import Runs
from userrep.workflows.schedule import Schedule

logger = logging.getLogger(__name__)


class RunContext:
    """A run on the tables of a configuration. Opening it does no I/O.

    ``as_of`` None: the day after the last day of the log, at most today. ``listings``: of files, by the checks before
    Spark. ``self_check``: the result of the self-check of a new space. ``training_due``: see ``Schedule``.
    """

    def __init__(
        self, config: Config, spark: SparkSession, as_of: date | None = None, listings: Listings | None = None
    ) -> None:
        self.config, self.spark = config, spark
        self._listings = listings or Listings()
        self.tables = open_tables(config, spark)
        self.runs = Runs(self.tables, config)
        self.self_check: SelfCheck | None = None
        self.training_due: date | None = None
        self._requested_as_of = as_of

    def check(self) -> None:
        """Check root and sources before anything is written. Raises UsageError with all faults."""
        check_writable(artifacts_root(self.config))
        _ = self.logs

    @contextmanager
    def lease(self, job: str) -> Iterator[None]:
        """Check root and sources, hold the lease of a job in the block, then record and alert its outcome.

        Raises what ``leases.held``, ``check_alerts`` and ``check_lineage_client`` do.
        """
        check_alerts(self.config)
        self.runs.command = job
        with alerting(self.tables, self.config, job):
            check_lineage_client(self.config)
            self.check()
            with held(self.tables, job):
                yield
                self.runs.record_success()

    @cached_property
    def logs(self) -> list[OpenLog]:
        """The sources of the event log, listed once for all stages. Raises UsageError with all faults."""
        return check_sources(self.spark, self.config, self._listings)

    @cached_property
    def profiles(self) -> Profiles:
        """The user profiles, refreshed once for all stages."""
        return refresh_profiles(self.tables, self.config)

    @cached_property
    def tiles(self) -> TileLedger:
        """The tile days that all stages of this run use: as its tile stage left them, otherwise the newest."""
        return tile_ledger(self.tables)

    @property
    def as_of(self) -> date | None:
        """The as-of date of the schedule, or as requested if no stage has needed a schedule."""
        schedule: Schedule | None = self.__dict__.get("schedule")  # without running its stage
        return schedule.as_of if schedule else self._requested_as_of

    @cached_property
    def schedule(self) -> Schedule:
        """The dates of this run. Runs the stage ``take_inventory``, which reads the new files of the log.

        Raises the errors of ``Schedule.check``. A refused date does not fail the stage, whose record names it.
        """
        with self.runs.stage("take_inventory") as run:
            inventory = take_inventory(self.tables, self.config.events, self.logs)
            run.num_rows = sum(day.num_rows or 0 for day in inventory.days)
            run.reason = (
                f"{inventory.first_day} to {inventory.last_day}, {plural(inventory.num_new_files, 'file')} read"
            )
            as_of = self._requested_as_of or newest_as_of(inventory.last_day, utc_now())
            schedule = Schedule(self.config, self.tables, inventory, as_of, self.training_due)
            run.outputs = {
                "as_of": as_of,
                "source_files": self.tables.version(SOURCE_FILES),
                "lineage_id": schedule.lineage_id,
                "spaces": {space.space_id: space.content_hash for space in schedule.registry.spaces},
            }
        if self._requested_as_of is not None:
            schedule.check()
        for warning in inventory.warnings:
            logger.warning(warning)
        return schedule

    def predict(self, stages: Callable[[RunPlan], list[PlannedStage]]) -> None:
        """Record the expected cost of the remaining stages of this run, to compare with their actual cost.

        Nothing is recorded for tables in a catalog, where the reads of ledgers would take seconds.
        """
        if isinstance(self.tables, FileTables):
            self.runs.planned = stages(RunPlan(self.schedule, self.runs.rates))
