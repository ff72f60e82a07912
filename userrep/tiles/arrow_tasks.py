"""The build of tiles without Spark SQL: tasks that read plain files of the log and write files of tiles."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.pandas.types import from_arrow_schema

from userrep.sources.open_log import OpenLog
from userrep.sources.tombstones import Tombstones
from userrep.spark.session import shuffle_partitions
from userrep.spark.tasks import map_in_tasks
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.parquet_writer import TableWriter
from userrep.store.schemas import USER_ITEM_DAYS
from userrep.store.tables import Tables
from userrep.tiles.by_arrow import TILES, tiles_of_files
from userrep.tiles.column_paths import columns_of, is_ambiguous
from userrep.tiles.content_hash import cells_of, content_of
from userrep.tiles.day_events import MAX_ROWS, SourceFiles, can_open
from userrep.tiles.inventory.day_files import FileDay, files_of_days
from userrep.tiles.inventory.log_days import LogDay
from userrep.tiles.ledger import NO_ROWS, NUM_CELLS, revision_keys

_MAX_READS = 2  # of a file on average, by the tasks whose days it has rows of
_LISTED = "event_date DATE, source INT, path STRING"
_BUILT = pa.schema([("event_date", pa.date32()), ("counts", pa.string()), ("file", pa.string())])  # with JSON


@dataclass(frozen=True)
class BuiltDay:
    """The content hash and the counts of a built day."""

    content: str
    num_events: int
    num_tiles: int
    num_rejected: int
    num_tiles_by_cell: Mapping[int, int]

    @classmethod
    def of(cls, counts: Counter[str]) -> "BuiltDay":
        """Return the result for a day with these counts, the sums of ``_counts``."""
        content = f"{counts['num_tiles']}:{counts['content'] % 2**64:016x}"
        cells = {int(name): num for name, num in counts.items() if name.isdigit()}
        return cls(content, counts["num_events"], counts["num_tiles"], counts["num_rejected"], cells)


NO_TILES = BuiltDay(NO_ROWS, 0, 0, 0, {})  # the result for a day that is not in the log


def arrow_days(
    tables: FileTables, logs: Sequence[OpenLog], days: Sequence[LogDay], revision: int, erased: Tombstones
) -> tuple[dict[date, BuiltDay], list[TableFile]]:
    """Build the tiles of days that need no Spark; return these days and their files, for the caller to commit.

    Not built: all days if tasks cannot read one of the sources (``is_plain``, ``columns_of``); days and files of more
    than ``MAX_ROWS`` rows; and the days listed in ``tiles_of_files``. Cost: each file is read at most twice on average.
    """
    if not all(log.is_plain for log in logs):
        return {}, []
    dates = [day.day for day in days]
    mapped = [columns for log in logs if (columns := columns_of(log.source.schema, log.settings)) is not None]
    if len(mapped) < len(logs) or is_ambiguous([name for columns in mapped for name in columns.context]):
        return {}, []
    files = [file._replace(source=k) for k, log in enumerate(logs) for file in files_of_days(tables, log, dates)]
    tasks = _tasks(files, shuffle_partitions(tables.spark))
    if not tasks or not all(can_open(path, mapped[k]) for k, path in {k: path for *_, k, path in tasks}.items()):
        return {}, []
    target, values = tables.target(USER_ITEM_DAYS), {"revision": revision, "user_slice": "0-of-1"}

    def work(listed: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        days_by_path: list[dict[str, set[date]]] = [defaultdict(set) for _ in mapped]
        for row in listed:
            days_by_path[row["source"]][row["path"]].add(row["event_date"])
        sources = list(map(SourceFiles, days_by_path, mapped))
        for built in tiles_of_files(sources, erased):
            if built.tiles is not None:
                writer = TableWriter(target)
                writer.write(built.tiles, {**values, "event_date": built.day})
                files = [file.to_json() for file in writer.close()]  # none without tiles
                yield _row(built.day, _counts(built.tiles, built.num_rejected), *files)

    listed, task_of = [task[1:] for task in tasks], [task for task, *_ in tasks]
    rows = map_in_tasks(tables.spark, listed, _LISTED, work, _BUILT, task_of=task_of)
    built = {row.event_date: BuiltDay.of(Counter(json.loads(row.counts))) for row in rows}
    return built, [TableFile.from_json(row.file) for row in rows if row.file is not None]


def counted_days(tables: Tables, days: Sequence[date], revision: int, *, has_context: bool) -> dict[date, BuiltDay]:
    """Count a revision's tiles by day, without rejected rows. Cost: one read of these tiles; no shuffle.

    Without context columns, ``num_by_context`` is null in all rows and is not read.
    """
    names = [name for name in TILES.names if has_context or name != "num_by_context"]

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        counts_by_day: dict[date, Counter[str]] = defaultdict(Counter)
        for batch in batches:
            table = pa.Table.from_batches([batch])
            if not has_context:
                context = TILES.field("num_by_context")
                table = table.append_column(context, pa.nulls(table.num_rows, context.type))
            for day in pc.unique(table["event_date"]).to_pylist():
                tiles = table.filter(pc.equal(table["event_date"], pa.scalar(day))).select(TILES.names)
                counts_by_day[day].update(_counts(tiles))
        yield pa.RecordBatch.from_pylist([_row(day, counts) for day, counts in counts_by_day.items()], _BUILT)

    tiles = tables.read(USER_ITEM_DAYS, revision_keys(dict.fromkeys(days, revision))).select("event_date", *names)
    counts_by_day = {day: Counter[str]() for day in days}
    for row in tiles.mapInArrow(count, from_arrow_schema(_BUILT)).collect():
        counts_by_day[row.event_date].update(json.loads(row.counts))
    return {day: BuiltDay.of(counts) for day, counts in counts_by_day.items()}


def _tasks(file_days: Sequence[FileDay], num_tasks: int) -> list[tuple[int, date, int, str]]:
    """Assign days to tasks, as ranges of days with similar numbers of rows; return (task, day, source, path).

    Days with too many rows for a task are omitted. There are fewer tasks if files would be read too often otherwise.
    Returns nothing if even one task is too many, because it would have too many rows.
    """
    rows_by_day: Counter[date] = Counter()
    for entry in file_days:
        rows_by_day[entry.day] += entry.num_rows
    too_large = {entry.day for entry in file_days if max(entry.file_rows, rows_by_day[entry.day]) > MAX_ROWS}
    entries = [entry for entry in file_days if entry.day not in too_large]
    rows_by_file = {(entry.source, entry.path): entry.file_rows for entry in entries}
    most = _MAX_READS * sum(rows_by_file.values())
    days = sorted(rows_by_day.keys() - too_large)
    *rows_before, total = accumulate((rows_by_day[day] for day in days), initial=0)
    before = dict(zip(days, rows_before, strict=True))
    for num in (num_tasks >> k for k in range(num_tasks.bit_length())):
        tasks = [(before[entry.day] * num // total, entry.day, entry.source, entry.path) for entry in entries]
        rows_read = {(task, source, path): rows_by_file[source, path] for task, _, source, path in tasks}
        if sum(rows_read.values()) <= most:
            return tasks
        if sum(rows_by_file.values()) > MAX_ROWS * num // 2:
            break
    return []


def _counts(tiles: pa.Table, num_rejected: int = 0) -> Counter[str]:
    """Count tiles, also by cell, and hash them. The counts and hashes of parts of a day add up."""
    num_events: int = pc.sum(tiles["num_events"]).as_py() or 0
    counts = {
        "num_events": num_events, "num_tiles": tiles.num_rows, "num_rejected": num_rejected,
        "content": content_of(tiles),
    }  # fmt: skip
    return Counter({str(cell): num for cell, num in cells_of(tiles, NUM_CELLS).items()} | counts)


def _row(day: date, counts: Counter[str], file: str | None = None) -> dict[str, Any]:
    return {"event_date": day, "counts": json.dumps(counts), "file": file}
