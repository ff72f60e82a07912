"""The tables at the end of a report: the numbers behind its charts."""

from collections.abc import Sequence
from dataclasses import dataclass

from userrep.report.facts import Facts
from userrep.report.formats import NONE, core_hours, count, day, figure, plural, seconds, signed, size, when

_MOST_ROWS = 400  # rows of a table on the page; the JSON file has all


@dataclass(frozen=True)
class Listing:
    """A table. ``align`` has one letter per column: l (left), r (right, for numbers) or w (text that may wrap)."""

    title: str
    note: str
    head: Sequence[str]
    align: str
    rows: Sequence[Sequence[str]]

    @property
    def shown(self) -> Sequence[Sequence[str]]:
        return self.rows[:_MOST_ROWS]


def listings(facts: Facts) -> list[Listing]:
    """Return the tables at the end of the page. Tables without rows are left out."""
    tables = [
        _stages(facts), _runs(facts), _days(facts), _drift(facts), _self_check(facts), _evaluation(facts),
        _losses(facts), _snapshots(facts), _storage(facts),
    ]  # fmt: skip
    return [table for table in tables if table.rows]


def spaces(facts: Facts) -> Listing:
    """Return the table of spaces, one row per space."""
    rows = [
        [space.space_id, space.state, space.in_use or NONE, day(space.trained_until), when(space.created_at),
         day(space.newest_as_of), count(space.newest_users), count(space.num_snapshots), count(len(space.stale))]
        for space in facts.spaces
    ]  # fmt: skip
    head = ["space", "state", "embedded daily", "trained until", "created", "latest snapshot"]
    return Listing("Spaces", "", [*head, "users", "snapshots", "stale dates"], "llllllrrr", rows)


def consumers(facts: Facts) -> Listing:
    """Return the table of consumers, one row per consumer."""
    rows = [
        [consumer.name, consumer.owner, consumer.uses or "serving space", consumer.ready_for or NONE,
         when(consumer.last_seen_at)]
        for consumer in facts.consumers
    ]  # fmt: skip
    return Listing("Consumers", "", ["consumer", "owner", "uses", "ready for", "last seen"], "lllll", rows)


def _stages(facts: Facts) -> Listing:
    inputs = [", ".join(f"{name} v{version}" for name, version in stage.inputs.items()) for stage in facts.newest]
    rows = [
        [stage.stage, stage.outcome, when(stage.started_at), seconds(stage.seconds), count(stage.num_rows),
         core_hours(stage.core_hours), size(stage.shuffle_bytes), stage.reason or NONE, tables or NONE,
         stage.config_hash, stage.code_hash]
        for stage, tables in zip(facts.newest, inputs, strict=True)
    ]  # fmt: skip
    head = ["stage", "outcome", "started", "duration", "rows", "core hours", "shuffled", "reason", "tables read"]
    head += ["config hash", "code hash"]
    return Listing("Last run of each stage", plural(len(rows), "stage"), head, "lllrrrrwwll", rows)


def _runs(facts: Facts) -> Listing:
    rows = [
        [run.run_id, when(run.started_at), run.outcome, seconds(run.seconds), ", ".join(run.stages) or "up to date"]
        for run in reversed(facts.runs)
    ]
    head = ["run", "started", "outcome", "duration", "stages that ran"]
    return Listing("Runs", f"the latest {len(rows)}", head, "lllrw", rows)


def _days(facts: Facts) -> Listing:
    days = facts.log.days
    last_by_first = dict(facts.log.gaps)
    # A gap is one row, at its first day.
    listed = [
        log_day for log_day in days if log_day.is_small or log_day.num_rejected or log_day.day in last_by_first
    ]  # fmt: skip
    rows = [
        [
            day(log_day.day)
            if last_by_first.get(log_day.day, log_day.day) == log_day.day
            else f"{log_day.day} to {last_by_first[log_day.day]}",
            count(log_day.num_events),
            count(log_day.num_rejected),
            NONE if log_day.usual is None else count(log_day.usual),
            "missing" if log_day.is_missing else "far smaller than usual" if log_day.is_small else "",
        ]
        for log_day in reversed(listed)
    ]
    note = (
        f"{plural(len(days), 'day')}, {facts.log.num_missing} missing; listed if missing, small or with rejected rows"
    )
    return Listing("Days of the log", note, ["day", "events", "rejected", "usual for the weekday", ""], "lrrrl", rows)


def _drift(facts: Facts) -> Listing:
    drift = facts.drift
    rows = [
        [day(point.as_of), metric, figure(point.value, 4), point.outcome, figure(drift.warn.get(metric), 2)]
        for metric, points in drift.points.items()
        for point in reversed(points)
    ] if drift else []  # fmt: skip
    head = ["as of", "metric", "value", "outcome", "warns above"]
    return Listing("Drift", "each metric and date", head, "llrlr", rows)


def _self_check(facts: Facts) -> Listing:
    check = facts.training.self_check if facts.training else None
    if check is None:
        return Listing("Self-check", "", [], "", [])
    head, rows = check.table
    note = f"of a model trained until {day(check.trained_until)}; {check.summary}"
    return Listing("Self-check", note, head, "l" + "r" * (len(head) - 1), rows)


def _evaluation(facts: Facts) -> Listing:
    tasks = facts.evaluation.tasks if facts.evaluation else []
    touched = {True: "yes", False: "no", None: "unknown"}
    rows = [
        [task.task, task.metric, touched[task.touched], result.representation, figure(result.value, 4),
         figure(result.low, 4), figure(result.high, 4), signed(result.ahead_by, 4), signed(result.ahead_low, 4),
         signed(result.ahead_high, 4), count(task.num_test)]
        for task in tasks
        for result in task.figures
    ]  # fmt: skip
    head = ["task", "metric", "similar to training heads", "representation", "value", "from", "to"]
    head += ["embedding ahead by", "from", "to", "examples"]
    return Listing("Evaluation", "from and to: ends of the 90% interval", head, "llllrrrrrrr", rows)


def _losses(facts: Facts) -> Listing:
    metrics = facts.training.metrics if facts.training else {}
    kinds = ("train_loss", "valid_users_loss", "valid_dates_loss")
    blocks = list(dict.fromkeys(name.split(".", 1)[1] for name in metrics if "." in name))
    rows = [["all", *(figure(metrics.get(kind)) for kind in kinds)]] if blocks else []
    rows += [[block, *(figure(metrics.get(f"{kind}.{block}")) for kind in kinds)] for block in blocks]
    head = ["block", "training rows", "held-out users", "later dates"]
    return Listing("Losses by block", "of the kept epoch", head, "lrrr", rows)


def _snapshots(facts: Facts) -> Listing:
    rows = [
        [snapshot.snapshot_id, day(snapshot.as_of), snapshot.state, count(snapshot.num_users),
         when(snapshot.available_at), "; ".join(snapshot.faults) or NONE]
        for snapshot in reversed(facts.snapshots)
    ]  # fmt: skip
    head = ["snapshot", "as of", "state", "users", "available at", "refused because"]
    return Listing("Snapshots", plural(len(rows), "snapshot"), head, "lllrlw", rows)


def _storage(facts: Facts) -> Listing:
    rows = [[table.name, size(table.num_bytes), count(table.num_bytes)] for table in facts.storage]
    return Listing("Tables", "files of the latest version", ["table", "size", "bytes"], "lrr", rows)
