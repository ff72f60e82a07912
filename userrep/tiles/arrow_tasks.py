"""Tiles of days whose rows lie in plain files, made and written by tasks that read these files themselves."""

import json
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
from userrep.tiles.by_arrow import MOST_ROWS, TILES, tiles_of_files
from userrep.tiles.column_paths import columns_of
from userrep.tiles.content_hash import cells_of, content_of
from userrep.tiles.inventory.footers import is_readable
from userrep.tiles.inventory.inventory import LogDay
from userrep.tiles.inventory.listing import FileDay, files_by_day, files_by_folder
from userrep.tiles.ledger import NO_ROWS, NUM_CELLS

_MOST_READS = 2  # of a file on average, by the tasks whose days it holds
_COUNTS = pa.schema(
    [("event_date", pa.date32()), ("num_rejected", pa.int64()), ("num_events", pa.int64()), ("num_tiles", pa.int64()),
     ("content", pa.string()), ("num_tiles_by_cell", pa.map_(pa.int32(), pa.int64()))]
)  # fmt: skip
_WRITTEN = pa.schema([*_COUNTS, ("path", pa.string()), ("size", pa.int64()), ("partition_values", pa.string())])


@dataclass(frozen=True)
class MadeDay:
    """What a day's tiles hold. ``num_rejected``: None where nobody has counted yet."""

    content: str
    num_events: int
    num_tiles: int
    num_rejected: int | None
    num_tiles_by_cell: Mapping[int, int]

    @classmethod
    def empty(cls) -> "MadeDay":
        """Return a day that is not in the log."""
        return cls(NO_ROWS, 0, 0, 0, {})

    @property
    def counts(self) -> tuple[int, int]:
        """Events and rejected rows together, and rejected rows; copies of events don't count."""
        return self.num_events + (self.num_rejected or 0), self.num_rejected or 0


