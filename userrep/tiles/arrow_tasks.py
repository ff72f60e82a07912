"""The build of tiles without Spark SQL: tasks that read plain files of the log and write files of tiles."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from userrep.sources.open_log import OpenLog
from userrep.sources.tombstones import Tombstones
from userrep.spark.session import shuffle_partitions
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter, Target
from userrep.store.schemas import USER_ITEM_DAYS
from userrep.store.tables import Tables
from userrep.tiles.by_arrow import MAX_ROWS, TILES, tiles_of_files
from userrep.tiles.column_paths import columns_of
from userrep.tiles.content_hash import cells_of, content_of
from userrep.tiles.inventory.footers import is_readable
from userrep.tiles.inventory.inventory import LogDay
from userrep.tiles.inventory.listing import FileDay, files_by_day, files_by_folder
from userrep.tiles.ledger import NO_ROWS, NUM_CELLS

_MAX_READS = 2  # of a file on average, by the tasks whose days it has rows of
_COUNTS = pa.schema(
    [("event_date", pa.date32()), ("num_rejected", pa.int64()), ("num_events", pa.int64()), ("num_tiles", pa.int64()),
     ("content", pa.string()), ("num_tiles_by_cell", pa.map_(pa.int32(), pa.int64()))]
)  # fmt: skip
_WRITTEN = pa.schema([*_COUNTS, ("file", pa.string())])


@dataclass(frozen=True)
class BuiltDay:
    """The content hash and the counts of a built day. ``num_rejected``: None if not counted yet."""

    content: str
    num_events: int
    num_tiles: int
    num_rejected: int | None
    num_tiles_by_cell: Mapping[int, int]

    @classmethod
    def empty(cls) -> "BuiltDay":
        """Return the result for a day that is not in the log."""
        return cls(NO_ROWS, 0, 0, 0, {})

    @property
    def counts(self) -> tuple[int, int]:
        """The number of events and rejected rows together, and of rejected rows alone. Copies are not counted."""
        return self.num_events + (self.num_rejected or 0), self.num_rejected or 0


def arrow_days(
    tables: FileTables, logs: Sequence[OpenLog], days: Sequence[LogDay], revision: int, erased: Tombstones
) -> tuple[dict[date, BuiltDay], list[TableFile]]:
    """Build the tiles of days that need no Spark; return these days and their files, for the caller to commit.

    Not built: all days of a log that tasks cannot read (``columns_of``) or that has several sources; days and files
    with more than ``MAX_ROWS`` rows; and the days listed in ``tiles_of_files``. Cost: each file is read at most twice
    on average; no shuffle. Driver memory: one entry per file and day.
    """
    if len(logs) != 1:
        return {}, []
    log, dates = logs[0], [day.day for day in days]
    columns = columns_of(log.source.schema, log.settings)
    if columns is None:
        return {}, []
    in_folders = log.settings.partition is not None
    files = files_by_folder(log, dates) if in_folders else files_by_day(tables, log, dates)
    tasks = _tasks(files, shuffle_partitions(tables.spark))
    if not tasks or not is_readable(tasks[0][2]):
        return {}, []
    target, values = tables.target(USER_ITEM_DAYS), {"revision": revision, "user_slice": "0-of-1"}

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = [row for batch in batches for row in batch.to_pylist()]
        paths, task_days = sorted({row["path"] for row in rows}), {row["event_date"] for row in rows}
        folder_days = {row["path"]: row["event_date"] for row in rows} if in_folders else None
        for built in tiles_of_files(paths, task_days, columns, erased, folder_days=folder_days):
            if built.tiles is not None:
                yield _write(_counts(built.day, built.tiles, built.num_rejected), built.tiles, target, values)

    listed = tables.spark.createDataFrame(tasks, "task INT, event_date DATE, path STRING")
    num_tasks = 1 + max(task for task, _, _ in tasks)
    rows = listed.repartitionById(num_tasks, "task").mapInArrow(work, from_arrow_schema(_WRITTEN)).collect()
    written = [TableFile.from_json(row.file) for row in rows if row.file is not None]
    return {row.event_date: _built_day(row.asDict()) for row in rows}, written


def counted_days(tables: Tables, days: Sequence[date], revision: int, *, has_context: bool) -> dict[date, BuiltDay]:
    """Count a revision's rows by day. Cost: one read of these rows; no shuffle.

    Without context columns, ``num_by_context`` is null in all rows and is not read.
    """
    names = [name for name in TILES.names if has_context or name != "num_by_context"]

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        counts_by_day: dict[date, dict[str, Any]] = {}
        for batch in batches:
            table = pa.Table.from_batches([batch])
            if not has_context:
                table = table.append_column(
                    TILES.field("num_by_context"), pa.nulls(table.num_rows, TILES.field("num_by_context").type)
                )
            for day in pc.unique(table.column("event_date")).to_pylist():
                tiles = table.filter(pc.equal(table.column("event_date"), pa.scalar(day))).select(TILES.names)
                counts_by_day[day] = _added(counts_by_day.get(day), _counts(day, tiles, 0))
        if counts_by_day:
            yield pa.RecordBatch.from_pylist(list(counts_by_day.values()), _COUNTS)

    in_days = F.col("event_date").isin(list(days)) & (F.col("revision") == revision)
    tiles = tables.read(USER_ITEM_DAYS).where(in_days).select("event_date", *names)
    counts_by_day: dict[date, dict[str, Any]] = {}
    for row in tiles.mapInArrow(count, from_arrow_schema(_COUNTS)).collect():
        counts_by_day[row.event_date] = _added(counts_by_day.get(row.event_date), row.asDict())
    no_tiles = _counts(date.min, TILES.empty_table(), 0)
    return {day: _built_day(counts_by_day.get(day, no_tiles) | {"num_rejected": None}) for day in days}


def _tasks(file_days: Sequence[FileDay], num_tasks: int) -> list[tuple[int, date, str]]:
    """Assign days to tasks, as ranges of days with similar numbers of rows; return (task, day, path).

    Days with too many rows for a task are omitted. Returns nothing if the files would be read too often.
    """
    rows_by_day: dict[date, int] = defaultdict(int)
    for entry in file_days:
        rows_by_day[entry.day] += entry.num_rows
    too_large = {entry.day for entry in file_days if max(entry.file_rows, rows_by_day[entry.day]) > MAX_ROWS}
    entries = [entry for entry in file_days if entry.day not in too_large]
    total, rows_before, task_by_day = sum(entry.num_rows for entry in entries), 0, {}
    for day in sorted({entry.day for entry in entries}):
        task_by_day[day] = min(num_tasks - 1, rows_before * num_tasks // max(1, total))
        rows_before += rows_by_day[day]
    rows_read = {(task_by_day[entry.day], entry.path): entry.file_rows for entry in entries}
    rows_by_file = {entry.path: entry.file_rows for entry in entries}
    if sum(rows_read.values()) > _MAX_READS * sum(rows_by_file.values()):
        return []
    return [(task_by_day[entry.day], entry.day, entry.path) for entry in entries]


def _write(counts: dict[str, Any], tiles: pa.Table, target: Target, values: dict[str, Any]) -> pa.RecordBatch:
    writer = TableWriter(target)
    writer.write(tiles, {**values, "event_date": counts["event_date"]})
    file = next((file.to_json() for file in writer.close()), None)
    return pa.RecordBatch.from_pylist([counts | {"file": file}], _WRITTEN)


def _counts(day: date, tiles: pa.Table, num_rejected: int) -> dict[str, Any]:
    return {
        "event_date": day,
        "num_rejected": num_rejected,
        "num_events": pc.sum(tiles.column("num_events")).as_py() or 0,
        "num_tiles": tiles.num_rows,
        "content": str(content_of(tiles)),
        "num_tiles_by_cell": cells_of(tiles, NUM_CELLS),
    }


def _added(total: dict[str, Any] | None, part: dict[str, Any]) -> dict[str, Any]:
    """Add the counts of a part of a day to those of its earlier parts."""
    if total is None:
        return part
    cells = dict(total["num_tiles_by_cell"])
    for cell, num in dict(part["num_tiles_by_cell"]).items():
        cells[cell] = cells.get(cell, 0) + num
    sums = {name: total[name] + part[name] for name in ("num_rejected", "num_events", "num_tiles")}
    content = (int(total["content"]) + int(part["content"])) % 2**64
    return part | sums | {"num_tiles_by_cell": cells, "content": str(content)}


def _built_day(row: dict[str, Any]) -> BuiltDay:
    content = f"{row['num_tiles']}:{int(row['content']):016x}"
    return BuiltDay(content, row["num_events"], row["num_tiles"], row["num_rejected"], row["num_tiles_by_cell"])
