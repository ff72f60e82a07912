"""A commented configuration for a log, written from a look at its files, columns and days."""

import os
import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from userrep.config import EventSource, Partition, Source, parse_config
from userrep.errors import UsageError, in_line, results_of, shortened
from userrep.sources.guess import Guess, guess_events, guess_items, guess_partition, guess_users
from userrep.sources.listing import Listings, detect_format
from userrep.sources.sample import Sample, take_sample
from userrep.sources.sample_facts import count_by_day
from userrep.sources.times import times_of
from userrep.utc import newest_as_of, utc_now
from userrep.workflows.inspection import LogSpan, log_span
from userrep.workflows.log_fit import Fit, choose_fit, shortest_log

FILL_ME = "FILL_ME"
_NEEDED = ("user_id", "item_id", "event_at")  # other columns may be left out
_COLUMNS = {
    "events": {
        "user_id": "user id",
        "item_id": "item id",
        "event_at": "time of the event",
        "event_id": "unique id; without it, equal rows are duplicates",
        "event_type": "kind of event, such as view or buy",
        "weight": "weight in averages, at least 0; without it, 1",
    },
    "items": {
        "item_id": "item id, with the same values as in the log",
        "text": "title or description, for item vectors from text",
    },
    "users": {"user_id": "user id, with the same values as in the log", "registered_at": "time of the registration"},
}
_MIN_DAY_SHARE = 0.01
_OTHERS = 4  # other candidates that a comment lists
_WIDTH, _LONGEST = 46, 120  # of a setting before its comment, and of a line with both


class Starter(NamedTuple):
    """A configuration file. ``open_keys``: what must be filled in, one line each. ``warnings``: what will not work.

    ``as_of``: the day after the log's last, at most today, for a first run; None if the log is too short, or its end is
    not known.
    """

    text: str
    open_keys: list[str]
    warnings: list[str]
    as_of: date | None


class _Look(NamedTuple):
    """A source: its path as the file names it, its format, a sample, and guesses of its columns."""

    what: str
    path: str
    format: str
    sample: Sample
    columns: dict[str, Guess]
    attributes: list[str]

    def to_fill(self) -> list[str]:
        """Return a line for each needed column that was not found."""
        names = shortened([in_line(name) for name in self.sample.rows.column_names], most=20)
        return [
            f"{self.what}.columns.{key}: not found{f' ({guess.hint})' if guess.hint else ''}. Fill it in; columns: "
            f"{names}."
            for key, guess in self.columns.items()
            if key in _NEEDED and not guess.column
        ]


def starter_config(
    events: str, *, items: str | None = None, users: str | None = None, file: Path = Path("userrep.yaml")
) -> Starter:
    """Write a configuration for a log and, if given, tables of items and users.

    ``file``: where the configuration will be written. It gives the root its name, and relative paths in it are relative
    to its folder. Cost: one listing and a sample per source.

    Raises
    ------
    UsageError
        With every source that is missing or cannot be read.
    """
    folder = str(file.parent)
    given, listings = {"events": events, "items": items, "users": users}, Listings()
    looks = results_of(partial(_look, path, what, folder, listings) for what, path in given.items() if path is not None)
    return _compose(events, f"{file.stem}-root", looks, listings)


def _look(path: str, what: str, folder: str, listings: Listings) -> _Look:
    try:
        Source(path=path)
    except ValidationError as error:  # without the path, which may contain a password
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"{what}.path: {reason}.") from None
    format_ = detect_format(path, what, listings)
    sample = take_sample(Source(path=path, format=format_), what, listings)
    is_relative = re.match(r"(?!~|[A-Za-z][\w+.-]*:)[^/]", path) is not None
    guessed, attributes = guess_users(sample.rows) if what == "users" else ({}, [])
    columns = guessed or (guess_events if what == "events" else guess_items)(sample.rows)
    return _Look(what, os.path.relpath(path, folder) if is_relative else path, format_, sample, columns, attributes)


def _compose(path: str, root: str, looks: Sequence[_Look], listings: Listings) -> Starter:
    log = looks[0]
    event_at = log.columns["event_at"].column
    times = times_of(log.sample.rows[event_at]) if event_at else None
    counts = count_by_day(times) if times is not None else {}
    columns = {"user_id": FILL_ME, "item_id": FILL_ME, "event_at": str(event_at)}
    source = EventSource.model_validate({"path": path, "format": log.format, "columns": columns})
    span = log_span(log.sample, source, counts, listings)
    fit, warnings = _fit(log, span) if event_at else (None, [])
    about = "" if log.sample.is_counted else "about "
    days = f", {'' if span.is_exact else 'about '}{span.first} to {span.last}" if span else ""
    lines = ["# userrep configuration, written by `userrep init`. `userrep validate` checks it."]
    lines.append(_line(f"root: {_scalar(root)}", "folder of all tables and models, next to this file"))
    lines += _source_lines(log, f"{about}{log.sample.num_rows:,} rows{days}")
    if times is not None and counts:
        folders = [file.partitions for file in listings.files(source, "events")]
        lines += _partition_lines(guess_partition(log.sample.rows, folders, times))
    if counts and log.sample.is_complete and min(counts.values()) >= _MIN_DAY_SHARE * median(counts.values()):
        lines.append(_line(f"  min_day_share: {_MIN_DAY_SHARE}", "smaller days fail, compared with the median day"))
    for look in looks[1:]:
        lines += _source_lines(look)
    text = "\n".join([*lines, *_settings_lines(fit, span.last if span else None), ""])
    parse_config(yaml.safe_load(text), "init")
    as_of = newest_as_of(span.last, utc_now()) if span and fit and fit.until else None
    return Starter(text, [line for look in looks for line in look.to_fill()], warnings, as_of)


