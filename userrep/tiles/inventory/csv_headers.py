"""The headers of a CSV log's new files: all must name the same columns in the same order."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from userrep.errors import UsageError, in_line
from userrep.sources.open_log import ListedFile, OpenLog
from userrep.sources.text_blocks import header_of
from userrep.spark.tasks import map_in_tasks
from userrep.tiles.text_file import columns_in_lines

_OTHERS = pa.schema([("path", pa.string()), ("place", pa.int32()), ("name", pa.string()), ("expected", pa.string())])
_SHOWN = 3


def check_headers(spark: SparkSession, log: OpenLog, new: Sequence[ListedFile]) -> None:
    """Refuse CSV files with the log's columns in another order: Spark takes the names from one file's header.

    A file may lack the last columns, which are then null, or have more of them, which are ignored. Cost: the first
    block of each new file, in tasks.

    Raises
    ------
    UsageError
        With up to three files and the first name in each that differs.
    """
    if log.settings.format != "csv" or not new:
        return
    names = log.source.columns

    def read_headers(files: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for file in files:
            yield from _first_difference(file["path"], names)

    others = map_in_tasks(spark, [(file.path,) for file in new], "path STRING", read_headers, _OTHERS)
    faults = [
        f"{log.what}: {row.path}: column {row.place} is named {in_line(row.name)} instead of {in_line(row.expected)}."
        for row in sorted(others)[:_SHOWN]
    ]
    if faults:
        cure = f"{len(others)} of {len(new)} new CSV files have another header. Write them with the columns"
        raise UsageError([*faults, f"{log.what}: {cure} {', '.join(map(in_line, names))}, in this order."])


def _first_difference(path: str, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        header = header_of(path)
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError):  # Spark may have access, and reports errors better
        return
    for place, (name, expected) in enumerate(zip(header, columns_in_lines(names, path), strict=False), start=1):
        if not _is_named(name, expected, place):
            yield {"path": path, "place": place, "name": name, "expected": expected}
            return


def _is_named(name: str, expected: str, place: int) -> bool:
    """Return whether Spark gives a name of a header the ``expected`` name: empty and repeated ones get numbers."""
    by_spark = (name, f"{name}{place - 1}") if name else (f"_c{place - 1}",)
    return expected.lower() in (one.lower() for one in by_spark)
