"""Logs in partitions by date: which day a partition is of, and which partitions hold the events of some days."""

from collections.abc import Collection
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Partition
from userrep.sources.columns import named, type_of


def day_of(text: Column) -> Column:
    """Read ``2024-05-01`` or ``20240501`` as a date; null for anything else."""
    return F.try_to_date(F.regexp_replace(text, "-", ""), "yyyyMMdd")


def partition_day(frame: DataFrame, partition: Partition) -> Column:
    """Return the date in the partition column, whether Spark has read it as a date, a number or text."""
    column = named(frame, partition.column)
    return column if isinstance(type_of(frame, partition.column), T.DateType) else day_of(column.cast("string"))


def folder_day(path: Column, partition: Partition) -> Column:
    """Return the date in the name of a file's folder, ``dt=2024-05-01``; null where there is none."""
    return day_of(F.regexp_extract(path, rf"/\Q{partition.column}\E=([^/]+)/", 1))


def in_partitions(frame: DataFrame, partition: Partition, days: Collection[date], *, late_days: int) -> Column:
    """Say whether a row lies in the partitions from each of ``days`` to ``late_days`` after it.

    The column is compared as it is, with literals of its own type, so that Spark reads no other partition.
    """
    column, kind = named(frame, partition.column), type_of(frame, partition.column)
    holds = F.lit(False)
    for first, last in ranges(days, reach=timedelta(days=late_days)):
        compact = f"{first:%Y%m%d}", f"{last:%Y%m%d}"
        if isinstance(kind, T.DateType):
            holds |= column.between(F.lit(first), F.lit(last))
        elif isinstance(kind, T.IntegralType):
            holds |= column.between(F.lit(int(compact[0])), F.lit(int(compact[1])))
        else:  # the two ways to write a date don't mix: 2024- sorts before 20240
            holds |= column.between(first.isoformat(), last.isoformat()) | column.between(*compact)
    return holds


def ranges(days: Collection[date], *, reach: timedelta = timedelta(0)) -> list[tuple[date, date]]:
    """Merge days, each with the ``reach`` after it, into ranges (both ends included) with gaps between them."""
    merged: list[tuple[date, date]] = []
    for day in sorted(days):
        if merged and day <= merged[-1][1] + timedelta(days=1):
            merged[-1] = (merged[-1][0], day + reach)
        else:
            merged.append((day, day + reach))
    return merged
