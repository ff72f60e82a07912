"""Inspection of a log without Spark: its facts, exact or from a sample, and a verdict on the configuration."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from userrep.config import Config, EventSource, Source, Users
from userrep.errors import UsageError, plural, results_of, shortened
from userrep.features.preflight import days_of
from userrep.logs import in_columns
from userrep.sources.columns import check_columns, configured, event_columns
from userrep.sources.id_files import as_ids
from userrep.sources.listing import Listings
from userrep.sources.read import is_blank
from userrep.sources.sample import Sample, spark_columns, take_sample
from userrep.sources.sample_facts import SampleFacts, sample_facts
from userrep.sources.times import times_of
from userrep.store.arrow import combined, is_text
from userrep.utc import last_event_day, utc_now
from userrep.workflows.log_fit import OK, WARN, VerdictLine, choose_fit, judge, needed_days, room_of

_DAYS_SHOWN, _USERS_SHOWN = 5, 3  # in a line of text
_KEYS = {"users": "user_id", "items": "item_id"}  # the key of each source that describes ids of the log


class LogSpan(NamedTuple):
    """The first and the last day with a readable time. ``is_exact``: both are known, not only from a sample."""

    first: date
    last: date
    is_exact: bool


class _Inspected(NamedTuple):
    """The facts of a source of the log, the verdict on its rows, its days, and its distinct ids by key."""

    facts: dict[str, Any]
    verdict: list[VerdictLine]
    span: LogSpan | None
    ids: dict[str, pa.StringArray]


def inspect_log(config: Config) -> dict[str, Any]:
    """Inspect all sources of the log. Return JSON-ready facts per source, the settings that fit, and a verdict.

    Also compares the ids of users and items with those of the log. Cost: for each source one listing, footers, and the
    rows of a sample (``take_sample``).

    Raises
    ------
    UsageError
        With every fault: a source that cannot be read, or lacks a mapped column.
    """
    sources = config.events.all_sources
    inspected = results_of(partial(_inspect, config, what) for what in sources)
    result: dict[str, Any] = {"sources": dict(zip(sources, (one.facts for one in inspected), strict=True))}
    verdict = [line for one in inspected for line in one.verdict]
    for lines in results_of(partial(_judge_described, config, what, [one.ids for one in inspected]) for what in _KEYS):
        verdict += lines
    result["needed_days"] = needed_days(config)
    if spans := [one.span for one in inspected if one.span is not None]:
        first, last = min(span.first for span in spans), max(span.last for span in spans)
        result["needed_days"] = needed_days(config, room_of(config, last))
        result |= {"first_day": first, "last_day": last, "num_days": (last - first).days + 1}
        result["fit"] = choose_fit(first, last)._asdict()
        verdict += judge(config, first, last)
    result["verdict"] = [line._asdict() for line in verdict]
    return result


def _inspect(config: Config, what: str) -> _Inspected:
    log, listings = config.events.all_sources[what], Listings()
    sample = take_sample(log, what, listings)
    check_columns(spark_columns(sample), event_columns(log), what)
    facts = sample_facts(sample, log)
    span = log_span(sample, log, facts.rows_by_day, listings)
    ids = {key: _ids(sample, getattr(log.columns, key)) for key in _KEYS.values()}
    verdict = [*_judge_rows(config, what, sample, facts, span)]
    return _Inspected(_source_facts(log, sample, facts, span), verdict, span, ids)


def _ids(sample: Sample, name: str) -> pa.StringArray:
    """Return the distinct ids in a column of a sample as text; none if the column has no ids, such as times."""
    try:
        return as_ids(combined(sample.rows[name]))
    except ValueError:
        return pa.array([], pa.string())


def _judge_described(config: Config, what: str, of_log: Sequence[dict[str, pa.StringArray]]) -> list[VerdictLine]:
    """Judge whether the users or items have the ids of the log, and users readable times of registration.

    Nothing is judged if they are not configured or not files.
    """
    source, key = getattr(config, what), _KEYS[what]
    if source is None or source.format == "table":
        return []
    try:
        sample = take_sample(source, what)
    except UsageError as error:
        return [
            VerdictLine(WARN, f"{fault} The ids of {what} are not compared with the log's.") for fault in error.faults
        ]
    columns = configured(source.columns)
    wanted = (f"columns.{key}", "columns.registered_at")
    check_columns(spark_columns(sample), {name: columns[name] for name in wanted if name in columns}, what)
    known = pa.concat_arrays([ids[key] for ids in of_log]).unique()
    return [*_judge_ids(what, sample, columns, known), *_judge_registrations(source, sample)]


def _judge_ids(what: str, sample: Sample, columns: dict[str, str], known: pa.StringArray) -> list[VerdictLine]:
    """Judge whether a source has the ``known`` ids of the log, if the sample is complete."""
    key = _KEYS[what]
    ids = _ids(sample, columns[f"columns.{key}"])
    if not sample.is_complete or not len(ids) or not len(known):
        return []
    num_found = pc.sum(pc.is_in(known, ids)).as_py() or 0
    found = f"{what}: {num_found:,} of {plural(len(known), key.removesuffix('_id'))} in the log's sample have a row"
    if 2 * num_found >= len(known):
        return [VerdictLine(OK, f"{found}.")]
    few = (
        f" The {sample.rows.num_rows:,} rows have {len(ids):,} distinct ids." if 2 * len(ids) < len(sample.rows) else ""
    )
    return [VerdictLine(WARN, f"{found}.{few} Check {what}.columns.{key}, and how ids are written.")]


def _judge_registrations(source: Source, sample: Sample) -> Iterator[VerdictLine]:
    """Judge whether users' times of registration are readable. A run takes those that are not as unknown."""
    if not isinstance(source, Users) or source.columns.registered_at is None:
        return
    column = sample.rows[source.columns.registered_at]
    given = column.filter(pc.invert(is_blank(column))) if is_text(column.type) else column.drop_null()
    if num_unread := times_of(given, source.time_zone).null_count:
        found = f"{num_unread:,} of {plural(len(given), 'time')} not readable"
        yield VerdictLine(
            WARN, f"users.columns.registered_at: {found}, so unknown to a run. Write them as 2024-05-01T12:00:00Z."
        )


