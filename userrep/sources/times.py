"""Times of a column in UTC without Spark, under the rules by which Spark reads the log."""

import re
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from userrep.sources.read import EARLIEST, LATEST

_MICROSECONDS = pa.timestamp("us")


def times_of(column: pa.ChunkedArray, zone: str = "UTC") -> pa.ChunkedArray:
    """Return the times of a column as naive UTC; null if a time is missing, unreadable or implausible.

    Times without a zone are in ``zone``. Columns that are neither times, dates nor text have no times.
    """
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        at = _parsed(column, zone)
    elif pa.types.is_timestamp(kind) and kind.tz is not None:
        at = column.cast(pa.timestamp("us", "UTC"), safe=False).cast(_MICROSECONDS)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        at = _to_utc(column.cast(_MICROSECONDS, safe=False), zone)
    else:
        return pa.chunked_array([pa.nulls(len(column), _MICROSECONDS)])
    first, last = (pa.scalar(datetime.fromisoformat(day), _MICROSECONDS) for day in (EARLIEST, LATEST))
    is_plausible = pc.and_(pc.greater_equal(at, first), pc.less_equal(at, last))
    return pc.if_else(is_plausible, at, pa.scalar(None, _MICROSECONDS))


def _to_utc(at: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    if zone == "UTC":
        return at
    zoned = pc.assume_timezone(at, zone, ambiguous="earliest", nonexistent="latest")
    return zoned.cast(pa.timestamp("us", "UTC")).cast(_MICROSECONDS)


def _parsed(column: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    """Parse texts such as 2024-05-01, 2024-05-01 12:00:00 and 2024-05-01T12:00:00Z."""
    coded = pc.dictionary_encode(column.cast(pa.string())).combine_chunks()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    read = [_time(text) for text in coded.dictionary.to_pylist()]
    naive = pa.array([at if at is not None and at.tzinfo is None else None for at in read], _MICROSECONDS)
    zoned = [at.astimezone(UTC).replace(tzinfo=None) if at is not None and at.tzinfo else None for at in read]
    values = pc.coalesce(pa.array(zoned, _MICROSECONDS), _to_utc(naive, zone))
    return pa.chunked_array([values.take(coded.indices)])


def _time(text: str | None) -> datetime | None:
    if text is None or not re.match(r"\s*\d{4}-", text):
        return None
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return None
