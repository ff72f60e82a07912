"""Resolve label times to snapshots: turn the ledger into time intervals, and look up labels in them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.joins.options import Availability
from userrep.spaces.snapshots import Snapshot

_END = datetime.combine(date(9999, 12, 31), time())
_COLUMNS = """__day DATE, __since TIMESTAMP, __until TIMESTAMP, __number INT, __snapshot_id STRING, __as_of DATE,
__revision INT, __state STRING, __in_sample BOOLEAN"""


class Step(NamedTuple):
    """The snapshot to use for times from ``since`` (inclusive, UTC) up to the next step."""

    since: datetime
    snapshot: Snapshot


def steps_of(snapshots: Sequence[Snapshot], availability: Availability) -> list[Step]:
    """Order a ledger by time. Each step's snapshot is newer (by as-of date, then revision) than all before it.

    With ``availability="ledger"``, a snapshot is used from its ``available_at`` on. With ``"as_of"``, the newest
    revision of a date is used from the as-of date on, whenever it was built.
    """
    since = {s.snapshot_id: datetime.combine(s.as_of, time()) for s in snapshots}
    if availability == "ledger":
        since = {s.snapshot_id: s.available_at for s in snapshots if s.available_at is not None}
    known = [s for s in snapshots if s.snapshot_id in since]
    steps: list[Step] = []
    for snapshot in sorted(known, key=lambda s: (since[s.snapshot_id], s.as_of, s.revision)):
        if not steps or _rank(snapshot) > _rank(steps[-1].snapshot):
            if steps and steps[-1].since == since[snapshot.snapshot_id]:
                steps.pop()
            steps.append(Step(since[snapshot.snapshot_id], snapshot))
    return steps


def with_snapshot(labels: DataFrame, steps: Sequence[Step], *, time: str) -> DataFrame:
    """Add the snapshot of each label's time: __number, its index in ``steps``, and its __snapshot_id, __as_of,
    __revision, __state and __in_sample.

    The columns are null before the first step and for a null time. Every label is kept once. Cost: a broadcast of the
    ledger, with one row per day that it spans and per step; no shuffle.
    """
    rows = [(day, *span, k, *_ledger_columns(steps[k].snapshot)) for day, span, k in _by_day(steps)]
    ledger = F.broadcast(labels.sparkSession.createDataFrame(rows, _COLUMNS))
    at, last = column(time), F.lit(steps[-1].since.date() if steps else _END.date())
    is_current = (
        (F.least(F.to_date(at), last) == F.col("__day")) & (at >= F.col("__since")) & (at < F.col("__until"))
    )  # fmt: skip
    return labels.join(ledger, on=is_current, how="left").drop("__day", "__since", "__until")


def column(name: str) -> Column:
    """Return a column by its exact name, which may contain dots and backticks."""
    return F.col(f"`{name.replace('`', '``')}`")


def _rank(snapshot: Snapshot) -> tuple[date, int]:
    return snapshot.as_of, snapshot.revision


def _ledger_columns(snapshot: Snapshot) -> tuple[str, date, int, str, bool]:
    return snapshot.snapshot_id, snapshot.as_of, snapshot.revision, snapshot.state, snapshot.in_sample


def _by_day(steps: Sequence[Step]) -> Iterator[tuple[date, tuple[datetime, datetime], int]]:
    """Yield (day, (since, until), index of the step) for each day of each step.

    The last step gets a single row. ``with_snapshot`` compares later days with that row's day.
    """
    for k, (since, _) in enumerate(steps):
        until = steps[k + 1].since if k + 1 < len(steps) else _END
        span = since.replace(tzinfo=UTC), until.replace(tzinfo=UTC)
        last = steps[k + 1].since if k + 1 < len(steps) else since + timedelta.resolution
        for days in range((last - timedelta.resolution - datetime.combine(since, time())).days + 1):
            yield since.date() + timedelta(days=days), span, k
