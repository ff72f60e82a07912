"""The files of a Delta table, as its log has them: partitions, rows, and which user buckets they hold."""

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

USER_BUCKET = "user_bucket"  # the one column that there are statistics of


class TableFile(NamedTuple):
    """A Parquet file of a table: its path below the table's, bytes, rows, and the values of the partition columns.

    ``buckets``: the first and the last ``user_bucket`` in it, where that is known; see store/buckets.py. ``added_at``:
    when it was (milliseconds since 1970), of a file that a commit has.
    """

    path: str
    size: int
    num_rows: int
    values: dict[str, Any]
    buckets: tuple[int, int] | None = None
    added_at: int = 0


def adding(files: Sequence[TableFile]) -> list[AddAction]:
    """Say to a commit that files are added."""
    now = _now_ms()
    return [AddAction(file.path, file.size, _texts(file), now, True, json.dumps(_statistics(file))) for file in files]


def removing(files: Sequence[TableFile]) -> list[RemoveAction]:
    """Say to a commit that files are removed."""
    return [RemoveAction(file.path, True, _now_ms(), file.size, _texts(file)) for file in files]


def _now_ms() -> int:
    return int(time.time() * 1000)


def files_of(table: DeltaTable) -> list[TableFile]:
    """List the files that a version of a table consists of. Driver memory: one entry for each."""
    actions = pa.table(table.get_add_actions(flatten=True))
    keys = [name for name in actions.column_names if name.startswith("partition.")]
    values = zip(*(actions.column(key).to_pylist() for key in keys), strict=True) if keys else [()] * len(actions)
    names = [key.removeprefix("partition.") for key in keys]
    facts = ("path", "size_bytes", "num_records", "modification_time")
    columns = (actions.column(name).to_pylist() for name in facts)
    return [
        TableFile(path, size, num_rows or 0, dict(zip(names, row, strict=True)), buckets, added_at)
        for path, size, num_rows, added_at, row, buckets in zip(*columns, values, _buckets(actions), strict=True)
    ]


def _buckets(actions: pa.Table) -> list[tuple[int, int] | None]:
    ends = [f"{end}.{USER_BUCKET}" for end in ("min", "max")]
    if not set(ends) <= set(actions.column_names):
        return [None] * len(actions)
    found = zip(*(actions.column(end).to_pylist() for end in ends), strict=True)
    return [None if first is None or last is None else (first, last) for first, last in found]


def _statistics(file: TableFile) -> dict[str, Any]:
    if file.buckets is None:
        return {"numRecords": file.num_rows}
    first, last = ({USER_BUCKET: bucket} for bucket in file.buckets)
    return {"numRecords": file.num_rows, "minValues": first, "maxValues": last}


def _texts(file: TableFile) -> dict[str, str | None]:
    return {name: None if value is None else str(value) for name, value in file.values.items()}