def _fit(log: _Look, span: LogSpan | None) -> tuple[Fit | None, list[str]]:
    """Choose windows and the end of training. Without the end of the log, no end of training is chosen."""
    if span is None:
        return None, ["no row has a readable time up to tomorrow. Check events.columns.event_at."]
    fit = choose_fit(span.first, span.last)
    if not (span.is_exact or log.sample.sees_end):
        warning = "the end of the log is not in the sample. Set training.as_ofs.until and choose --as-of."
        return fit._replace(until=None), [warning]
    if fit.until is None:
        num_days = (span.last - span.first).days + 1
        return fit, [f"the log has {num_days} days, and training with evaluation needs {shortest_log()}."]
    return fit, []


def _source_lines(look: _Look, comment: str = "") -> Iterator[str]:
    yield _line(f"{look.what}:", comment) if comment else f"{look.what}:"
    yield f"  path: {_scalar(look.path)}"
    yield _line(f"  format: {look.format}", "parquet | delta | json | csv | table")
    yield "  columns:"
    for key, meaning in _COLUMNS[look.what].items():
        guess, others = look.columns[key], "other candidates"
        if guess.column:
            yield _line(f"    {key}: {_scalar(guess.column)}", meaning + _candidates(others, guess.others))
        elif key in _NEEDED:
            hint = f"; {guess.hint}" if guess.hint else ""
            columns = _candidates("columns", look.sample.rows.column_names)
            yield _line(f"    {key}: {FILL_ME}", meaning + hint + columns)
        else:
            example = _scalar(guess.others[0]) if guess.others else "COLUMN"
            yield _line(f"    # {key}: {example}", meaning + _candidates(others, guess.others[1:]))
    if look.what == "users":
        yield _line(
            f"  attributes: {_scalar(look.attributes)}",
            "inputs of the model; remove what changes over time and what no model may know",
        )


def _partition_lines(partition: Partition | None) -> Iterator[str]:
    if partition is None:
        return
    values = f"column: {_scalar(partition.column)}, holds: {partition.holds}"
    meaning = "rows of other days are rejected"
    if partition.late_days:
        values += f", max_lateness: {partition.late_days}d"
        meaning = "rows that arrive later are rejected"
    yield _line(f"  partition: {{{values}}}", f"only the folders that are needed are read; {meaning}")


def _settings_lines(fit: Fit | None, last_day: date | None) -> Iterator[str]:
    windows = fit.windows_days if fit else [7, 30, 180]
    yield _line(f"windows_days: {windows}", "days before the as-of date that features cover")
    if fit and fit.history_days is not None:
        yield _line(f"history_days: {fit.history_days}", "off: the log is too short for a longer window")
    yield "training:"
    until = f"until: {fit.until}, " if fit and fit.until else ""
    meaning = "end of training; later days are for evaluation" if until else "until: by default 28 days before --as-of"
    yield _line(f"  as_ofs: {{{until}every_days: 7}}", meaning)
    is_growing = last_day is not None and last_day >= utc_now().date() - timedelta(days=2)
    freshness = f"{'' if is_growing else '# '}freshness: {{warn_after: 26h, error_after: 50h}}"
    yield _line(freshness, "largest ages of snapshot and log, if the log grows daily")


def _candidates(label: str, names: Sequence[str]) -> str:
    return f"; {label}: {shortened([in_line(name) for name in names], most=_OTHERS)}" if names else ""


def _scalar(value: Any) -> str:
    """Return a value as YAML on one line, quoted where necessary."""
    style = None if all(map(str.isprintable, map(str, value if isinstance(value, list) else [value]))) else '"'
    dumped = yaml.safe_dump([value], default_flow_style=True, default_style=style, width=1 << 30, allow_unicode=True)
    return str(dumped).strip()[1:-1]


def _line(setting: str, comment: str) -> str:
    """Return a setting with its comment; a comment that is too long for the line goes above it."""
    line = f"{setting:<{_WIDTH}} # {comment}"
    indent = setting[: len(setting) - len(setting.lstrip())]
    return line if len(line) <= _LONGEST else f"{indent}# {comment}\n{setting}"
