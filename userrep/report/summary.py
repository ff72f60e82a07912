"""The top of the report: a headline, a few sentences, tiles with key figures, and the findings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from userrep.errors import plural
from userrep.report.facts import BAD, NOTE, OK, WARN, Facts
from userrep.report.findings import Finding, findings, headline
from userrep.report.formats import NONE, core_time, count, day, seconds, share, short, size


@dataclass(frozen=True)
class Tile:
    """A key figure with its level: one of BAD, WARN, NOTE, OK."""

    label: str
    value: str
    note: str
    level: str = OK


@dataclass(frozen=True)
class Summary:
    """The top of the page. ``level``: BAD, WARN or OK."""

    level: str
    headline: str
    sentences: Sequence[str]
    tiles: Sequence[Tile]
    findings: Sequence[Finding]


def summarised(facts: Facts) -> Summary:
    """Summarize a report."""
    found = findings(facts)
    return Summary(*headline(found), list(_sentences(facts)), list(_tiles(facts)), found)


def _sentences(facts: Facts) -> Iterator[str]:
    days = facts.log.days
    if days:
        num_missing = facts.log.num_missing
        yield (
            f"The log has {count(facts.log.num_events)} events from {days[0].day} to {days[-1].day}, with "
            f"{plural(num_missing, 'day') if num_missing else 'no day'} missing."
        )
    space = facts.space
    if space is not None and space.newest_as_of is not None:
        verb = "serves" if space.state == "serving" else f"is {space.state} and has"
        yield f"Space {space.space_id} {verb} {count(space.newest_users)} users as of {space.newest_as_of}."
    if facts.latest_run:
        yield (
            f"The {facts.latest_run_name} started {facts.latest_run[0].started_at:%Y-%m-%d %H:%M} UTC and took "
            f"{seconds(facts.latest_run_seconds)}."
        )
    if facts.evaluation is not None:
        num_ahead = sum(task.verdict == "ahead" for task in facts.evaluation.tasks)
        yield (
            f"On {num_ahead} of {plural(len(facts.evaluation.tasks), 'task')}, the embedding is ahead of every other "
            "representation."
        )


def _tiles(facts: Facts) -> Iterator[Tile]:
    yield _users_tile(facts)
    part = facts.log.rejected_share
    is_much = part > facts.log.max_rejected_share / 2
    yield Tile("Rows rejected", share(part), f"of {short(facts.log.num_events)} events", WARN if is_much else OK)
    yield _drift_tile(facts)
    yield _evaluation_tile(facts)
    yield _run_tile(facts)
    yield Tile("Storage", size(sum(facts.storage.values())), plural(len(facts.storage), "table"))


def _users_tile(facts: Facts) -> Tile:
    space = facts.space
    if space is None or space.newest_as_of is None:
        return Tile("Users embedded", NONE, "no snapshot yet", NOTE)
    level = OK if facts.late_as_of is None else WARN
    return Tile("Users embedded", short(space.newest_users), f"as of {day(space.newest_as_of)}", level)


def _run_tile(facts: Facts) -> Tile:
    num_failed = sum(stage.outcome == "failed" for stage in facts.newest)
    duration, worked = seconds(facts.latest_run_seconds) if facts.latest_run else NONE, facts.latest_run_core_hours
    note = f"{plural(num_failed, 'stage')} failed" if num_failed else core_time(worked, worked)
    return Tile(facts.latest_run_name.capitalize(), duration, note, BAD if num_failed else OK)


def _drift_tile(facts: Facts) -> Tile:
    if facts.drift is None:
        return Tile("Drift", NONE, "not measured yet", NOTE)
    level = {"ok": OK, "warn": WARN, "fail": BAD}[facts.drift.worst]
    return Tile("Drift", f"{len(facts.drift.moved)} of {len(facts.drift.newest)}", "metrics over a limit", level)


def _evaluation_tile(facts: Facts) -> Tile:
    if facts.evaluation is None:
        return Tile("Ahead of baselines", NONE, "not evaluated yet", NOTE)
    verdicts = [task.verdict for task in facts.evaluation.tasks]
    note = f"{verdicts.count('tied')} tied, {verdicts.count('behind')} behind"
    return Tile("Ahead of baselines", f"{verdicts.count('ahead')} of {len(verdicts)}", note)
