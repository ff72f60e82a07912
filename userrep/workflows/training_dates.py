"""Training dates: the as-of dates of the training rows, from the configuration and the first day of the log."""

from datetime import date, timedelta

from userrep.config import Config
from userrep.errors import UsageError
from userrep.items.version_grid import version_at

DEFAULT_ROOM = timedelta(days=28)  # between the end of training and the as-of date, if no end is configured
MIN_HISTORY = timedelta(days=14)  # of events, before the first item vectors that training rows may use


def history_for_dates(config: Config) -> timedelta:
    """Return the time from the log's first day after which a training date is always possible."""
    return MIN_HISTORY + timedelta(days=config.refit_days)


def training_dates(config: Config, *, first: date, until: date, anchor: date | None = None) -> list[date]:
    """Return the dates, ascending, every ``every_days`` days, up to the last one whose futures end by ``until``.

    The first one is late enough for item vectors fitted on 14 days of events. ``first``: the log's first day.
    ``anchor``: a date of a version of the item vectors; ``until``, if none is built yet.

    Raises
    ------
    UsageError
        If the log starts too late for any training date.
    """
    settings = config.training.as_ofs
    future = timedelta(days=max(config.future_days, default=0))
    grid = [until - future - timedelta(days=settings.every_days * k) for k in range(settings.max_dates)]
    fitted = {day: version_at(day, anchor=anchor or until, refit_days=config.refit_days) for day in grid}
    dates = sorted(day for day, version in fitted.items() if version >= first + MIN_HISTORY)
    if not dates:
        raise UsageError(
            f"training.as_ofs.until {until}: no training date is possible, the log starts on {first}. "
            f"Choose {first + history_for_dates(config) + future} or later."
        )
    return dates
