"""What sections are made of: kinds of values, and how faults in them are said."""

import difflib
import os
import re
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from userrep.errors import UsageError
from userrep.ids import NAME_RULE, checked_name

MOST_DAYS = 3650
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}
Format = Literal["parquet", "delta", "json", "csv", "table"]


def _duration(value: Any) -> timedelta:
    """Read ``6h``, ``90m`` or ``1d`` as a duration."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d{1,6})\s*([dhms])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a number with d, h, m or s, for example 6h")
    return int(match[1]) * _UNITS[match[2]]


def _duration_text(span: timedelta) -> str:
    """Write a duration in its largest whole unit, so that it has no more digits than it was written with."""
    unit = next(unit for unit, length in _UNITS.items() if not span % length)
    return f"{span // _UNITS[unit]}{unit}"


def read_day(text: str) -> date:
    """Read ``YYYY-MM-DD``, of ISO 8601's many forms the only one. Raises ValueError for others."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError("write a date as YYYY-MM-DD")
    return date.fromisoformat(text)


def _day(value: Any) -> Any:
    """Take a date, or read one; a number is no date."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    return read_day(value if isinstance(value, str) else "")


def ascending(numbers: list[int]) -> list[int]:
    """Return numbers in order. Raises ValueError if two are equal."""
    if len(set(numbers)) != len(numbers):
        raise ValueError("numbers must differ")
    return sorted(numbers)


def distinct(names: list[str]) -> list[str]:
    """Return names as they are. Raises ValueError if one is there twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is named twice")
    return names


def part_of_name(column: str) -> str:
    """Write an owner's column as part of a name of ours: lower case, _ for all that is neither letter nor digit."""
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
        near = difflib.get_close_matches(name, available_timezones(), n=1, cutoff=0.5)
        cure = f"did you mean {near[0]}?" if near else "write one such as Europe/Berlin or UTC"
        raise ValueError(f"no such time zone; {cure}")
    return name


def _place(path: str) -> str:
    """Refuse what would tear a log's lines apart, and what no file system takes; ``~`` is the user's home."""
    if not path.isprintable():
        raise ValueError("a path of printable characters was expected")
    if "`" in path:
        raise ValueError("a path without backticks was expected: SQL puts them around names")
    if re.search(r"://[^/@]*:(?!\d+/)[^@]*@", path):  # a colon that begins no port
        raise ValueError("no place for a password; the environment of driver and executors gives access")
    return os.path.expanduser(path) if path.startswith("~") else path


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(_duration_text, when_used="json"),
]
Day = Annotated[date, BeforeValidator(_day)]
Days = Annotated[int, Field(ge=1, le=MOST_DAYS)]
Name = Annotated[str, AfterValidator(_name)]
Place = Annotated[str, Field(min_length=1), AfterValidator(_place)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Limit = Annotated[float | None, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Attributes = Annotated[list[str], AfterValidator(_distinct_as_names)]


class Section(BaseModel):
    """A section of the file: unknown keys are refused. A docstring below each key says what it means."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def refuse(faults: list[str]) -> None:
    """Raise ValueError with all faults, a line each, if there are any."""
    if faults:
        raise ValueError("\n".join(faults))
