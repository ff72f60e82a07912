"""Is everything well? What is not, how bad it is, and its cure: rules over what a report knows."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from userrep.report.facts import BAD, NOTE, RECENT_DAYS, WARN, Facts
from userrep.report.formats import count, figure, plural, share


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be, or not there yet. ``cure``: what helps; between backticks, commands."""

    level: str
    what: str
    cure: str


def findings(facts: Facts) -> list[Finding]:
    """Return what is to be told, the worst first."""
    rules = (_runs, _spaces, _snapshots, _log, _drift, _training, _evaluation, _requests)
    found = [finding for rule in rules for finding in rule(facts)]
    return sorted(found, key=lambda of: (BAD, WARN, NOTE).index(of.level))


def command(facts: Facts, words: str, more: str = "") -> str:
    """Write a command for this configuration, ready to be pasted."""
    return f"`userrep {words} --config {shlex.quote(facts.config)}{more}`"


def _runs(facts: Facts) -> Iterator[Finding]:
    for of in facts.newest:
        if of.outcome == "failed":
            yield Finding(
                BAD,
                f"The last run of {of.stage} failed: {of.reason[:300]}",
                "Mend what it names and run the command again: it goes on where it was.",
            )


def _spaces(facts: Facts) -> Iterator[Finding]:
    if not any(of.state == "serving" for of in facts.spaces):
        ready = next((of.space_id for of in facts.spaces if of.state == "ready"), None)
        way = command(facts, f"spaces promote {ready}") if ready else command(facts, "pipeline", " --as-of D")
        yield Finding(BAD, "No space is serving: consumers that follow get no vectors.", f"{way} changes that.")
    if facts.artifact_fault is not None:
        yield Finding(BAD, "The artifact of the space cannot be read.", facts.artifact_fault)
    for of in facts.spaces:
        if of.stale and of.in_use:
            yield Finding(
                WARN,
                f"{plural(len(of.stale), 'date')} of space {of.space_id} published before days of the log changed.",
                f"{command(facts, 'backfill', ' --stale')} rebuilds them.",
            )


def _snapshots(facts: Facts) -> Iterator[Finding]:
    space = facts.space
    newest = max(facts.snapshots, key=lambda of: (of.as_of, of.revision), default=None)
    if newest is not None and newest.state == "refused":
        yield Finding(
            BAD,
            f"Snapshot {newest.snapshot_id} was refused by its gates: {'; '.join(newest.faults)}",
            "Look at the features of that date, or at the settings below gates; what was published before serves on.",
        )
    if space is None or not space.in_use or space.newest_as_of is None or not facts.log.days:
        return
    wanted = facts.log.days[-1].day + timedelta(days=1)
    if space.newest_as_of < wanted:
        yield Finding(
            WARN,
            f"Tiles reach {facts.log.days[-1].day}, but the newest snapshot is of {space.newest_as_of}.",
            f"{command(facts, 'daily', f' --as-of {wanted}')} makes the one of {wanted}.",
        )


def _log(facts: Facts) -> Iterator[Finding]:
    recent = facts.log.days[-RECENT_DAYS:]
    small = [of for of in recent if of.is_small]
    if small:
        last = small[-1]
        yield Finding(
            WARN,
            f"{plural(len(small), 'day')} of the newest {len(recent)} "
            + ("is" if len(small) == 1 else "are")
            + f" missing or far smaller than usual; the last, {last.day}, has {count(last.num_events)} events where "
            f"{count(last.usual or 0)} are usual of such a weekday.",
            "Load what is missing and run the command again: changed days are built anew.",
        )
    worst = max(recent, key=lambda of: of.num_rejected / max(1, of.num_events + of.num_rejected), default=None)
    if worst is not None:
        part = worst.num_rejected / max(1, worst.num_events + worst.num_rejected)
        if part > facts.log.max_rejected_share / 2:
            yield Finding(
                WARN,
                f"{share(part)} of the rows of {worst.day} were rejected; a day fails at "
                f"{share(facts.log.max_rejected_share)} (events.max_rejected_share).",
                "Mend the log or the columns' mapping; the rows lie in `rejected_events`.",
            )


def _drift(facts: Facts) -> Iterator[Finding]:
    if facts.drift is None:
        if facts.space is not None and facts.space.num_snapshots > 1:
            way = command(facts, "run monitor_drift", f" --as-of {facts.space.newest_as_of}")
            yield Finding(NOTE, "Drift has not been measured yet.", f"{way} measures it.")
        return
    newest = max(of[-1].as_of for of in facts.drift.points.values())
    moved = {
        name: of[-1] for name, of in facts.drift.points.items() if of[-1].as_of == newest and of[-1].outcome != "ok"
    }
    if moved:
        told = ", ".join(f"{name} {figure(of.value)}" for name, of in moved.items())
        has_failed = any(of.outcome == "fail" for of in moved.values())
        yield Finding(
            BAD if has_failed else WARN,
            f"The snapshot of {newest} has moved further than drift.{'fail' if has_failed else 'warn'} allows: {told}.",
            "Look at the log's last days, then at the inputs that moved most; docs/drift.md says what each metric is.",
        )


def _training(facts: Facts) -> Iterator[Finding]:
    of = facts.training
    if of is not None and of.metrics.get("best_epoch") == of.max_epochs:
        yield Finding(
            NOTE,
            f"The training was still getting better in its last epoch, {of.max_epochs}.",
            "Set `training.max_epochs` higher for the next one.",
        )
    if of is not None and of.self_check is not None and of.self_check.gain.value < 0:
        yield Finding(
            WARN,
            f"The space's self-check: {of.self_check.summary}.",
            "Compare with `userrep evaluate`; docs/training.md says how to read a self-check.",
        )


def _evaluation(facts: Facts) -> Iterator[Finding]:
    if facts.evaluation is None:
        if facts.space_id is not None:
            way = command(facts, f"evaluate --space {facts.space_id}", " --out DIR")
            yield Finding(NOTE, "The space has not been evaluated yet.", f"{way} does it.")
        return
    behind = [of for of in facts.evaluation.tasks if of.verdict == "behind"]
    if behind:
        told = ", ".join(f"{of.task} ({of.nearest.representation})" for of in behind if of.nearest)
        yield Finding(
            NOTE,
            f"On {len(behind)} of {plural(len(facts.evaluation.tasks), 'task')} something else is ahead of the "
            f"embedding: {told}.",
            "docs/evaluation.md says how to read it.",
        )


def _requests(facts: Facts) -> Iterator[Finding]:
    for of in facts.requests:
        is_due = of.due_at is None or of.due_at < facts.made_at
        yield Finding(
            WARN if is_due else NOTE,
            f"A request to forget {plural(of.num_users, 'user')} is "
            + ("not at its end." if is_due else f"at its end after {of.due_at:%Y-%m-%d %H:%M} UTC."),
            f"{command(facts, 'forget')} brings it there.",
        )
