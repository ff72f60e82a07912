"""The valid events of each day in files of one source, without copies, read without Spark."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import NamedTuple

import pyarrow as pa

from userrep.errors import NeedsSparkError
from userrep.sources.tombstones import Tombstones
from userrep.tiles.arrow_reader import LogFile, Piece, log_file, pieces_by_day
from userrep.tiles.arrow_rows import DayRows, Events, without_copies
from userrep.tiles.column_paths import LogColumns
from userrep.utc import day_number

MAX_ROWS = 4_000_000  # of a file and of a day: what a task may hold in memory


class SourceFiles(NamedTuple):
    """Files of one source and the days to read of each.

    ``in_folders`` : whether the source is partitioned by event date; each file then has one day, that of its folder.
    """

    days_by_path: Mapping[str, Collection[date]]
    columns: LogColumns
    in_folders: bool = False


class DayEvents(NamedTuple):
    """The events of a source on a day. ``events``: None if the day needs Spark. ``num_rows``: in the files."""

    events: Events | None
    num_rows: int
    num_rejected: int


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
    files, spark_days, num_rows = [], set[int](), Counter[int]()
    for path, days in days_of.items():
        try:
            file = log_file(path, columns, days)
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


def _day_events(
    pieces: list[Piece], columns: LogColumns, context: Sequence[str], erased: Tombstones, *, needs_spark: bool
) -> DayEvents:
    num_rows = sum(piece.rows.num_rows for piece in pieces)
    if not num_rows:
        return DayEvents(None if needs_spark else Events.none(context), 0, 0)
    try:
        rows = DayRows.of(pieces, columns)
    except NeedsSparkError:
        return DayEvents(None, num_rows, 0)
    valid_V = rows.valid()
    num_rejected = num_rows - len(valid_V)
    if erased:
        user = rows.texts["user_id"]
        valid_V = valid_V[~erased.mask(user.values)[user.code_N[valid_V]]]
    events = None
    if not needs_spark:
        with suppress(NeedsSparkError):
            events = rows.events(without_copies(rows, valid_V, columns), columns, context)
    return DayEvents(events, num_rows, num_rejected)
