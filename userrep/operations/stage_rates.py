"""Predicted duration and core seconds of a stage, scaled from the recorded run that is most like it."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import log2
from typing import Any, NamedTuple

from pyspark.sql import Row

from userrep.store.schemas import JOB_RUNS
from userrep.store.tables import Tables

# Stages whose work does not grow with what a run processes, or whose size is not known before they run.
_CONSTANT = ("take_inventory", "check_quality", "train_autoencoder", "monitor_drift", "promote")


class Prediction(NamedTuple):
    """What a stage is expected to take. ``core_seconds``: run time of Spark's tasks. None: no run to estimate from."""

    seconds: float | None
    core_seconds: float | None


class _Measured(NamedTuple):
    """A recorded run of a stage: what it processed, in the unit of the stage (0: unknown), and what it took."""

    amount: float
    seconds: float
    core_seconds: float | None


@dataclass(frozen=True)
class StageRates:
    """The recorded runs by stage, the newest last."""

    runs: dict[str, list[_Measured]]

    @classmethod
    def of(cls, tables: Tables) -> "StageRates":
        """Read the stages that were not skipped. Cost: one read of ``job_runs``. Driver memory: one entry per row."""
        runs: dict[str, list[_Measured]] = defaultdict(list)
        for row, outputs in done_stages(tables):
            runs[row.stage].append(_measured(row, outputs))
        return cls(dict(runs))

    def last_seconds(self, stage: str) -> float | None:
        """Return the duration of the newest run of a stage; None without any."""
        runs = self.runs.get(stage)
        return runs[-1].seconds if runs else None

    def predict(self, stage: str, amount: float | None) -> Prediction:
        """Scale the run that processed about as much (within a factor of 2, the newest of these) to ``amount``.

        ``amount``: events of ``build_activity_tiles``, versions of ``train_item_vectors``, users times as-of dates of
        features, embeddings and snapshots; other stages have no unit. None if unknown.
        """
        if stage in _CONSTANT:
            amount = 1
        runs = [run for run in self.runs.get(stage, []) if run.amount]
        if amount is None or not runs:
            return Prediction(None, None)
        nearest = min(reversed(runs), key=lambda run: round(abs(log2(max(amount, 1) / run.amount))))
        factor = amount / nearest.amount
        cores = nearest.core_seconds
        return Prediction(round(nearest.seconds * factor, 1), None if cores is None else round(cores * factor, 1))


def done_stages(tables: Tables) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Yield the recorded stages that were not skipped, with their outputs, the newest last."""
    for row in sorted(tables.ledger(JOB_RUNS, outcome="done"), key=lambda row: row.started_at):
        yield row, json.loads(row.outputs)


def _measured(row: Row, outputs: dict[str, Any]) -> _Measured:
    if row.stage == "build_activity_tiles":
        amount = outputs.get("num_events", 0) + outputs.get("num_rejected", 0)
    elif row.stage == "train_item_vectors":
        amount = len(outputs.get("versions", []))
    else:
        amount = 1 if row.stage in _CONSTANT else row.num_rows
    return _Measured(amount, row.seconds, (outputs.get("spark") or {}).get("task_seconds"))