def log_span(sample: Sample, log: EventSource, rows_by_day: Iterable[date], listings: Listings) -> LogSpan | None:
    """Return the first and the last day of a log, up to tomorrow; None without a day.

    ``rows_by_day``: the days of a sample. For an incomplete sample, file footers may contain the first and last day.
    If the last one is in the future, the last day before that is only known from the sample.
    """
    footer_days = None if sample.is_complete else days_of(log, "events", listings)
    tomorrow = last_event_day(utc_now())
    days = [day for day in (*rows_by_day, *(footer_days or ())) if day <= tomorrow]
    is_exact = sample.is_complete or (footer_days is not None and footer_days[1] <= tomorrow)
    return LogSpan(min(days), max(days), is_exact) if days else None


def _source_facts(log: EventSource, sample: Sample, facts: SampleFacts, span: LogSpan | None) -> dict[str, Any]:
    estimates = [] if sample.is_counted else ["num_rows"]
    if not sample.is_complete:
        estimates += ["num_users", "num_items", "nulls", "num_duplicates", "heaviest_users"]
    if span is not None and not span.is_exact:
        estimates += ["first_day", "last_day"]
    return {
        "path": log.path,
        "format": log.format,
        "num_files": sample.num_files,
        "num_bytes": sample.num_bytes,
        "num_rows": sample.num_rows,
        "num_rows_read": sample.rows.num_rows + sample.num_unparsable,
        "first_day": span and span.first,
        "last_day": span and span.last,
        "days_without_events": facts.days_without_events if sample.is_complete else None,
        "num_users": facts.num_users,
        "num_items": facts.num_items,
        "nulls": facts.nulls,
        "num_unparsable": sample.num_unparsable,
        "num_duplicates": facts.num_duplicates,
        "heaviest_users": [{"user_id": user, "num_rows": num} for user, num in facts.heaviest],
        "estimates": estimates,
    }


