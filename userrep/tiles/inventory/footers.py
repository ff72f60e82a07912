"""The days of a Parquet file's rows by the statistics in its footer. Days and microseconds are counted from 1970."""

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from userrep.sources.listing import listed_uri
from userrep.sources.read import EARLIEST, LATEST
from userrep.store.filesystem import open_parquet
from userrep.utc import DAY_US, EPOCH, numbered_day

FIRST_TIME, LAST_TIME = (
    (datetime.fromisoformat(day) - EPOCH) // timedelta(microseconds=1) for day in (EARLIEST, LATEST)
)
_UNITS_US = {"milliseconds": 1_000, "microseconds": 1}


class Times(NamedTuple):
    """The earliest and the latest time of some rows, and whether some row has none."""

    first: int
    last: int
    has_null: bool

    @property
    def days(self) -> range:
        return range(self.first // DAY_US, self.last // DAY_US + 1)

    @property
    def is_plausible(self) -> bool:
        """Whether no row is rejected for its time."""
        return self.first >= FIRST_TIME and self.last <= LAST_TIME


def open_listed(path: str, footer: pq.FileMetaData = None, *, coded: Sequence[str] = ()) -> pq.ParquetFile:
    """Open a Parquet file of a log."""
    return open_parquet(listed_uri(path), footer, coded=coded)


def times_of_group(metadata: pq.FileMetaData, group: int, event_at: str) -> Times | None:
    """Return the times of a row group by its statistics; None without them or if the column is no 64-bit timestamp.

    ``event_at``: the column, or the field of a struct by its dotted path.
    """
    schema = metadata.schema
    indexes = [k for k in range(metadata.num_columns) if schema.column(k).path == event_at]
    if len(indexes) != 1 or schema.column(indexes[0]).physical_type != "INT64":
        return None
    kind = json.loads(schema.column(indexes[0]).logical_type.to_json())
    unit = _UNITS_US.get(kind.get("timeUnit", ""))
    statistics = metadata.row_group(group).column(indexes[0]).statistics
    if kind["Type"] != "Timestamp" or unit is None or statistics is None or not statistics.has_min_max:
        return None
    has_null = not statistics.has_null_count or statistics.null_count > 0
    return Times(statistics.min_raw * unit, statistics.max_raw * unit, has_null)


def times_of_footer(metadata: pq.FileMetaData, event_at: str) -> list[tuple[Times | None, int]]:
    """Return the times of each row group, None if the footer does not have them, and its number of rows, if not 0."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return [(times_of_group(metadata, group, event_at), num_rows) for group, num_rows in enumerate(sizes) if num_rows]


def day_of_file(path: str, event_at: str) -> tuple[date, int] | None:
    """Return the UTC day and the number of a file's rows if the footer proves that all rows have this day.

    None if statistics are missing, if a row has no time or an implausible one, for several days, and without rows.
    """
    metadata = open_listed(path).metadata
    groups = times_of_footer(metadata, event_at)
    times = [known for known, _ in groups if known is not None and not known.has_null]
    if not groups or len(times) < len(groups):
        return None
    whole = Times(min(group.first for group in times), max(group.last for group in times), has_null=False)
    if not whole.is_plausible or len(whole.days) > 1:
        return None
    return numbered_day(whole.days.start), metadata.num_rows


def microseconds_of(event_at: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return times as microseconds, the smallest int64 for null."""
    times = event_at.cast(pa.timestamp("us", event_at.type.tz)).cast(pa.int64())
    return np.asarray((times.fill_null(np.iinfo(np.int64).min) if times.null_count else times).to_numpy())
