"""What comes first on the page: a headline, a few sentences, tiles, and what is not well."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from userrep.report.facts import BAD, NOTE, OK, WARN, Facts
from userrep.report.findings import Finding, findings
from userrep.report.formats import NONE, core_time, count, day, plural, seconds, share, short, size


@dataclass(frozen=True)
class Tile:
    """A figure that tells most of a part, and how it is judged."""

    label: str
    value: str
    note: str
    level: str = OK


@dataclass(frozen=True)
class Summary:
    """The top of the page."""

    level: str
    headline: str
    sentences: Sequence[str]
    tiles: Sequence[Tile]
    findings: Sequence[Finding]


def summarised(facts: Facts) -> Summary:
    """Sum a report up."""
    found = findings(facts)
    num = {level: sum(of.level == level for of in found) for level in (BAD, WARN)}
    told = [plural(num[BAD], "thing") + " to mend"] * bool(num[BAD])
    told += [f"{plural(num[WARN], 'thing') if not num[BAD] else num[WARN]} to look at"] * bool(num[WARN])
    level = BAD if num[BAD] else WARN if num[WARN] else OK
    headline = {BAD: "Not well", WARN: "Nearly well", OK: "All is well"}[level]
    return Summary(
        level,
        f"{headline}: {', '.join(told)}" if told else headline,
        list(_sentences(facts)),
        list(_tiles(facts)),
        found,
    )


def _sentences(facts: Facts) -> Iterator[str]:
    days = facts.log.days
    if days:
        num_missing = sum(of.is_missing for of in days)
        yield (
            f"The log has {count(facts.log.num_events)} events from {days[0].day} to {days[-1].day}"
            + (f", with {plural(num_missing, 'day')} in between that have none." if num_missing else ", every day.")
        )
    space = facts.space
    if space is not None and space.newest_as_of is not None:
        verb = "serves" if space.state == "serving" else f"is {space.state} and holds"
        yield f"Space {space.space_id} {verb} {count(space.newest_users)} users as of {space.newest_as_of}."
    if facts.night:
        what = "The newest night" if facts.night_is_daily else "The newest pipeline"
        yield (
            f"{what} began {facts.night[0].started_at:%Y-%m-%d %H:%M} UTC and took "
            f"{seconds(sum(of.seconds for of in facts.night))}."
        )
    if facts.evaluation is not None:
        ahead = sum(of.verdict == "ahead" for of in facts.evaluation.tasks)
        yield (
            f"On {ahead} of {plural(len(facts.evaluation.tasks), 'task')} the embedding is ahead of everything it was "
            "compared with."
        )


def _tiles(facts: Facts) -> Iterator[Tile]:
    space, days = facts.space, facts.log.days
    if space is not None and space.newest_as_of is not None:
        is_late = bool(days) and space.newest_as_of <= days[-1].day and space.in_use is not None
        yield Tile(
            "Users embedded", short(space.newest_users), f"as of {day(space.newest_as_of)}", WARN if is_late else OK
        )
    else:
        yield Tile("Users embedded", NONE, "no snapshot yet", NOTE)
    part = facts.log.rejected_share
    is_much = part > facts.log.max_rejected_share / 2
    yield Tile(
        "Rows rejected", share(part), f"of {short(facts.log.num_events)} events", WARN if is_much else OK
    )  # fmt: skip
    yield _drift_tile(facts)
    yield _evaluation_tile(facts)
    failed = sum(of.outcome == "failed" for of in facts.newest)
    took = seconds(sum(of.seconds for of in facts.night)) if facts.night else NONE
    what = "Newest night" if facts.night_is_daily else "Newest pipeline"
    worked = sum(of.core_hours or 0 for of in facts.night)
    note = core_time(worked, worked)
    yield Tile(what, took, f"{plural(failed, 'stage')} failed" if failed else note, BAD if failed else OK)
    yield Tile("Stored", size(sum(of.num_bytes for of in facts.storage)), plural(len(facts.storage), "table"))


def _drift_tile(facts: Facts) -> Tile:
    if facts.drift is None:
        return Tile("Drift", NONE, "not measured yet", NOTE)
    newest = max(of[-1].as_of for of in facts.drift.points.values())
    outcomes = [of[-1].outcome for of in facts.drift.points.values() if of[-1].as_of == newest]
    moved = sum(outcome != "ok" for outcome in outcomes)
    level = BAD if "fail" in outcomes else WARN if moved else OK
    return Tile("Drift", f"{moved} of {len(outcomes)}", "metrics past a limit", level)


def _evaluation_tile(facts: Facts) -> Tile:
    if facts.evaluation is None:
        return Tile("Ahead of baselines", NONE, "not evaluated yet", NOTE)
    tasks = facts.evaluation.tasks
    behind = sum(of.verdict == "behind" for of in tasks)
    ahead = sum(of.verdict == "ahead" for of in tasks)
    level = sum(of.verdict == "level" for of in tasks)
    return Tile("Ahead of baselines", f"{ahead} of {len(tasks)}", f"{level} level, {behind} behind")
