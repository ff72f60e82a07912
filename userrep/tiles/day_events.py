"""The valid events of each day in files of one source, without copies, read without Spark.

Array suffixes: N rows of what is read of a file; V valid rows of a day.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from userrep.errors import NeedsSparkError
from userrep.sources.text_blocks import blocks_of
from userrep.sources.tombstones import Tombstones
from userrep.tiles.arrow_rows import (
    Piece,
    codes_of,
    concatenated,
    events_of,
    no_events,
    rows_at,
    valid_rows,
    without_copies,
)
from userrep.tiles.column_paths import TEXT_FORMATS, LogColumns
from userrep.tiles.inventory.footers import FIRST_TIME, LAST_TIME, open_listed
from userrep.tiles.parquet_file import ParquetFile
from userrep.tiles.text_file import TextFile
from userrep.utc import DAY_US, day_number

# Spark may read such a file, for example one with a time too large for microseconds, or reports a better error.
_UNREADABLE = (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError)
MAX_ROWS = 4_000_000  # of a file and of a day: what a task may hold in memory


class SourceFiles(NamedTuple):
    """Files of one source and the days to read of each."""

    days_by_path: Mapping[str, Collection[date]]
    columns: LogColumns


class DayEvents(NamedTuple):
    """The events of a source on a day, in the columns of ``arrow_rows``, and the number of its rejected rows."""

    events: pa.Table
    num_rejected: int


def can_open(path: str, columns: LogColumns) -> bool:
    """Return whether pyarrow can open a file. Spark may have access to files to which pyarrow has none."""
    try:
        if columns.format in TEXT_FORMATS:
            next(blocks_of(path, has_header=False, stop=1), None)
        else:
            open_listed(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def events_of_files(
    source: SourceFiles, days: Collection[date], context: Sequence[str], erased: Tombstones
) -> Iterator[DayEvents | None]:
    """Yield the events of each of ``days`` in order, None if a day needs Spark, as ``tiles_of_files`` describes.

    ``context``: of all sources.
    """
    days_of = {path: frozenset(map(day_number, of_file)) for path, of_file in source.days_by_path.items()}
    paths = sorted(days_of, key=lambda path: min(days_of[path]), reverse=True)
    waiting: dict[int, list[Piece]] = defaultdict(list)
    spark_days = set[int]()
    for number in map(day_number, sorted(days)):
        while paths and min(days_of[paths[-1]]) <= number:
            path = paths.pop()
            try:
                if not days_of[path] <= spark_days:
                    _add_pieces(waiting, path, source.columns, days_of[path])
            except (NeedsSparkError, *_UNREADABLE):
                spark_days |= days_of[path]
        pieces = waiting.pop(number, [])
        try:
            yield None if number in spark_days else _events_of_day(pieces, source.columns, context, erased)
        except NeedsSparkError:
            yield None


def _add_pieces(waiting: dict[int, list[Piece]], path: str, columns: LogColumns, days: frozenset[int]) -> None:
    """Read the rows of a file and add them to those that wait for their day.

    Raises NeedsSparkError if Spark has to read the file. In a partitioned log, whose rows were not counted before, it
    also does so if the file has rows of other days, or if the day has more than ``MAX_ROWS``.
    """
    is_text = columns.format in TEXT_FORMATS
    file = TextFile(path, columns) if is_text else ParquetFile.of(path, columns, days)
    num_waiting = sum(piece.rows.num_rows for day in days for piece in waiting[day])
    if columns.in_folders and num_waiting + file.num_rows > MAX_ROWS:
        raise NeedsSparkError
    rows = file.rows()
    at_N = rows["at"].to_numpy()
    day_N = at_N // DAY_US
    is_wanted = (at_N >= FIRST_TIME) & (at_N <= LAST_TIME) & np.isin(day_N, list(days))
    indexes = np.flatnonzero(is_wanted)
    if columns.in_folders and len(indexes) < max(rows.num_rows, file.num_rows):
        raise NeedsSparkError
    indexes = indexes[np.argsort(day_N[indexes], kind="stable")]
    piece_days, starts = np.unique(day_N[indexes], return_index=True)
    for day, part in zip(piece_days.tolist(), np.split(indexes, starts[1:]), strict=False):
        waiting[day].append(Piece(rows_at(rows, part), file, part))
        if columns.in_folders and sum(piece.rows.num_rows for piece in waiting[day]) > MAX_ROWS:
            raise NeedsSparkError


def _events_of_day(
    pieces: Sequence[Piece], columns: LogColumns, context: Sequence[str], erased: Tombstones
) -> DayEvents:
    """Return the events of a day. Raises NeedsSparkError."""
    if not pieces:
        return DayEvents(no_events(context), 0)
    rows = concatenated([piece.rows for piece in pieces])
    valid_V = valid_rows(rows)
    num_rejected = rows.num_rows - len(valid_V)
    if erased:
        user_N, users = codes_of(rows["user_id"])
        valid_V = valid_V[~erased.mask(users)[user_N[valid_V]]]
    return DayEvents(events_of(rows, without_copies(rows, pieces, valid_V, columns), columns, context), num_rejected)
