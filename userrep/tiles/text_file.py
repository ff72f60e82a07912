"""A JSON or CSV file of the log, read without Spark.

Array suffix N: rows of the file.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from userrep.errors import NeedsSparkError
from userrep.sources.listing import folders_of
from userrep.sources.text_blocks import TextBlock, blocks_of
from userrep.sources.times import times_of
from userrep.tiles.column_paths import LogColumns
from userrep.tiles.inventory.footers import microseconds_of
from userrep.tiles.parquet_file import coded
from userrep.tiles.text_rows import CsvLines, JsonLines, Lines
from userrep.utc import DAY_US, numbered_day

_UNDATED = -1
_HASH_BYTES = 8


@dataclass(frozen=True)
class TextFile:
    """A file of lines."""

    path: str
    columns: LogColumns

    num_rows = 0  # not known before a read

    def rows(self) -> pa.Table:
        """Read rows in the columns of ``arrow_rows``. Raises NeedsSparkError, or Arrow's errors."""
        columns = self.columns
        tables = [parser.table(block) for block, parser in _blocks(self.path, columns)]
        if not tables:
            return pa.table({"at": pa.array([], pa.int64())})
        table = pa.concat_tables(tables)
        rows: dict[str, Any] = {name: coded(table[name]) for name in columns.texts}
        rows |= {name: table[name] for name in ("event_id", "weight") if name in columns.mapped}
        return pa.table(rows | {"at": microseconds_of(times_of(table["event_at"], columns.time_zone))})

    def comparable(self, indexes: NDArray[np.int64]) -> pa.Table:
        """Return texts that are equal for lines of equal rows. Raises NeedsSparkError.

        ``indexes``: ascending positions of some rows in the file. Cost: a read of the file; some µs per row.
        """
        texts: list[str] = []
        start = 0
        for block, parser in _blocks(self.path, self.columns):
            if len(texts) == len(indexes):
                break
            split = _split(block)
            wanted = indexes[len(texts) : np.searchsorted(indexes, start + len(split))]
            texts += [parser.comparable(split[index - start].as_py()) for index in wanted]
            start += len(split)
        return pa.table({"row": pa.array(texts, pa.string())})


def days_of_lines(
    path: str, columns: LogColumns, *, start: int = 0, stop: int | None = None
) -> dict[date | None, tuple[int, int]]:
    """Count the rows of the days in a file, or in the lines that begin in the bytes ``[start, stop)``.

    Returns
    -------
    By day, or None for rows without a plausible time: the number of rows, and a hash of their lines in the order of the
    file. Cost: one read; memory for a block. Raises NeedsSparkError.
    """
    positions = [columns.source.index(path[0]) for path in columns.mapped.values()] if columns.format == "csv" else []
    start_of_hash = repr(positions).encode() if positions else b""  # lines of CSV do not contain the names of columns
    counts, hashes = Counter[int](), defaultdict[int, Any](lambda: sha256(start_of_hash))
    for block, parser in _blocks(path, columns, start=start, stop=stop, only="event_at"):
        times = times_of(parser.table(block)["event_at"], columns.time_zone)
        day_N = np.maximum(microseconds_of(times) // DAY_US, _UNDATED)
        days, counts_of_days = np.unique(day_N, return_counts=True)
        counts.update(dict(zip(days.tolist(), counts_of_days.tolist(), strict=True)))
        if len(days) == 1:
            hashes[int(days[0])].update(block.lines)
            continue
        sorted_lines = _split(block).take(pa.array(np.argsort(day_N, kind="stable")))
        for day, (first, last) in zip(days, pairwise([0, *np.cumsum(counts_of_days)]), strict=True):
            hashes[int(day)].update(_bytes(sorted_lines[first:last]))
    return {
        None if day == _UNDATED else numbered_day(day): (
            num,
            int.from_bytes(hashes[day].digest()[:_HASH_BYTES], signed=True),
        )
        for day, num in counts.items()
    }


def _blocks(
    path: str, columns: LogColumns, *, start: int = 0, stop: int | None = None, only: str | None = None
) -> Iterator[tuple[TextBlock, Lines]]:
    """Yield the lines of a file in blocks, with their parser. Raises NeedsSparkError."""
    paths = {only: columns.mapped[only]} if only else columns.mapped
    parser = JsonLines(paths) if columns.format == "json" else CsvLines(columns_in_lines(columns.source, path), paths)
    if folders_of(path).keys() & {field[0].lower() for field in columns.mapped.values()}:
        raise NeedsSparkError
    for block in blocks_of(path, has_header=columns.format == "csv", start=start, stop=stop):
        if block is None:
            raise NeedsSparkError
        yield block, parser


def columns_in_lines(columns: Sequence[str], path: str) -> tuple[str, ...]:
    """Return the columns of a log without those of the folders on a file's path, which Spark puts last."""
    folders, names = folders_of(path), list(columns)
    while names and names[-1].lower() in folders:
        names.pop()
    return tuple(names)


def _split(block: TextBlock) -> pa.BinaryArray:
    """Return lines as an array, each with its line feed. Does not copy the lines."""
    offsets = np.append(0, block.ends + 1).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(block.ends), [None, pa.py_buffer(offsets), pa.py_buffer(block.lines)])


def _bytes(lines: pa.BinaryArray) -> memoryview:
    """Return the bytes of all lines of an array."""
    _, offsets, content = lines.buffers()
    ends = np.frombuffer(offsets, np.int32)[[lines.offset, lines.offset + len(lines)]]
    return memoryview(content)[ends[0] : ends[1]]
