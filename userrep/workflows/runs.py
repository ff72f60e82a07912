"""The record of what ran: one row of ``job_runs`` per stage, with what went in, what came out, and how it ended."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from userrep.config import Config
from userrep.ids import code_hash, short_hash
from userrep.logs import StageLine, as_json, in_stage, this_run_id, to_stderr
from userrep.spark.spark_work import SparkWork
from userrep.store.leases import check_held
from userrep.store.schemas import JOB_RUNS, TableSchema
from userrep.store.tables import Tables

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
_WORTH_TELLING = 5.0  # seconds of a stage


@dataclass
class StageRun:
    """What a stage says of itself while it runs; ``reason`` is why it ran, or why it did not need to."""

    stage: str
    outcome: str = DONE
    reason: str = ""
    num_rows: int = 0
    seconds: float = 0.0
    outputs: dict[str, object] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """Say that the stage's outputs are up to date."""
        self.outcome, self.reason = SKIPPED, reason


class Runs:
    """Stages of one run, recorded as they end. Its id: that of the process's run, where it has one."""

    def __init__(self, tables: Tables, config: Config, *, report: Callable[[str], None] = to_stderr) -> None:
        self.run_id = this_run_id()
        self.report = report
        self.stages: list[StageRun] = []
        self._tables = tables
        self._expected: Sequence[str] = ()
        self._last_seconds: dict[str, float] = {}
        self._config_hash = short_hash(config.model_dump())

    @cached_property
    def _code_hash(self) -> str:
        return code_hash()

    def expect(self, stages: Sequence[str]) -> None:
        """Announce the stages of the run. From now on, a line is printed when a long stage begins.

        Long is a stage that took five seconds or more when it last did something, or that has never run here. Cost: one
        read of the ledger of runs.
        """
        self._expected = stages
        done = [run for run in self._tables.ledger(JOB_RUNS) if run.outcome == DONE]
        self._last_seconds = {run.stage: run.seconds for run in sorted(done, key=lambda run: run.started_at)}

    def _tell_begin(self, name: str) -> None:
        if name not in self._expected or self._last_seconds.get(name, _WORTH_TELLING) < _WORTH_TELLING:
            return
        place = f"stage {self._expected.index(name) + 1} of {len(self._expected)}"
        last = f"{self._last_seconds[name]:.0f} s last time" if name in self._last_seconds else "first run"
        self.report(f"{place}: {name} ({last})")

    @contextmanager
    def stage(self, name: str, inputs: Sequence[TableSchema] = ()) -> Iterator[StageRun]:
        """Time a stage and record it, with the versions of its inputs as they are at its start, and Spark's work.

        Raises AlreadyRunningError if another run has taken the place of this one.
        """
        check_held()
        self._tell_begin(name)
        run, started = StageRun(name), datetime.now(UTC)
        clock, work = time.monotonic(), SparkWork(self._tables.spark)
        versions = {table.name: self._tables.version(table) for table in inputs}
        try:
            with in_stage(self.run_id, name):
                yield run
        except BaseException as error:
            run.outcome, run.reason = FAILED, (str(error).splitlines() or [type(error).__name__])[0][:500]
            run.seconds = time.monotonic() - clock
            with suppress(Exception):  # the stage's own error is the one to tell
                self._record(run, started, versions)
            if as_json():  # people read the error itself, once
                self._tell(run, f"failed after {run.seconds:.0f} s")
            raise
        run.seconds = time.monotonic() - clock
        if run.outcome == DONE:
            run.outputs["spark"] = work.found()
        self.stages.append(run)
        self._record(run, started, versions)
        self._tell(run, f"{run.num_rows:,} rows in {run.seconds:.0f} s" if run.outcome == DONE else "up to date")

    def _tell(self, run: StageRun, said: str) -> None:
        figures = {"outcome": run.outcome, "seconds": round(run.seconds, 3), "num_rows": run.num_rows}
        with in_stage(self.run_id, run.stage):
            line = f"{run.stage}: {said}" + (f" ({run.reason})" if run.reason else "")
            self.report(StageLine(line, figures | {"reason": run.reason}))

    def _record(self, run: StageRun, started: datetime, versions: dict[str, int]) -> None:
        row = {
            "run_id": self.run_id,
            "stage": run.stage,
            "outcome": run.outcome,
            "reason": run.reason,
            "started_at": started,
            "seconds": run.seconds,
            "num_rows": run.num_rows,
            "inputs": json.dumps(versions),
            "outputs": json.dumps(run.outputs, default=str),
            "config_hash": self._config_hash,
            "code_hash": self._code_hash,
        }
        self._tables.add(JOB_RUNS, [row])
