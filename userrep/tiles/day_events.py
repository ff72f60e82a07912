"""The valid events of each day in files of one source, without copies, read without Spark.

Array suffixes: N rows of what is read of a file; V valid rows of a day.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from userrep.errors import NeedsSparkError
from userrep.sources.text_blocks import blocks_of
from userrep.sources.tombstones import Tombstones
from userrep.tiles.arrow_rows import DayRows, DistinctEvents, LogFile, Piece, without_copies
from userrep.tiles.column_paths import TEXT_FORMATS, LogColumns
from userrep.tiles.inventory.footers import FIRST_TIME, LAST_TIME, open_listed
from userrep.tiles.parquet_file import ParquetFile
from userrep.tiles.text_file import TextFile
from userrep.utc import DAY_US, day_number

MAX_ROWS = 4_000_000  # of a file and of a day: what a task may hold in memory


class SourceFiles(NamedTuple):
    """Files of one source and the days to read of each.

    ``in_folders`` : whether the source is partitioned by event date; each file then has one day, that of its folder.
    """

    days_by_path: Mapping[str, Collection[date]]
    columns: LogColumns
    in_folders: bool = False


class DayEvents(NamedTuple):
    """The events of a source on a day. ``events``: None if the day needs Spark."""

    events: DistinctEvents | None
    num_rejected: int


def can_open(path: str, columns: LogColumns) -> bool:
    """Return whether pyarrow can open a file. Spark may have access to files that pyarrow has not."""
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
) -> Iterator[DayEvents]:
    """Yield the events of each of ``days`` in order, as ``tiles_of_files`` describes. ``context``: of all sources."""
    days_of = {path: frozenset(map(day_number, days)) for path, days in source.days_by_path.items()}
    files, spark_days = _opened(days_of, source.columns, in_folders=source.in_folders)
    files.sort(key=lambda file: file.span.start, reverse=True)
    waiting: dict[int, list[Piece]] = defaultdict(list)
    for number in map(day_number, sorted(days)):
        while files and files[-1].span.start <= number:
            file = files.pop()
            try:
                for piece_day, piece in pieces_by_day(file, source.columns, whole=source.in_folders).items():
                    waiting[piece_day].append(piece)
            except NeedsSparkError:
                spark_days.update(wanted for wanted in file.days if wanted in file.span)
        pieces_of_day = waiting.pop(number, [])
        yield _day_events(pieces_of_day, source.columns, context, erased, needs_spark=number in spark_days)


def _opened(
    days_of: Mapping[str, frozenset[int]], columns: LogColumns, *, in_folders: bool
) -> tuple[list[LogFile], set[int]]:
    """Open the files that have rows of the days to read of them; return them, and the days that need Spark.

    In a partitioned log, a file whose footer shows rows of other days than its folder's is not returned.
    """
    files: list[LogFile] = []
    spark_days, num_rows = set[int](), Counter[int]()
    for path, days in days_of.items():
        try:
            is_text = columns.format in TEXT_FORMATS
            file = TextFile(path, columns, days) if is_text else ParquetFile.of(path, columns, days)
        except (OSError, pa.ArrowInvalid):  # Spark's error message is more helpful
            spark_days.update(days)
            continue
        if file.groups:
            files.append(file)
        if in_folders:
            num_rows.update(dict.fromkeys(days, file.num_rows))
            if file.num_rows and not all(map(file.may_have_only, days)):
                spark_days.update(days)
    spark_days.update(day for day, num in num_rows.items() if num > MAX_ROWS)
    return [file for file in files if not file.days <= spark_days], spark_days


def pieces_by_day(file: LogFile, columns: LogColumns, *, whole: bool) -> dict[int, Piece]:
    """Read the rows of the file's days as one piece per day.

    Raises NeedsSparkError if Spark has to read the file or, with ``whole``, if the file has other rows.
    """
    rows = file.rows(columns)
    pieces = _pieces(file, rows)
    if whole and sum(piece.rows.num_rows for piece in pieces.values()) < max(rows.num_rows, file.num_rows):
        raise NeedsSparkError
    return pieces


def _pieces(file: LogFile, rows: pa.Table) -> dict[int, Piece]:
    at_N = rows["at"].to_numpy()
    if not len(at_N):
        return {}
    first, last = int(at_N.min()), int(at_N.max())
    if first // DAY_US == last // DAY_US and first >= FIRST_TIME and last <= LAST_TIME:
        return {first // DAY_US: Piece(rows, file, None)} if first // DAY_US in file.days else {}
    day_N = at_N // DAY_US
    is_wanted = (at_N >= FIRST_TIME) & (at_N <= LAST_TIME) & np.isin(day_N, list(file.days))
    indexes = np.flatnonzero(is_wanted)
    indexes = indexes[np.argsort(day_N[indexes], kind="stable")]
    piece_days, starts = np.unique(day_N[indexes], return_index=True)
    parts = np.split(indexes, starts[1:])
    return {
        int(day): Piece(rows.take(pa.array(part)), file, part) for day, part in zip(piece_days, parts, strict=False)
    }


def _day_events(
    pieces: list[Piece], columns: LogColumns, context: Sequence[str], erased: Tombstones, *, needs_spark: bool
) -> DayEvents:
    num_rows = sum(piece.rows.num_rows for piece in pieces)
    if not num_rows:
        return DayEvents(None if needs_spark else DistinctEvents.none(context), 0)
    try:
        rows = DayRows.of(pieces, columns)
    except NeedsSparkError:
        return DayEvents(None, 0)
    valid_V = rows.valid()
    num_rejected = num_rows - len(valid_V)
    if erased:
        user = rows.texts["user_id"]
        valid_V = valid_V[~erased.mask(user.values)[user.code_N[valid_V]]]
    events = None
    if not needs_spark:
        with suppress(NeedsSparkError):
            events = rows.events(without_copies(rows, valid_V, columns), columns, context)
    return DayEvents(events, num_rejected)
