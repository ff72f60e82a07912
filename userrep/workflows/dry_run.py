"""``--dry-run``: what a run would read, build and skip, and what it is expected to take. Nothing is written."""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from userrep.config import Config
from userrep.errors import UsageError, plural
from userrep.features.preflight import check_before_spark
from userrep.logs import in_columns
from userrep.operations.stage_rates import StageRates
from userrep.report.formats import size
from userrep.sources.listing import Listings
from userrep.store.tables import Tables
from userrep.tiles.inventory.forecast import Forecast, LogFile, forecast
from userrep.utc import newest_as_of, utc_now
from userrep.workflows.run_plan import PlannedStage, RunPlan
from userrep.workflows.schedule import Schedule


def dry_run(
    tables: Tables,
    config: Config,
    command: str,
    as_ofs: Sequence[date],
    stages: Callable[[RunPlan], Sequence[PlannedStage]],
) -> dict[str, Any]:
    """Return the plan of a command for some as-of dates, or else for the day after the log, at most today.

    ``stages``: the stages of the command in a plan.

    Takes no lease and starts no Spark, unless the tables are in a catalog. Cost: see ``forecast``, and some ledgers.

    Raises
    ------
    UsageError
        If a check before Spark fails, if a date is outside the log, or if the days of the log are not known at all.
    LogIncompleteError
        If the log does not reach the as-of date yet.
    """
    listings = Listings()
    check_before_spark(config, as_ofs, listings)
    log = forecast(tables, config.events, listings)
    if not log.inventory.days:
        raise UsageError(
            "--dry-run: the days of the log are not known before its files are read, and no run has read them yet. Run "
            "`userrep inspect` for a look at the log."
        )
    last = as_ofs[-1] if as_ofs else newest_as_of(log.inventory.last_day, utc_now())
    schedule = Schedule(config, tables, log.inventory, last)
    if as_ofs and not log.unread_files:  # the dates that unread files have are not known
        schedule.check()
        log.inventory.check_as_of(as_ofs[0], retry_within=config.freshness.retry_within)
    plan = RunPlan(schedule, StageRates.of(tables), len(log.unread_files))
    return {
        "command": command,
        "as_of": schedule.as_of,
        "log": _log(log, plan.days_to_build),
        "stages": _by_stage(stages(plan)),
    }


def _log(log: Forecast, days: Sequence[date]) -> dict[str, Any]:
    """Return the days to build, and the files and bytes to read for the inventory and for these days."""

    def sized(files: Sequence[LogFile]) -> dict[str, int]:
        return {"files": len(files), "bytes": sum(file.num_bytes for file in files)}

    return {
        "first_day": log.inventory.first_day,
        "last_day": log.inventory.last_day,
        "days_to_build": days,
        "new": sized(log.new_files),
        "to_read": sized(log.files_of(days)),
        "days_unknown": sized(log.unread_files),
    }


def _by_stage(planned: Sequence[PlannedStage]) -> list[dict[str, Any]]:
    """Sum the expectations of a stage that runs several times, such as once for each group of dates or space."""
    stages: dict[str, dict[str, Any]] = {}
    for stage in planned:
        entry = stages.setdefault(
            stage.stage, {"stage": stage.stage, "outcome": "skip", "reason": [], "seconds": 0.0, "core_seconds": 0.0}
        )
        entry["outcome"] = "run" if stage.runs else entry["outcome"]
        entry["reason"].append(stage.reason)
        for name, value in stage.expected._asdict().items():
            entry[name] = None if value is None or entry[name] is None else round(entry[name] + value, 1)
    return [entry | {"reason": "; ".join(dict.fromkeys(entry["reason"]))} for entry in stages.values()]


def dry_run_lines(plan: dict[str, Any]) -> list[str]:
    """Format a plan as text."""
    log, days = plan["log"], plan["log"]["days_to_build"]
    span = f": {days[0]} to {days[-1]}" if days else ""
    lines = [
        f"dry run of {plan['command']} for as-of date {plan['as_of']}; nothing was written",
        f"log: {log['first_day']} to {log['last_day']}, {_files(log['new'])} new",
        f"to build: {plural(len(days), 'day')}{span}, from {_files(log['to_read'])}",
    ]
    if log["days_unknown"]["files"]:
        lines.append(f"days not known before a read: {_files(log['days_unknown'])}")
    rows = [
        [s["stage"], s["outcome"], _figure(s["seconds"]), _figure(s["core_seconds"]), s["reason"]]
        for s in plan["stages"]
    ]
    return [*lines, "", *in_columns(["stage", "outcome", "seconds", "core s", "reason"], rows), *_total(plan["stages"])]


def _total(stages: Sequence[dict[str, Any]]) -> list[str]:
    unknown = [stage["stage"] for stage in stages if stage["seconds"] is None]
    seconds, cores = (sum(stage[name] or 0 for stage in stages) for name in ("seconds", "core_seconds"))
    lines = [f"expected: {seconds:,.0f} s, {cores:,.0f} core seconds of Spark's tasks, as in earlier runs"]
    return lines + ([f"not included, because no earlier run is recorded: {', '.join(unknown)}"] if unknown else [])


def _files(sized: dict[str, int]) -> str:
    return f"{plural(sized['files'], 'file')} ({size(sized['bytes'])})"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
