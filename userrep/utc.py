"""Times as stored in tables, naive UTC, and days as numbers."""

from datetime import UTC, date, datetime, timedelta

DAY_US = 86_400_000_000
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # naive UTC


def utc_now() -> datetime:
    """Return the current time as naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def last_event_day(now: datetime) -> date:
    """Return the last day whose events a run reads: the next one, since clocks differ a little."""
    return now.date() + timedelta(days=1)


def newest_as_of(last_day: date, now: datetime) -> date:
    """Return the day after a log's last, but at most today, because the events of today are not complete."""
    return min(last_day + timedelta(days=1), now.date())


def day_number(day: date) -> int:
    """Return the number of days since 1970-01-01."""
    return day.toordinal() - EPOCH.toordinal()


def numbered_day(number: int) -> date:
    """Return the day with a number; the inverse of ``day_number``."""
    return date.fromordinal(number + EPOCH.toordinal())
