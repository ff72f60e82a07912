"""Times of a column in UTC without Spark, under the rules by which Spark reads the log."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache, partial
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from userrep.sources.read import DATE, EARLIEST, LATEST
from userrep.store.arrow import is_text

_TIME = re.compile(
    r"\s*\+?([0-9]{4})(?:-([0-9]{1,2})(?:-([0-9]{1,2})(?:[ T]([0-9]{1,2})(?::([0-9]{1,2})"
    r"(?::([0-9]{1,2})(?:[.]([0-9]*))?\s*([A-Z+-]\S*)?)?)?)?)?)?\s*",
    re.ASCII,  # other spaces make a time unreadable
)
# Java's ZoneId.SHORT_IDS, apart from those that the IANA database has, too
_SHORT_ZONES = {
    "ACT": "Australia/Darwin", "AET": "Australia/Sydney", "AGT": "America/Argentina/Buenos_Aires",
    "ART": "Africa/Cairo", "AST": "America/Anchorage", "BET": "America/Sao_Paulo", "BST": "Asia/Dhaka",
    "CAT": "Africa/Harare", "CNT": "America/St_Johns", "CST": "America/Chicago", "CTT": "Asia/Shanghai",
    "EAT": "Africa/Addis_Ababa", "ECT": "Europe/Paris", "IET": "America/Indiana/Indianapolis",
    "IST": "Asia/Kolkata", "JST": "Asia/Tokyo", "MIT": "Pacific/Apia", "NET": "Asia/Yerevan",
    "NST": "Pacific/Auckland", "PLT": "Asia/Karachi", "PNT": "America/Phoenix", "PRT": "America/Puerto_Rico",
    "PST": "America/Los_Angeles", "SST": "Pacific/Guadalcanal", "VST": "Asia/Ho_Chi_Minh",
}  # fmt: skip
_LARGEST_OFFSET = timedelta(hours=18)
_FEW = 256  # texts that are parsed one by one if one of them is unusual
_OFFSET = re.compile(r"(?:Z|(?:UTC|GMT|UT)?(?:([+-])([0-9]{1,2})(?::?([0-9]{2})(?::?([0-9]{2}))?)?)?)")
_MICROSECONDS = pa.timestamp("us")

# The usual form. Arrow reads its zones as Spark does: Z, and an offset below 18 hours after whole seconds, or after
# three or six digits of their fraction.
_LOCAL = "[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.][0-9]{3}(?:[0-9]{3})?)?"
_IN_ZONE = "(?:Z|[+-](?:0[0-9]|1[0-7]):[0-5][0-9])"
_USUAL = re.compile(f"{_LOCAL}{_IN_ZONE}?")
_ZONED = (
    partial(pc.ends_with, pattern="Z"),
    partial(pc.match_substring_regex, pattern=f"^{_LOCAL}{_IN_ZONE}$"),
)


def times_of(column: pa.ChunkedArray, zone: str = "UTC") -> pa.ChunkedArray:
    """Return the times of a column as naive UTC; null if a time is missing, unreadable or implausible.

    Times without a zone are in ``zone``; a date without a time is its 00:00 UTC. Columns that are neither times, dates
    nor text have no times.
    """
    kind = column.type
    if is_text(kind):
        at = pa.chunked_array([_parsed(chunk, zone) for chunk in column.cast(pa.string()).chunks], _MICROSECONDS)
    elif pa.types.is_timestamp(kind) and kind.tz is not None:
        at = column.cast(pa.timestamp("us", "UTC"), safe=False).cast(_MICROSECONDS)
    elif pa.types.is_timestamp(kind):
        at = _to_utc(column.cast(_MICROSECONDS, safe=False), zone)
    elif pa.types.is_date(kind):
        at = column.cast(_MICROSECONDS, safe=False)
    else:
        return pa.chunked_array([pa.nulls(len(column), _MICROSECONDS)])
    first, last = (pa.scalar(datetime.fromisoformat(day), _MICROSECONDS) for day in (EARLIEST, LATEST))
    is_plausible = pc.and_(pc.greater_equal(at, first), pc.less_equal(at, last))
    return pc.if_else(is_plausible, at, pa.scalar(None, _MICROSECONDS))


def _to_utc(at: Any, zone: str) -> Any:
    """Convert local times. As in Spark, a time that the clocks skip has the offset of the time before the skip."""
    if zone == "UTC":
        return at
    zoned = pc.assume_timezone(at, zone, ambiguous="earliest", nonexistent="earliest")  # skipped: just before the skip
    offset = pc.subtract(pc.local_timestamp(zoned), zoned.cast(pa.timestamp("us", "UTC")).cast(_MICROSECONDS))
    return pc.subtract(at, offset)


def _parsed(texts: pa.StringArray, zone: str) -> pa.Array:
    """Parse texts by the grammar of Spark's cast: from ``2024`` to ``2024-5-1T2:03:04.5 Europe/Berlin``.

    Cost: below 1 µs per row where all times have the same ISO form, else up to 20 µs per distinct text.
    """
    alike = _parsed_alike(texts, zone)
    if alike is not None:
        return alike
    coded = texts.dictionary_encode()
    parts = pa.chunked_array(list(_parsed_parts(coded.dictionary, zone)), _MICROSECONDS)
    return parts.combine_chunks().take(coded.indices)


def _parsed_parts(texts: pa.StringArray, zone: str) -> Iterator[pa.Array]:
    """Parse distinct texts that Arrow's parser cannot read all; it reads those parts of them that it can."""
    if len(texts) <= _FEW:
        yield pa.array([_time(text, zone) for text in texts.to_pylist()], _MICROSECONDS)
        return
    for half in (texts[: len(texts) // 2], texts[len(texts) // 2 :]):
        alike = _parsed_alike(half, zone)
        yield from _parsed_parts(half, zone) if alike is None else [alike]


def _parsed_alike(texts: pa.StringArray, zone: str) -> pa.Array | None:
    """Parse texts that all have Z or an offset, or all have no zone; None if Arrow's parser would not read all of them.

    Arrow also reads a zone after minutes or hours, which Spark does not accept, but such texts are shorter than these.
    """
    shortest = pc.min(pc.binary_length(texts)).as_py()
    has_zone = shortest is not None and shortest >= len("2024-05-01T12:00:00Z")
    try:
        if has_zone and any(pc.all(is_zoned(texts)).as_py() for is_zoned in _ZONED):
            return texts.cast(pa.timestamp("us", "UTC")).cast(_MICROSECONDS)
        at = texts.cast(_MICROSECONDS)
        return at if zone == "UTC" else pc.if_else(pc.match_substring_regex(texts, DATE), at, _to_utc(at, zone))
    except pa.ArrowInvalid:
        return None


def _time(text: str, zone: str) -> datetime | None:
    """Parse one text. Zones are offsets, names of the IANA database, and abbreviations such as PST."""
    try:
        at = datetime.fromisoformat(text) if _USUAL.fullmatch(text) else _unusual(text)  # the first is faster
        at = at if at.tzinfo else at.replace(tzinfo=UTC if re.match(DATE, text, re.ASCII) else _zone(zone))
        return at.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, KeyError, OSError, OverflowError):  # no such zone; at the ends of the calendar
        return None


def _unusual(text: str) -> datetime:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    *fields, fraction, zone = match.groups()
    year, month, day, hour, minute, second = (
        int(field) if field else least for field, least in zip(fields, (1, 1, 1, 0, 0, 0), strict=True)
    )
    microsecond = int(f"{(fraction or '')[:6]:0<6}")
    return datetime(year, month, day, hour, minute, second, microsecond, tzinfo=_zone(zone) if zone else None)


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo:
    offset = _OFFSET.fullmatch(name)
    if offset is None:
        return ZoneInfo(_SHORT_ZONES.get(name, name))
    sign, hours, minutes, seconds = offset.groups()
    span = timedelta(hours=int(hours or 0), minutes=int(minutes or 0), seconds=int(seconds or 0))
    if span > _LARGEST_OFFSET:
        raise ValueError(name)
    return timezone(-span if sign == "-" else span)
