"""Verdicts on a new space for consumers: recorded when labels of a consumer have compared it with an old space."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from userrep.spaces.registry import read_registry
from userrep.store.schemas import CONSUMER_VERDICTS
from userrep.store.sql import sql_in
from userrep.store.tables import Tables

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import Row

PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"


@dataclass(frozen=True)
class LabelTable:
    """Labels of a consumer: path or URI of a Parquet, Delta or CSV table, with the columns of a join and ``label``.

    ``model``: path or URI of the consumer's own model of the old space as JSON, if it keeps that model.
    """

    labels: str
    user_column: str = "user_id"
    time_column: str = "label_at"
    model: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A row of ``consumer_verdicts``. ``low``, ``high``: ends of the 90 % interval of ``difference``, new minus old."""

    consumer: str
    old_space_id: str
    new_space_id: str
    verdict: str
    metric: str
    difference: float
    low: float
    high: float
    num_labels: int
    label_table: LabelTable
    compared_at: datetime

    def __str__(self) -> str:
        return (
            f"{self.verdict}, {self.metric} {self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}] on "
            f"{self.num_labels:,} labels, compared {self.compared_at:%Y-%m-%d %H:%M} UTC"
        )


def record_verdict(tables: Tables, verdict: Verdict) -> None:
    """Append a verdict in one commit, unless it equals the consumer's newest verdict except for its time.

    So a comparison that is repeated after a kill, or that two runs make at once, is recorded once.

    Raises
    ------
    UsageError
        If the consumer is not registered.
    """
    read_registry(tables).consumer(verdict.consumer)
    verdict_id = uuid.uuid4().hex

    def added(rows: list[Row]) -> list[dict[str, Any]] | None:
        newest = max(map(_verdict, rows), key=lambda known: known.compared_at, default=None)
        if newest is not None and replace(newest, compared_at=verdict.compared_at) == verdict:
            return None
        row = vars(verdict) | asdict(verdict.label_table) | {"verdict_id": verdict_id}
        del row["label_table"]
        return [row]

    replacing = sql_in("verdict_id", [verdict_id])  # the new row alone
    tables.change(CONSUMER_VERDICTS, added, replacing=replacing, consumer=verdict.consumer)


def newest_verdicts(tables: Tables) -> list[Verdict]:
    """Return the newest verdict of each consumer on each pair of spaces, oldest first. Cost: one read of the ledger."""
    verdicts = sorted(map(_verdict, tables.ledger(CONSUMER_VERDICTS)), key=lambda verdict: verdict.compared_at)
    newest = {(v.consumer, v.old_space_id, v.new_space_id): v for v in verdicts}
    return sorted(newest.values(), key=lambda verdict: verdict.compared_at)


def follower_verdicts(tables: Tables, new_space_id: str) -> dict[str, Verdict | None]:
    """Return each follower's newest verdict on a space that would replace the serving one; None if it has none.

    Followers are the consumers that are not pinned. Empty if the space serves already.
    """
    registry = read_registry(tables)
    serving_id = registry.serving.space_id if registry.serving else None
    if serving_id == new_space_id:
        return {}
    known = {
        verdict.consumer: verdict
        for verdict in newest_verdicts(tables)
        if (verdict.old_space_id, verdict.new_space_id) == (serving_id, new_space_id)
    }
    return {consumer.name: known.get(consumer.name) for consumer in registry.consumers if consumer.follows}


def verdict_lines(verdicts: dict[str, Verdict | None]) -> Sequence[str]:
    """Format the verdicts of followers for the terminal, those of consumers without one last."""
    lines = [f"verdict of {name}: {verdict}" for name, verdict in verdicts.items() if verdict is not None]
    missing = [name for name, verdict in verdicts.items() if verdict is None]
    return [*lines, *([f"consumers that follow and have no verdict: {', '.join(missing)}"] if missing else [])]


def _verdict(row: Row) -> Verdict:
    values = row.asDict()
    del values["verdict_id"]
    columns = ("labels", "user_column", "time_column", "model")
    return Verdict(label_table=LabelTable(**{name: values.pop(name) for name in columns}), **values)
