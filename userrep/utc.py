"""Times as stored in tables, naive UTC, and days as numbers."""

from datetime import UTC, date, datetime

DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1).toordinal()


def utc_now() -> datetime:
    """Return the current time as naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def day_number(day: date) -> int:
    """Return the number of days since 1970-01-01."""
    return day.toordinal() - _EPOCH


def numbered_day(number: int) -> date:
    """Return the day with a number; the inverse of ``day_number``."""
    return date.fromordinal(number + _EPOCH)
