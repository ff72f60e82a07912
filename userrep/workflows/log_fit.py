"""Windows and training dates that fit a log: a choice for a new configuration, and a verdict on an existing one."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

from userrep.config import Config, parse_config
from userrep.config.training import DEFAULT_ROOM
from userrep.errors import UsageError, plural, shortened
from userrep.evaluation.dates import latest_until
from userrep.items.versions import Versions, lineage_of

MIN_HISTORY = timedelta(days=14)  # of events, before the first item vectors that training rows may use

OK, WARN = "ok", "warn"
_LADDER = ([7, 30, 180], [7, 30, 90], [7, 30, 60], [7, 14, 30], [7, 14], [7])  # the first that fits is chosen
_TRAINING_DAYS = 28  # four weekly training dates
_DAY = timedelta(days=1)


class Fit(NamedTuple):
    """Settings that fit a log. ``history_days`` None: the default. ``until`` None: the log is too short to train on."""

    windows_days: list[int]
    history_days: int | None
    until: date | None


class VerdictLine(NamedTuple):
    """One line of a verdict. ``level``: OK or WARN."""

    level: str
    what: str


def training_dates(
    config: Config, *, first: date, until: date, anchor: date | None = None, most: int | None = None
) -> list[date]:
    """Return the dates, ascending, every ``every_days`` days, up to the last one whose futures end by ``until``.

    The first one is late enough for item vectors fitted on 14 days of events. ``first``: the log's first day.
    ``anchor``: a date of a version of the item vectors; ``until``, if none is built yet. ``most``: number of dates;
    ``training.as_ofs.max_dates`` by default.

    Raises
    ------
    UsageError
        If the log starts too late for any training date.
    """
    settings = config.training.as_ofs
    future = timedelta(days=config.longest_future)
    num_dates = min(most or settings.max_dates, max(0, (until - first).days) // settings.every_days + 1)
    grid = [until - future - timedelta(days=settings.every_days * k) for k in range(num_dates)]
    versions = Versions(lineage_of(config), anchor or until, config.refit_days, frozenset())
    dates = sorted(day for day in grid if versions.valid_at(day) >= first + MIN_HISTORY)
    if not dates:
        raise UsageError(
            f"training.as_ofs.until {until}: no training date is possible, the log starts on {first}. "
            f"Choose {first + timedelta(days=least_days(config, timedelta()))} or later."
        )
    return dates


def needed_days(config: Config, room: timedelta = DEFAULT_ROOM) -> int:
    """Return the days of log for four weeks of training dates with full windows. ``room``: after the end of training.

    A training needs at least ``least_days``, with shorter histories.
    """
    history = config.windows_days[-1] + _TRAINING_DAYS
    return max(history + config.longest_future + room.days, least_days(config, room))


def least_days(config: Config, room: timedelta = DEFAULT_ROOM) -> int:
    """Return the days of log with which a training always has a training date. ``room``: as in ``needed_days``."""
    return (MIN_HISTORY + room).days + config.refit_days + config.longest_future


def choose_fit(first: date, last: date) -> Fit:
    """Choose windows and the end of training, with room for evaluation after it. ``first``, ``last``: of the log."""
    num_days, end = (last - first).days + 1, last + _DAY
    for windows in _LADDER:
        config = _with_windows(windows)
        until = latest_until(end, config.future_days[-1])
        if num_days >= needed_days(config, end - until):
            return Fit(windows, 0 if (until - first).days < 2 * windows[-1] else None, until)
    return Fit(_LADDER[-1], 0, None)


def shortest_log() -> int:
    """Return the days of the shortest log that ``choose_fit`` finds an end of training for."""
    config = _with_windows(_LADDER[-1])
    return needed_days(config, timedelta(days=2 * config.future_days[-1]))


def check_until(config: Config, first: date, last: date) -> list[date]:
    """Return the training dates of a run for the day after the log's last.

    Raises
    ------
    UsageError
        If the end of training is after the log, or too early in it for any training date.
    """
    end, until = last + _DAY, config.training.as_ofs.until
    if until is not None and until > end:
        raise UsageError(
            f"training.as_ofs.until {until}: after the log, whose days are {first} to {last}. Choose {end} or earlier."
        )
    try:
        return training_dates(config, first=first, until=end - room_of(config, last))
    except UsageError:
        if until is not None:
            raise
        raise UsageError(
            f"training.as_ofs.until: not set, and its default, {DEFAULT_ROOM.days} days before the as-of date, leaves "
            f"no training date in a log of {(last - first).days + 1} days. {least_days(config)} days are enough."
        ) from None


def room_of(config: Config, last: date) -> timedelta:
    """Return the time from the end of training to the end of the log."""
    until = config.training.as_ofs.until
    return last + _DAY - until if until else DEFAULT_ROOM


def judge(config: Config, first: date, last: date) -> list[VerdictLine]:
    """Judge windows, history, end of training and room for evaluation against the log's first and last day."""
    fit = choose_fit(first, last)
    return [*_judge_windows(config, fit, first, last), *_judge_until(config, fit, first, last)]


def _judge_windows(config: Config, fit: Fit, first: date, last: date) -> Iterator[VerdictLine]:
    num_days, longest, room = (last - first).days + 1, config.windows_days[-1], room_of(config, last)
    needed = needed_days(config, room)
    is_shorter = fit.windows_days[-1] < longest and fit.until is not None
    advice = f"Use {fit.windows_days}." if is_shorter else "Collect a longer log."
    if longest > num_days:
        yield VerdictLine(WARN, f"windows_days: {num_days} days of history, but a window of {longest}. {advice}")
    else:
        future = config.longest_future
        parts = f"{needed - room.days - future} before the last training date + {future} that it looks ahead"
        parts += f" + {room.days} for the evaluation"
        what = f"windows_days: training with full windows needs {needed} days of log ({parts}), got {num_days}."
        yield VerdictLine(WARN, f"{what} {advice}") if needed > num_days else VerdictLine(OK, what)
    context = config.history_window
    if context is not None and context > num_days:
        what = f"history_days: {context} days, but the log has {num_days}. Set history_days: 0 or a shorter one."
        yield VerdictLine(WARN, what)


def _judge_until(config: Config, fit: Fit, first: date, last: date) -> Iterator[VerdictLine]:
    try:
        dates = check_until(config, first, last)
    except UsageError as error:
        yield VerdictLine(WARN, f"{error} init would choose {fit.until}." if fit.until else str(error))
        return
    end = last + _DAY
    until = end - room_of(config, last)
    how_many = f"{plural(len(dates), 'training date')}, {dates[0]} to {dates[-1]}"
    yield VerdictLine(OK, f"training.as_ofs.until: {until} gives {how_many}.")
    horizons = config.evaluation.horizons_days
    usable = [days for days in horizons if latest_until(end, days) >= until]
    room = f"evaluation: {plural((end - until).days, 'day')} after {until}"
    if not usable:
        latest = latest_until(end, horizons[0])
        what = f"{room}, too few for a horizon of {horizons[0]} days. Set training.as_ofs.until: {latest} or earlier."
        yield VerdictLine(WARN, what)
        return
    left_out = f"; left out: {shortened(horizons[len(usable) :])}" if len(usable) < len(horizons) else ""
    yield VerdictLine(OK, f"{room}, enough for horizons of {shortened(usable)} days{left_out}.")


def _with_windows(windows: list[int]) -> Config:
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}
    values = {"root": "root", "events": {"path": "events", "columns": columns}, "windows_days": windows}
    return parse_config(values, "windows_days")
