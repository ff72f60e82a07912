"""The record of a run: one row of ``job_runs`` per stage, with its inputs, outputs, duration and outcome.

A command that succeeds adds a last row, so that one that was killed between two stages is not taken for a success.
"""

import json
import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial

from userrep.config import Config
from userrep.errors import plural
from userrep.ids import code_hash, short_hash
from userrep.logs import lines_are_json, logged_with, this_run_id
from userrep.operations.stage_rates import StageRates
from userrep.spark.spark_work import SparkWork
from userrep.store.leases import check_held
from userrep.store.schemas import COMMAND_END, JOB_RUNS, TableSchema
from userrep.store.tables import Tables
from userrep.tracking.lineage import COMPLETE, FAIL, START, StageEvents
from userrep.workflows.run_plan import PlannedStage
from userrep.workflows.stage_lineage import stage_facts

logger = logging.getLogger(__name__)

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
INTERRUPTED = "interrupted"  # reason of a stage that Ctrl-C or SIGTERM has ended
_LONG_STAGE = 5.0  # seconds


@dataclass
class StageRun:
    """The record that a stage fills in while it runs. ``reason``: why it ran, was skipped or failed."""

    stage: str
    outcome: str = DONE
    reason: str = ""
    num_rows: int = 0
    seconds: float = 0.0
    outputs: dict[str, object] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """Mark the stage as skipped because its outputs are up to date."""
        self.outcome, self.reason = SKIPPED, reason


class Runs:
    """The stages of one run, each recorded when it ends. ``run_id``: the id of the process's run, or a new one.

    ``command``: the command or job of the run, which the records then have in ``outputs``. ``expected``: the stages of
    the run. A line is printed when a long one of these starts: one that took five seconds or more the last time it was
    not skipped, or has never run on these tables. ``planned``: what the next stages are expected to do, which the
    records then have in ``outputs``, under ``predicted``.
    """

    def __init__(self, tables: Tables, config: Config) -> None:
        self.run_id = this_run_id()
        self.command: str | None = None
        self.expected: Sequence[str] = ()
        self.planned: list[PlannedStage] = []
        self.stages: list[StageRun] = []
        self._tables, self._config = tables, config
        self._events = StageEvents(config)
        self._config_hash = short_hash(config.model_dump())

    @cached_property
    def rates(self) -> StageRates:
        """What the stages of earlier runs took, read once."""
        return StageRates.of(self._tables)

    @contextmanager
    def stage(
        self, name: str, inputs: Sequence[TableSchema] = (), *, pinned: Mapping[str, int] | None = None,
        space_id: str | None = None,
    ) -> Iterator[StageRun]:  # fmt: skip
        """Run a block as a stage: time it and record it with its Spark work and the table versions of its inputs.

        The versions are those at the start of the stage, and those that the run has pinned. ``space_id``: the space
        that it works on, for its OpenLineage events.

        Raises
        ------
        AlreadyRunningError
            If another run has taken over a lease of this run.
        """
        check_held()
        self._report_start(name)
        run, started = StageRun(name), datetime.now(UTC)
        clock, work = time.monotonic(), SparkWork(self._tables.spark)
        versions = dict(pinned or {}) | {table.name: self._tables.version(table) for table in inputs}
        emit = partial(self._emit, str(uuid.uuid4()), run, versions, space_id)
        emit(START)
        predicted = self._predicted(name)
        try:
            with logged_with(run_id=self.run_id, stage=name):
                yield run
            self.stages.append(run)
        except BaseException as error:
            is_failure = isinstance(error, Exception)  # and neither Ctrl-C nor SIGTERM
            reason = (str(error).splitlines() or [type(error).__name__])[0][:500]
            run.outcome, run.reason = FAILED, reason if is_failure else INTERRUPTED
            raise
        finally:
            run.seconds = time.monotonic() - clock
            run.outputs |= predicted | ({"spark": work.found()} if run.outcome == DONE else {})
            # An error of the record must not hide the stage's own.
            with suppress(Exception) if run.outcome == FAILED else nullcontext():
                self._record(run, started, versions)
            emit(FAIL if run.outcome == FAILED else COMPLETE)
            self._report_end(run)

    def record_success(self) -> None:
        """Record that the command has succeeded."""
        self._record(StageRun(COMMAND_END), datetime.now(UTC), {})

    def _report_start(self, name: str) -> None:
        if name not in self.expected:
            return
        last = self.rates.last_seconds(name)
        if last is None or last >= _LONG_STAGE:
            position = f"stage {self.expected.index(name) + 1} of {len(self.expected)}"
            logger.info(f"{position}: {name} ({'first run' if last is None else f'{last:.0f} s last time'})")

    def _predicted(self, name: str) -> dict[str, object]:
        """Take the next planned stage of a name; return its entry for the record, empty if none is planned."""
        planned = next((stage for stage in self.planned if stage.stage == name), None)
        if planned is None:
            return {}
        self.planned.remove(planned)
        return {"predicted": {"outcome": DONE if planned.runs else SKIPPED, **planned.expected._asdict()}}

    def _emit(self, event_id: str, run: StageRun, versions: dict[str, int], space_id: str | None, kind: str) -> None:
        """Send an OpenLineage event of a stage, if they are configured."""
        facts = {"run_id": self.run_id, "command": self.command, "space_id": run.outputs.get("space_id") or space_id}
        facts |= {"outcome": run.outcome, "reason": run.reason} if kind == COMPLETE else {}
        described = {name: str(value) for name, value in facts.items() if value}
        has_written = kind == COMPLETE and run.outcome == DONE
        stage = partial(stage_facts, self._tables, self._config, run.stage, versions, described, ended=has_written)
        self._events.emit(kind, event_id, stage, run.reason if kind == FAIL else None)

    def _report_end(self, run: StageRun) -> None:
        """Log the end of a stage. In text mode, an error is printed only once, at the end of the command."""
        if run.outcome == FAILED and not lines_are_json():
            return
        result = {
            DONE: f"{plural(run.num_rows, 'row')} in {run.seconds:.0f} s",
            SKIPPED: "up to date",
            FAILED: f"failed after {run.seconds:.0f} s",
        }[run.outcome]
        figures = {"outcome": run.outcome, "seconds": round(run.seconds, 3), "num_rows": run.num_rows}
        with logged_with(run_id=self.run_id, stage=run.stage):
            line = f"{run.stage}: {result}" + (f" ({run.reason})" if run.reason else "")
            logger.info(line, extra={"figures": figures | {"reason": run.reason}})

    def _record(self, run: StageRun, started: datetime, versions: dict[str, int]) -> None:
        outputs = run.outputs | ({"command": self.command} if self.command else {})
        row = {"run_id": self.run_id, "started_at": started, "inputs": json.dumps(versions)}
        row |= {"config_hash": self._config_hash, "code_hash": code_hash()}
        self._tables.add(JOB_RUNS, [vars(run) | row | {"outputs": json.dumps(outputs, default=str)}])