def direct_days(
    tables: FileTables, logs: Sequence[OpenLog], days: Sequence[LogDay], revision: int, erased: Tombstones
) -> tuple[dict[date, MadeDay], list[TableFile]]:
    """Make the tiles of those days that tasks can make by themselves, and write them into files, to be committed.

    Left to Spark are all days of a log that tasks can't read (``columns_of``), or of several sources; days and files
    too large for one task; days whose copies only Spark can tell apart; and, in partitions, days with rows of others.
    Cost: each file is read twice at most on average; no shuffle. Driver memory: one entry for each file and day.
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
        paths, wanted = sorted({row["path"] for row in rows}), {row["event_date"] for row in rows}
        folder_days = {row["path"]: row["event_date"] for row in rows} if in_folders else None
        for made in tiles_of_files(paths, wanted, columns, erased, folder_days=folder_days):
            if made.tiles is not None:
                yield _written(_counts(made.day, made.tiles, made.num_rejected), made.tiles, target, values)

    listed = tables.spark.createDataFrame(tasks, "task INT, event_date DATE, path STRING")
    num_tasks = 1 + max(task for task, _, _ in tasks)
    rows = listed.repartitionById(num_tasks, "task").mapInArrow(work, from_arrow_schema(_WRITTEN)).collect()
    written = [
        TableFile(r.path, r.size, r.num_tiles, json.loads(r.partition_values)) for r in rows if r.path is not None
    ]
    return {row.event_date: _made(row.asDict()) for row in rows}, written


def counted_days(tables: Tables, days: Sequence[date], revision: int, *, has_context: bool) -> dict[date, MadeDay]:
    """Count a revision's rows by day. Cost: one read of these rows; no shuffle.

    Without context columns all maps are null: they are not read (see ``spark.nested``).
    """
    names = [name for name in TILES.names if has_context or name != "num_by_context"]

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found: dict[date, dict[str, Any]] = {}
        for batch in batches:
            table = pa.Table.from_batches([batch])
            if not has_context:
                table = table.append_column(
                    TILES.field("num_by_context"), pa.nulls(table.num_rows, TILES.field("num_by_context").type)
                )
            for day in pc.unique(table.column("event_date")).to_pylist():
                tiles = table.filter(pc.equal(table.column("event_date"), pa.scalar(day))).select(TILES.names)
                found[day] = _added(found.get(day), _counts(day, tiles, 0))
        if found:
            yield pa.RecordBatch.from_pylist(list(found.values()), _COUNTS)

    in_days = F.col("event_date").isin(list(days)) & (F.col("revision") == revision)
    tiles = tables.read(USER_ITEM_DAYS).where(in_days).select("event_date", *names)
    found: dict[date, dict[str, Any]] = {}
    for row in tiles.mapInArrow(count, from_arrow_schema(_COUNTS)).collect():
        found[row.event_date] = _added(found.get(row.event_date), row.asDict())
    nothing = _counts(date.min, TILES.empty_table(), 0)
    return {day: _made(found.get(day, nothing) | {"num_rejected": None}) for day in days}


def _tasks(held: Sequence[FileDay], num_tasks: int) -> list[tuple[int, date, str]]:
    """Deal days to tasks, each a range of days with about as many rows; days that no task should take are left out."""
    rows_of_day: dict[date, int] = defaultdict(int)
    for of in held:
        rows_of_day[of.day] += of.num_rows
    too_large = {of.day for of in held if max(of.file_rows, rows_of_day[of.day]) > MOST_ROWS}
    mine = [of for of in held if of.day not in too_large]
    total, before, task_of = sum(of.num_rows for of in mine), 0, {}
    for day in sorted({of.day for of in mine}):
        task_of[day] = min(num_tasks - 1, before * num_tasks // max(1, total))
        before += rows_of_day[day]
    rows_read = {(task_of[of.day], of.path): of.file_rows for of in mine}
    rows_of_files = {of.path: of.file_rows for of in mine}
    if sum(rows_read.values()) > _MOST_READS * sum(rows_of_files.values()):
        return []
    return [(task_of[of.day], of.day, of.path) for of in mine]


def _written(counts: dict[str, Any], tiles: pa.Table, target: Target, values: dict[str, Any]) -> pa.RecordBatch:
    writer = TableWriter(target)
    writer.write(tiles, {**values, "event_date": counts["event_date"]})
    row = counts | {"path": None, "size": None, "partition_values": None}
    for file in writer.close():
        row |= {"path": file.path, "size": file.size, "partition_values": json.dumps(file.values, default=str)}
    return pa.RecordBatch.from_pylist([row], _WRITTEN)


def _counts(day: date, tiles: pa.Table, num_rejected: int) -> dict[str, Any]:
    return {
        "event_date": day,
        "num_rejected": num_rejected,
        "num_events": pc.sum(tiles.column("num_events")).as_py() or 0,
        "num_tiles": tiles.num_rows,
        "content": str(content_of(tiles)),
        "num_tiles_by_cell": cells_of(tiles, NUM_CELLS),
    }


def _added(one: dict[str, Any] | None, other: dict[str, Any]) -> dict[str, Any]:
    """Add up counts of parts of a day."""
    if one is None:
        return other
    cells = dict(one["num_tiles_by_cell"])
    for cell, num in dict(other["num_tiles_by_cell"]).items():
        cells[cell] = cells.get(cell, 0) + num
    sums = {name: one[name] + other[name] for name in ("num_rejected", "num_events", "num_tiles")}
    content = (int(one["content"]) + int(other["content"])) % 2**64
    return other | sums | {"num_tiles_by_cell": cells, "content": str(content)}


def _made(row: dict[str, Any]) -> MadeDay:
    content = f"{row['num_tiles']}:{int(row['content']):016x}"
    return MadeDay(content, row["num_events"], row["num_tiles"], row["num_rejected"], row["num_tiles_by_cell"])