def _judge_rows(
    config: Config, what: str, sample: Sample, facts: SampleFacts, span: LogSpan | None
) -> Iterator[VerdictLine]:
    """Judge what makes a run fail or leave rows out: rejected rows, small days, rows in the future, duplicates."""
    events = config.events
    is_whole_log = sample.is_complete and len(events.all_sources) == 1
    num_read = max(1, sample.rows.num_rows + sample.num_unparsable)
    if not facts.rows_by_day:
        yield VerdictLine(WARN, f"{what}.columns.event_at: no readable time. Map another column, or convert it.")
        return
    if span is not None and not span.is_exact and not sample.sees_end:
        yield VerdictLine(WARN, f"{what}: the end of the log is not in the sample; its last day may be later.")
    share, limit = facts.num_rejectable / num_read, events.max_rejected_share
    allowed = f"events.max_rejected_share allows {limit:.1%}"
    bad = [day for day, num in facts.rejectable_by_day.items() if num > limit * facts.rows_by_day[day]]
    if share > limit:
        yield VerdictLine(WARN, f"{what}: {share:.1%} of the rows would be rejected; {allowed}.")
    elif bad and is_whole_log:
        days = f"{plural(len(bad), 'day')} ({shortened(bad, most=_DAYS_SHOWN)})"
        yield VerdictLine(WARN, f"{what}: a run fails because of rejected rows on {days}; {allowed}.")
    num_ahead = sum(num for day, num in facts.rows_by_day.items() if day > last_event_day(utc_now()))
    if num_ahead:
        yield VerdictLine(WARN, f"{what}: {plural(num_ahead, 'row')} later than tomorrow; a run holds them back.")
    least = events.min_day_share * median(facts.rows_by_day.values())
    small = [day for day, num in facts.rows_by_day.items() if num < least]
    if small and is_whole_log:
        least_share = f"events.min_day_share {events.min_day_share:g} of the median day's rows"
        yield VerdictLine(
            WARN, f"{what}: {_few(small)} below {least_share}, so runs fail. Set events.min_day_share: 0."
        )
    if facts.num_duplicates:
        yield VerdictLine(OK, f"{what}: a run drops {plural(facts.num_duplicates, 'duplicate row')}.")


def inspection_lines(result: dict[str, Any]) -> list[str]:
    """Return the result of ``inspect_log`` as text."""
    lines: list[str] = []
    for what, facts in result["sources"].items():
        lines += [f"{what}: {facts['path']} ({facts['format']}, {_files(facts)})", *_table(facts), ""]
    if "fit" in result:
        fit = {name: value for name, value in result["fit"].items() if value is not None}
        settings = ", ".join(f"{name}: {value}" for name, value in fit.items())
        is_exact = all("last_day" not in facts["estimates"] for facts in result["sources"].values())
        about = "" if is_exact else "about "
        days = f"{about}{result['num_days']} days, {result['first_day']} to {result['last_day']}"
        lines.append(f"log: {days}; it fits {settings}")
    return lines + [f"{finding['level']:<4} {finding['what']}" for finding in result["verdict"]]


def _table(facts: dict[str, Any]) -> list[str]:
    sampled = f"of a sample of {facts['num_rows_read']:,} rows"
    nulls = [f"{key.removeprefix('columns.')} {num:,}" for key, num in facts["nulls"].items()]
    heavy = [
        f"{u['user_id']} {u['num_rows']:,} ({u['num_rows'] / facts['num_rows_read']:.1%})"
        for u in facts["heaviest_users"][:_USERS_SHOWN]
    ]
    empty, first, duplicates = facts["days_without_events"], facts["first_day"], facts["num_duplicates"]
    rows = [
        ("num_rows", "events", f"{facts['num_rows']:,}", "estimated from bytes read"),
        ("first_day", "days", f"{first} to {facts['last_day']}" if first else "none up to tomorrow", sampled),
        ("", "days without events", "not known from a sample" if empty is None else _few(empty), ""),
        ("num_users", "users", f"{facts['num_users']:,}", f"at least; {sampled}"),
        ("num_items", "items", f"{facts['num_items']:,}", f"at least; {sampled}"),
        ("nulls", "nulls", ", ".join(nulls) or "none", sampled),
        ("nulls", "unparsable lines", f"{facts['num_unparsable']:,}", sampled),
        ("num_duplicates", "duplicate rows", "not comparable" if duplicates is None else f"{duplicates:,}", sampled),
        ("heaviest_users", "heaviest users", ", ".join(heavy), sampled),
    ]
    cells = [
        [label, value, basis if key in facts["estimates"] else "exact" if key else ""]
        for key, label, value, basis in rows
    ]
    return in_columns(["fact", "value", "basis"], cells)


def _few(days: list[date]) -> str:
    return f"{len(days)} ({shortened(days, most=_DAYS_SHOWN)})" if days else "0"


def _files(facts: dict[str, Any]) -> str:
    return f"{plural(facts['num_files'], 'file')}, {facts['num_bytes'] / 1e6:,.1f} MB"
