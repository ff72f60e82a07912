"""Logs partitioned by date: the day of a partition, and the partitions that contain the events of given days."""

import re
from collections.abc import Collection
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Partition
from userrep.sources.columns import named, type_of


def partition_day(frame: DataFrame, partition: Partition) -> Column:
    """Return the date in the partition column, which Spark may have inferred to be a date, a number or text.

    Numbers and texts are parsed as ``20240501`` or ``2024-05-01``; others give null.
    """
    column = named(frame, partition.column)
    if isinstance(type_of(frame, partition.column), T.DateType):
        return column
    return F.try_to_date(F.regexp_replace(column.cast("string"), "-", ""), "yyyyMMdd")


def folder_day(path: str, partition: Partition) -> date | None:
    """Return the date in a file's partition folder, such as ``dt=2024-05-01``; None if there is none."""
    text = re.search(rf".*/{re.escape(partition.column)}=(\d{{4}})-?(\d\d)-?(\d\d)/", path)
    try:
        return date(*map(int, text.groups())) if text else None
    except ValueError:
        return None


def days_late(times: pa.ChunkedArray, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the days from an event's UTC day to the date in its partition; null if one of them is unknown."""
    texts = pc.replace_substring(column.cast(pa.string()), "-", "")
    partition = pc.strptime(texts, "%Y%m%d", "s", error_is_null=True).cast(pa.date32()).cast(pa.int32())
    return pc.subtract(partition, times.cast(pa.date32()).cast(pa.int32()))


def in_partitions(frame: DataFrame, partition: Partition, days: Collection[date], *, late_days: int) -> Column:
    """Return whether a row is in the partition of one of ``days``, or of the ``late_days`` days after it.

    The partition column is compared uncast, with literals of its own type, so that Spark prunes all other partitions.
    """
    column, kind = named(frame, partition.column), type_of(frame, partition.column)
    is_in = F.lit(False)
    for first, last in ranges(days, reach=timedelta(days=late_days)):
        compact = f"{first:%Y%m%d}", f"{last:%Y%m%d}"
        if isinstance(kind, T.DateType):
            is_in |= column.between(F.lit(first), F.lit(last))
        elif isinstance(kind, T.IntegralType):
            is_in |= column.between(F.lit(int(compact[0])), F.lit(int(compact[1])))
        else:  # one range for each way to write a date; they do not overlap, since 2024- sorts before 20240
            is_in |= column.between(first.isoformat(), last.isoformat()) | column.between(*compact)
    return is_in


def ranges(days: Collection[date], *, reach: timedelta = timedelta(0)) -> list[tuple[date, date]]:
    """Merge days, each extended by ``reach``, into disjoint ranges. Both ends of a range are inclusive."""
    merged: list[tuple[date, date]] = []
    for day in sorted(days):
        if merged and day <= merged[-1][1] + timedelta(days=1):
            merged[-1] = (merged[-1][0], day + reach)
        else:
            merged.append((day, day + reach))
    return merged
