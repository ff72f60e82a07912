"""The tables of a report: what charts show, in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from userrep.report.facts import Facts
from userrep.report.formats import NONE, core_hours, count, day, figure, plural, seconds, signed, size, when
from userrep.report.log_days import gaps

_MOST_ROWS = 400  # of a table on the page; the JSON has all


@dataclass(frozen=True)
class Listing:
    """A table. ``align``: a sign a column: l, r for numbers, w for text that may wrap."""

    title: str
    note: str
    head: Sequence[str]
    align: str
    rows: Sequence[Sequence[str]]

    @property
    def shown(self) -> Sequence[Sequence[str]]:
        return self.rows[:_MOST_ROWS]


def listings(facts: Facts) -> list[Listing]:
    """Return the tables at the page's end; those without rows are left out."""
    made = [
        _stages(facts), _runs(facts), _days(facts), _drift(facts), _self_check(facts), _evaluation(facts),
        _losses(facts), _snapshots(facts), _storage(facts),
    ]  # fmt: skip
    return [of for of in made if of.rows]


def spaces(facts: Facts) -> Listing:
    rows = [
        [of.space_id, of.state, of.in_use or NONE, day(of.trained_until), when(of.created_at), day(of.newest_as_of),
         count(of.newest_users), count(of.num_snapshots), count(len(of.stale))]
        for of in facts.spaces
    ]  # fmt: skip
    head = ["space", "state", "embedded daily", "trained until", "created", "newest"]
    return Listing("Spaces", "", [*head, "users", "snapshots", "stale dates"], "llllllrrr", rows)


def consumers(facts: Facts) -> Listing:
    rows = [
        [of.name, of.owner, of.uses or "what serves", of.ready_for or NONE, when(of.last_seen_at)]
        for of in facts.consumers
    ]
    return Listing("Consumers", "", ["consumer", "owner", "uses", "ready for", "last seen"], "lllll", rows)


def _stages(facts: Facts) -> Listing:
    read = [", ".join(f"{name} v{at}" for name, at in of.inputs.items()) for of in facts.newest]
    rows = [
        [of.stage, of.outcome, when(of.started_at), seconds(of.seconds), count(of.num_rows), core_hours(of.core_hours),
         size(of.shuffle_bytes), of.reason or NONE, tables or NONE, of.config_hash, of.code_hash]
        for of, tables in zip(facts.newest, read, strict=True)
    ]  # fmt: skip
    head = [
        "stage",
        "outcome",
        "began",
        "took",
        "rows",
        "core hours",
        "shuffled",
        "why",
        "read",
        "configuration",
        "code",
    ]
    return Listing("Last run of each stage", plural(len(rows), "stage"), head, "lllrrrrwwll", rows)


def _runs(facts: Facts) -> Listing:
    rows = [
        [of.run_id, when(of.started_at), of.outcome, seconds(of.seconds), ", ".join(of.stages) or "all up to date"]
        for of in reversed(facts.runs)
    ]
    return Listing(
        "Runs",
        f"the newest {len(rows)}",
        ["run", "began", "outcome", "took", "stages that did something"],
        "lllrw",
        rows,
    )


def _days(facts: Facts) -> Listing:
    days = facts.log.days
    missing, gone = sum(of.is_missing for of in days), dict(gaps(days))
    odd = [of for of in days if of.is_small or of.num_rejected or of.day in gone]
    rows = [
        [
            day(of.day) if gone.get(of.day, of.day) == of.day else f"{of.day} to {gone[of.day]}",
            count(of.num_events),
            count(of.num_rejected),
            NONE if of.usual is None else count(of.usual),
            "missing" if of.is_missing else "far smaller than usual" if of.is_small else "",
        ]
        for of in reversed(odd)
    ]
    note = f"{plural(len(days), 'day')}, {missing} missing; here those that are missing, small, or have rejected rows"
    return Listing("Days of the log", note, ["day", "events", "rejected", "usual of the weekday", ""], "lrrrl", rows)


def _drift(facts: Facts) -> Listing:
    of_metric = facts.drift.points if facts.drift else {}
    rows = [
        [
            day(of.as_of),
            metric,
            figure(of.value, 4),
            of.outcome,
            figure(facts.drift.warn.get(metric), 2) if facts.drift else "",
        ]
        for metric, points in of_metric.items()
        for of in reversed(points)
    ]
    return Listing(
        "Drift", "each metric and date", ["as of", "metric", "value", "outcome", "warns above"], "llrlr", rows
    )


def _self_check(facts: Facts) -> Listing:
    found = facts.training.self_check if facts.training else None
    if found is None:
        return Listing("Self-check", "", [], "", [])
    head, rows = found.table
    note = f"of a model trained until {day(found.trained_until)}; {found.summary}"
    return Listing("Self-check", note, head, "l" + "r" * (len(head) - 1), rows)


def _evaluation(facts: Facts) -> Listing:
    tasks = facts.evaluation.tasks if facts.evaluation else []
    touched = {True: "yes", False: "no", None: "not known"}
    rows = [
        [task.task, task.metric, touched[task.touched], of.representation, figure(of.value, 4), figure(of.low, 4),
         figure(of.high, 4), signed(of.ahead_by, 4), signed(of.ahead_low, 4), signed(of.ahead_high, 4),
         count(task.num_test)]
        for task in tasks
        for of in task.figures
    ]  # fmt: skip
    head = ["task", "metric", "touched by training heads", "representation", "value", "from", "to"]
    head += ["embedding ahead by", "from", "to", "examples"]
    return Listing("Evaluation", "ends are those of 90 % intervals", head, "llllrrrrrrr", rows)


def _losses(facts: Facts) -> Listing:
    metrics = facts.training.metrics if facts.training else {}
    kinds = ("train_loss", "valid_users_loss", "valid_dates_loss")
    blocks = list(dict.fromkeys(name.split(".", 1)[1] for name in metrics if "." in name))
    rows = [["all", *(figure(metrics.get(kind)) for kind in kinds)]] if blocks else []
    rows += [[block, *(figure(metrics.get(f"{kind}.{block}")) for kind in kinds)] for block in blocks]
    head = ["block", "training rows", "users held out", "later dates"]
    return Listing("Losses by block", "of the epoch that was kept", head, "lrrr", rows)


def _snapshots(facts: Facts) -> Listing:
    rows = [
        [
            of.snapshot_id,
            day(of.as_of),
            of.state,
            count(of.num_users),
            when(of.available_at),
            "; ".join(of.faults) or NONE,
        ]
        for of in reversed(facts.snapshots)
    ]
    head = ["snapshot", "as of", "state", "users", "available at", "refused for"]
    return Listing("Snapshots", plural(len(rows), "snapshot"), head, "lllrlw", rows)


def _storage(facts: Facts) -> Listing:
    rows = [[of.name, size(of.num_bytes), count(of.num_bytes)] for of in facts.storage]
    return Listing("Tables", "files of the newest version", ["table", "size", "bytes"], "lrr", rows)
