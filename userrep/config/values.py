"""Value types of the configuration, with their validation messages, and the base class of its sections."""

import os
import re
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from userrep.config.environment import unset_variables, with_variables
from userrep.errors import UsageError, did_you_mean
from userrep.ids import NAME_RULE, checked_name
from userrep.utc import utc_now

MOST_DAYS = 3650
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}
Format = Literal["parquet", "delta", "json", "csv", "table"]


def _duration(value: Any) -> timedelta:
    """Parse a duration such as ``6h``, ``90m`` or ``1d``."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d{1,6})\s*([dhms])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a whole number with the unit d, h, m or s, such as 6h")
    return int(match[1]) * _UNITS[match[2]]


def _positive(span: timedelta) -> timedelta:
    if not span:
        raise ValueError("must be longer than 0s")
    return span


def _whole_days(span: timedelta) -> timedelta:
    if span % timedelta(days=1):
        raise ValueError("must be a whole number of days, such as 28d")
    return span


def _duration_text(span: timedelta) -> str:
    """Format a duration in the largest unit that divides it.

    A smaller unit could need more digits than ``_duration`` accepts.
    """
    unit = next(unit for unit, length in _UNITS.items() if not span % length)
    return f"{span // _UNITS[unit]}{unit}"


def read_day(text: str) -> date:
    """Parse a date written as ``YYYY-MM-DD``. Raises ValueError for any other form, including other ISO 8601 forms."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError("must be a date in the form YYYY-MM-DD")
    return date.fromisoformat(text)


def read_as_of(text: str) -> date:
    """Parse ``YYYY-MM-DD``, ``today`` or ``yesterday`` (UTC). Raises ValueError for anything else."""
    days_ago = {"today": 0, "yesterday": 1}.get(text)
    return read_day(text) if days_ago is None else utc_now().date() - timedelta(days=days_ago)


def _day(value: Any) -> Any:
    """Accept a date, or parse text; numbers and timestamps are refused."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    return read_day(value if isinstance(value, str) else "")


def ascending(numbers: list[int]) -> list[int]:
    """Return the numbers in ascending order. Raises ValueError if two are equal."""
    if len(set(numbers)) != len(numbers):
        raise ValueError("numbers must be distinct")
    return sorted(numbers)


def distinct(names: list[str]) -> list[str]:
    """Return the names unchanged. Raises ValueError if one occurs more than once."""
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(f"duplicate names: {', '.join(duplicates)}")
    return names


def part_of_name(column: str) -> str:
    """Convert a column name to a part of a generated name: lower case, with _ for all but a-z, 0-9 and _."""
    return re.sub(r"[^a-z0-9_]", "_", column.lower())


def _distinct_as_names(columns: list[str]) -> list[str]:
    distinct(columns)
    distinct([part_of_name(column) for column in columns])
    return columns


def _name(name: str) -> str:
    try:
        return checked_name(name, "name")
    except UsageError:
        raise ValueError(f"not a valid name: {NAME_RULE}") from None


def _time_zone(name: str) -> str:
    if name not in available_timezones():
        example = did_you_mean(name, available_timezones(), "such as Europe/Berlin or UTC")
        raise ValueError(f"must be the name of a time zone ({example})")
    return name


def _location(path: str) -> str:
    """Check and expand a path or URI.

    Unprintable characters would break log lines, backticks would break SQL, and a password would end up in logs.
    """
    if not path.isprintable():
        raise ValueError("must consist of printable characters")
    if "`" in path:
        raise ValueError("must not contain backticks")
    if re.search(r"://[^/@]*:(?!\d+/)[^@]*@", path):  # a colon, not followed by a port
        raise ValueError("must not contain a password (the environment of driver and executors gives access)")
    return expanded_path(path)


def expanded_path(path: str) -> str:
    """Expand ``${NAME}`` and a leading ``~`` of a path. Raises ValueError if one of them has no value."""
    if missing := unset_variables(path):
        raise ValueError(f"must only use environment variables that are set (not set: {', '.join(missing)})")
    path = with_variables(path, "path")[0]
    if "${" in path:
        raise ValueError("must name environment variables as ${NAME}, with letters, digits and _")
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError(
            f"must not begin with {path.partition('/')[0]}, which is not a user of this machine (./~ names a folder)"
        )
    return expanded


Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(_duration_text, when_used="json")]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
WholeDays = Annotated[Duration, AfterValidator(_whole_days)]
Day = Annotated[date, BeforeValidator(_day)]
Days = Annotated[int, Field(ge=1, le=MOST_DAYS)]
Name = Annotated[str, AfterValidator(_name)]
Location = Annotated[str, Field(min_length=1), AfterValidator(_location)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Limit = Annotated[float | None, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Attributes = Annotated[list[str], AfterValidator(_distinct_as_names)]


class Section(BaseModel):
    """A section of the file, which refuses unknown keys. The docstring below a field is its published description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def refuse(faults: list[str]) -> None:
    """Raise ValueError with all faults, one per line, if there are any."""
    if faults:
        raise ValueError("\n".join(faults))
