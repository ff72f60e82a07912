"""Time as the tables have it: UTC, without a zone; days by number."""

from datetime import UTC, date, datetime

DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1).toordinal()


def utc_now() -> datetime:
    """Return the time by the clock, naive, as ledgers hold it."""
    return datetime.now(UTC).replace(tzinfo=None)


def day_number(day: date) -> int:
    """Count the days since 1970-01-01."""
    return day.toordinal() - _EPOCH


def numbered_day(number: int) -> date:
    """Return the day of a number."""
    return date.fromordinal(number + _EPOCH)
