"""Headers of CSV files. Spark and tasks take values by position, so all files must have the same order of columns."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from userrep.errors import UsageError, in_line
from userrep.sources.listing import listed_uri
from userrep.sources.open_log import ListedFile, OpenLog
from userrep.sources.text_blocks import csv_header
from userrep.spark.tasks import map_in_tasks
from userrep.store.filesystem import file_system
from userrep.tiles.text_file import columns_in_lines


def check_headers(log: OpenLog, files: Sequence[ListedFile]) -> None:
    """Refuse CSV files with the log's columns in another order: Spark takes the names from one file's header.

    A file may lack the last columns, which are then null, or have more of them, which are ignored unless the newest
    file has them (open_log.py). Files that pyarrow cannot open are not checked. Cost: the first block of each file, in
    tasks.

    Raises
    ------
    UsageError
        With up to three files and the first name in each that differs.
    """
    if log.settings.format != "csv" or not files:
        return
    names = log.source.columns

    def read_headers(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"fault": fault} for row in rows if (fault := _header_fault(row["path"], names))]

    paths, returned = [(file.path,) for file in files], pa.schema([("fault", pa.string())])
    faults = sorted(
        row.fault for row in map_in_tasks(log.source.sparkSession, paths, "path STRING", read_headers, returned)
    )
    if faults:
        cure = f"{len(faults)} of {len(files)} CSV files have another header. Write them with the columns"
        cure += f" {', '.join(map(in_line, names))}, in this order."
        raise UsageError([f"{log.what}: {fault}" for fault in [*faults[:3], cure]])


def _header_fault(path: str, names: Sequence[str]) -> str | None:
    """Return the first name in a file's header that differs from the log's; None if there is none."""
    try:
        header = csv_header(*file_system(listed_uri(path)))
    except (OSError, ValueError):  # Spark may have access
        return None
    for number, (name, expected) in enumerate(zip(header, columns_in_lines(names, path), strict=False), start=1):
        if not _is_named(name, expected, number):
            return f"{path}: column {number} is named {in_line(name)} instead of {in_line(expected)}."
    return None


def _is_named(name: str, expected: str, number: int) -> bool:
    """Return whether Spark gives a name of a header the ``expected`` name: empty and repeated ones get numbers."""
    by_spark = (name, f"{name}{number - 1}") if name else (f"_c{number - 1}",)
    return expected.lower() in (one.lower() for one in by_spark)
