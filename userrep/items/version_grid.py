"""The grid of dates on which versions of item vectors become valid."""

from datetime import date, timedelta


def version_at(as_of: date, *, anchor: date, refit_days: int) -> date:
    """Return the newest date of the grid at or before ``as_of``. One date of the grid is ``anchor``."""
    return anchor + timedelta(days=(as_of - anchor).days // refit_days * refit_days)
