"""A reader of the log's files without Spark, which gives one Arrow table per file and day.

Array suffix N: rows of what is read of a file.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.errors import NeedsSparkError
from userrep.sources.text_blocks import blocks_of
from userrep.tiles.column_paths import TEXT_FORMATS, LogColumns
from userrep.tiles.inventory.footers import FIRST_TIME, LAST_TIME, open_listed
from userrep.tiles.parquet_file import ParquetFile
from userrep.tiles.text_file import TextFile
from userrep.utc import DAY_US

LogFile = ParquetFile | TextFile


class Piece(NamedTuple):
    """Rows of one day in one file: the texts of ``LogColumns`` as dictionaries, event_id, weight, ``at``.

    ``index_N``: their positions among the rows that are read of the file; None if they are all of these rows.
    """

    rows: pa.Table
    file: LogFile
    index_N: NDArray[np.int64] | None


def log_file(path: str, columns: LogColumns, days: frozenset[int]) -> LogFile:
    """Open a file of the log, of which some days will be read."""
    return TextFile(path, columns, days) if columns.format in TEXT_FORMATS else ParquetFile.of(path, columns, days)


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


def pieces_by_day(file: LogFile, columns: LogColumns, *, whole: bool = False) -> dict[int, Piece]:
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
