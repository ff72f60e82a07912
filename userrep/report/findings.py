"""Rules that find what needs attention in a root, with a level and a remedy for each finding."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from userrep.errors import plural
from userrep.report.facts import BAD, NOTE, NOUNS, OK, WARN, Facts
from userrep.report.formats import count, figure, share
from userrep.report.log_facts import RECENT_DAYS

_FORGET_EVERY = timedelta(days=1)  # time between runs of `userrep forget`, or more


@dataclass(frozen=True)
class Finding:
    """A problem (BAD), a warning (WARN), or a note on something that does not exist yet (NOTE).

    ``cure``: what to do about it. Text between backticks is a command or a name. ``not_run``: a check that could not
    run. ``check``: the rule that found it, such as freshness, runs, snapshots or drift.
    """

    level: str
    what: str
    cure: str
    not_run: bool = False
    check: str = field(default="", compare=False)


def findings(facts: Facts) -> list[Finding]:
    """Return all findings, the most severe first."""
    rules = (_freshness, _runs, _spaces, _snapshots, _log, _drift, _training, _evaluation, _requests)
    found = [replace(finding, check=rule.__name__.strip("_")) for rule in rules for finding in rule(facts)]
    return sorted(found, key=lambda finding: (BAD, WARN, NOTE).index(finding.level))


def headline(found: Sequence[Finding]) -> tuple[str, str]:
    """Return the worst level, one of BAD, WARN and OK, and the headline with the number of findings."""
    counts = {level: sum(finding.level == level for finding in found) for level in NOUNS}
    level = next((level for level in NOUNS if counts[level]), OK)
    num_not_run = sum(finding.not_run for finding in found)
    parts = [plural(counts[level], noun) for level, noun in NOUNS.items() if counts[level]]
    parts += [f"{plural(num_not_run, 'check')} not run"] if num_not_run else []
    if level == OK:
        return level, ", ".join(["No problems found", *parts])
    return level, f"{'Action required' if level == BAD else 'Needs attention'}: {', '.join(parts)}"


def shell_command(facts: Facts, words: str, more: str = "") -> str:
    """Return a userrep command for this configuration that can be pasted into a shell.

    ``words``: the command. ``more``: options that follow ``--config``.
    """
    return f"`userrep {words} --config {shlex.quote(facts.config)}{more}`"


def _freshness(facts: Facts) -> Iterator[Finding]:
    """Compare the serving snapshot and the log with the clock."""
    if not facts.max_age:
        remedy = "Set `freshness.warn_after` and `freshness.error_after`, for example to 26h and 50h."
        yield Finding(NOTE, "The age of the serving snapshot and of the log is not checked.", remedy, not_run=True)
        return
    remedy, space = f"Build today's with {shell_command(facts, 'daily', ' --as-of today')}.", facts.serving
    if space is not None and space.available_as_of is None:
        yield Finding(BAD, f"The serving space {space.space_id} has no available snapshot.", remedy)
    elif space is not None and space.available_as_of is not None:
        what = (
            f"The newest available snapshot of the serving space {space.space_id} is as of {space.available_as_of} "
            f"(available since {space.available_at:%Y-%m-%d %H:%M} UTC)"
        )
        yield from _too_old(facts, space.available_as_of, what, remedy)
    if facts.log.end is not None:
        remedy = "Check that the log arrives and that the daily run reads it."
        what = f"The log's last day with tiles is {facts.log.days[-1].day}"
        yield from _too_old(facts, facts.log.end, what, remedy)


def _too_old(facts: Facts, since: date, what: str, remedy: str) -> Iterator[Finding]:
    """Yield a finding if more time has passed since 00:00 UTC of a date than a limit allows."""
    age = facts.age(since)
    level = next((level for level in (BAD, WARN) if level in facts.max_age and age > facts.max_age[level]), None)
    if level is not None:
        limit = f"freshness.{'error' if level == BAD else 'warn'}_after ({_hours(facts.max_age[level])})"
        yield Finding(level, f"{what}: {_hours(age)} old, longer than {limit} allows.", remedy)


def _hours(span: timedelta) -> str:
    return f"{span // timedelta(hours=1)}h"


def _runs(facts: Facts) -> Iterator[Finding]:
    remedy = "Fix the cause and run the command again. It resumes where it stopped."
    for stage in facts.newest:
        if stage.outcome == "failed" and stage.reason == "interrupted":
            yield Finding(WARN, f"The last run of {stage.stage} was interrupted.", "Run the command again to continue.")
        elif stage.outcome == "failed":
            yield Finding(BAD, f"The last run of {stage.stage} failed: {stage.reason[:300]}", remedy)


def _spaces(facts: Facts) -> Iterator[Finding]:
    if facts.serving is None:
        ready = next((space.space_id for space in facts.spaces if space.state == "ready"), None)
        remedy = (
            shell_command(facts, f"spaces promote {ready}") if ready else shell_command(facts, "pipeline", " --as-of D")
        )
        what = "No space is serving, so consumers that follow the serving space get no vectors."
        yield Finding(BAD, what, f"Run {remedy}.")
    if facts.artifact_fault is not None:
        yield Finding(BAD, "The artifact of the space cannot be read.", facts.artifact_fault)
    for space in facts.spaces:
        if space.stale and space.in_use:
            dates = plural(len(space.stale), "stale date")
            what = f"Space {space.space_id} has {dates}: days of the log changed after publication."
            yield Finding(WARN, what, f"Rebuild with {shell_command(facts, 'backfill', ' --stale')}.")


def _snapshots(facts: Facts) -> Iterator[Finding]:
    if facts.snapshots and facts.snapshots[-1].state == "refused":
        newest = facts.snapshots[-1]
        what = f"The gates refused snapshot {newest.snapshot_id}: {'; '.join(newest.facts.get('faults', []))}"
        remedy = "Check the features of that date and the limits under `gates`. The previous snapshot is still served."
        yield Finding(BAD, what, remedy)
    late = facts.late_as_of
    if late is not None and facts.space is not None:
        end = facts.log.days[-1].day
        what = f"The log has events up to {end}, but the latest snapshot is as of {facts.space.newest_as_of}."
        remedy = f"Build the snapshot of {late} with {shell_command(facts, 'daily', f' --as-of {late}')}."
        yield Finding(WARN, what, remedy)


def _log(facts: Facts) -> Iterator[Finding]:
    recent = facts.log.days[-RECENT_DAYS:]
    small = [day for day in recent if day.is_small]
    if small:
        last = small[-1]
        yield Finding(
            WARN,
            f"{len(small)} of the latest {plural(len(recent), 'day')} {'is' if len(small) == 1 else 'are'} missing or "
            f"far smaller than usual. The last one, {last.day}, has {count(last.num_events)} events; "
            f"{count(last.usual or 0)} are usual for that weekday.",
            "Load the missing data and run the command again. Changed days are rebuilt.",
        )
    worst = max(recent, key=lambda day: day.rejected_share, default=None)
    if worst is not None and worst.rejected_share > facts.log.max_rejected_share / 2:
        yield Finding(
            WARN,
            f"{share(worst.rejected_share)} of the rows of {worst.day} were rejected. A day fails above "
            f"{share(facts.log.max_rejected_share)} (events.max_rejected_share).",
            "Fix the log or the mapping of its columns. The rejected rows are in `rejected_events`.",
        )


def _drift(facts: Facts) -> Iterator[Finding]:
    if facts.drift is None:
        if facts.space is not None and facts.space.num_snapshots > 1:
            remedy = shell_command(facts, "run monitor_drift", f" --as-of {facts.space.newest_as_of}")
            yield Finding(NOTE, "Drift has not been measured yet.", f"Measure it with {remedy}.", not_run=True)
        return
    if moved := facts.drift.moved:
        newest = next(iter(moved.values())).as_of
        worst = {name: point for name, point in moved.items() if point.outcome == facts.drift.worst}
        values = ", ".join(f"{name} {figure(point.value)}" for name, point in worst.items())
        yield Finding(
            BAD if facts.drift.worst == "fail" else WARN,
            f"The snapshot of {newest} moved further than drift.{facts.drift.worst} allows: {values}.",
            "Check the last days of the log, then the inputs that moved most (docs/how-to/drift.md).",
        )


def _training(facts: Facts) -> Iterator[Finding]:
    training = facts.training
    if training is not None and training.self_check is not None and training.self_check.gain.value < 0:
        remedy = "Compare with `userrep evaluate`. docs/explanation/training.md explains the self-check."
        yield Finding(WARN, f"Result of the space's self-check: {training.self_check.summary}.", remedy)


def _evaluation(facts: Facts) -> Iterator[Finding]:
    if facts.evaluation is None:
        if facts.space_id is not None:
            remedy = shell_command(facts, f"evaluate --space {facts.space_id}", " --out DIR")
            yield Finding(NOTE, "The space has not been evaluated yet.", f"Evaluate it with {remedy}.", not_run=True)
        return
    if behind := [task for task in facts.evaluation.tasks if task.verdict == "behind"]:
        names = ", ".join(f"{task.task} ({task.nearest.representation})" for task in behind if task.nearest)
        tasks = f"{len(behind)} of {plural(len(facts.evaluation.tasks), 'task')}"
        what = f"On {tasks}, another representation is ahead of the embedding: {names}."
        yield Finding(NOTE, what, "docs/how-to/evaluation.md explains how to read this.")


def _requests(facts: Facts) -> Iterator[Finding]:
    for request in facts.requests:
        late = timedelta(0) if request.due_at is None else facts.made_at - request.due_at
        is_due = request.due_at is None or late > timedelta(0)
        yield Finding(
            BAD if late > _FORGET_EVERY else WARN if is_due else NOTE,
            f"A request to forget {plural(request.num_users, 'user')} "
            + ("is not finished." if is_due else f"can be finished after {request.due_at:%Y-%m-%d %H:%M} UTC."),
            f"Finish it with {shell_command(facts, 'forget', '' if request.has_begun else ' --users FILE')}."
            + ("" if request.has_begun else " FILE: the same users as before."),
        )
