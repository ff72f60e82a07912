"""The state of a root as metrics for Prometheus. Times are seconds since 1970, durations and ages are in seconds."""

from collections.abc import Sequence
from datetime import UTC, datetime

from userrep.operations.metrics_file import Metric
from userrep.report.facts import NOUNS, Facts
from userrep.report.findings import Finding
from userrep.report.state import RootState

_LEVELS = {"ok": 0, "warn": 1, "fail": 2}  # of a drift metric


def metrics_of(state: RootState, facts: Facts, found: Sequence[Finding]) -> list[Metric]:
    """Return all metrics. Those without a value, such as drift that was not measured, have no values."""
    return [
        Metric("checked_timestamp_seconds", "Time of these metrics.", "", {"": _seconds(facts.made_at)}),
        Metric("findings", "Findings of userrep check, by level.", "level", {
            noun: sum(finding.level == level for finding in found) for level, noun in NOUNS.items()
        }),
        Metric(
            "last_success_timestamp_seconds", "End of the last successful run, by command.", "command",
            {command: _seconds(at) for command, at in state.successes.items()},
        ),
        Metric("freshness_seconds", "Age of the serving snapshot and of the log.", "of", _ages(facts)),
        *_of_snapshots(facts),
        Metric("stage_duration_seconds", "Duration of the last run that was not skipped, by stage.", "stage", {
            row.stage: row.seconds for row in state.runs if row.outcome == "done"
        }),
        Metric("stage_failed", "1: the last run failed, by stage.", "stage", {
            stage.stage: stage.outcome == "failed" for stage in facts.newest
        }),
        Metric("rejected_rows", "Rejected rows of the log, by reason.", "reason", dict(facts.log.rejected)),
        Metric("log_events", "Events of the log.", "", {"": facts.log.num_events}),
    ]  # fmt: skip


def _ages(facts: Facts) -> dict[str, float]:
    """Return the time since the as-of date of the newest available snapshot, and since the end of the log."""
    since = {"snapshot": facts.serving.available_as_of if facts.serving else None, "log": facts.log.end}
    return {name: facts.age(day).total_seconds() for name, day in since.items() if day is not None}


def _of_snapshots(facts: Facts) -> list[Metric]:
    drift = facts.drift.newest if facts.drift else {}
    return [
        Metric("snapshot_users", "Users in the newest snapshot, by space in use.", "space", {
            space.space_id: space.newest_users for space in facts.spaces if space.in_use
        }),
        Metric("gates_passed", "1: the gates passed the newest snapshot, 0: they refused it.", "space", {
            newest.space_id: newest.state != "refused" for newest in facts.snapshots[-1:]
        }),
        Metric("drift", "Drift of the newest snapshot, by metric.", "metric", {
            name: point.value for name, point in drift.items()
        }),
        Metric("drift_level", "0: within the limits, 1: past drift.warn, 2: past drift.fail.", "metric", {
            name: _LEVELS[point.outcome] for name, point in drift.items()
        }),
    ]  # fmt: skip


def _seconds(at: datetime) -> float:
    return at.replace(tzinfo=UTC).timestamp()
