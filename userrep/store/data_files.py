"""What the log of a Delta table records, read through delta-rs: its columns and its files.

Spark takes about a second to read a table of ten rows, delta-rs a few milliseconds.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from userrep.store.buckets import ALL_BUCKETS, range_of_slice
from userrep.store.filesystem import file_system
from userrep.store.tables import Keys, PartitionFilter

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql.types import StructType

USER_BUCKET = "user_bucket"  # the only column with statistics in the log


class TableFile(NamedTuple):
    """A Parquet file of a table.

    ``path`` is relative to the table, ``size`` is in bytes, and ``values`` has the partition values by column.
    ``buckets`` has the first and last ``user_bucket`` in the file (both inclusive), or None if unknown. ``added_at`` is
    the time of the commit that added the file, in milliseconds since 1970, or 0 before the commit. ``table_uri`` is the
    path or URI of the table.

    Tasks return the files that they have written to the driver as JSON, in which dates become text.
    """

    path: str
    size: int
    num_rows: int
    values: dict[str, Any]
    buckets: tuple[int, int] | None = None
    added_at: int = 0
    table_uri: str = ""

    @property
    def uri(self) -> str:
        return f"{self.table_uri}/{self.path}"

    @property
    def possible_buckets(self) -> tuple[int, int]:
        """The first and last bucket that the file can contain, as far as the table's log shows it."""
        if self.buckets is not None:
            return self.buckets
        start, stop = range_of_slice(self.values["user_slice"]) if "user_slice" in self.values else ALL_BUCKETS
        return start, stop - 1

    def to_json(self) -> str:
        return json.dumps(self, default=str)

    @classmethod
    def from_json(cls, text: str) -> TableFile:
        path, size, num_rows, values, buckets, *rest = json.loads(text)
        return cls(path, size, num_rows, values, buckets and tuple(buckets), *rest)


def adding(files: Sequence[TableFile]) -> list[AddAction]:
    """Return the commit actions that add the files."""
    now = _now_ms()
    return [AddAction(file.path, file.size, _as_text(file), now, True, json.dumps(_statistics(file))) for file in files]


def removing(files: Sequence[TableFile]) -> list[RemoveAction]:
    """Return the commit actions that remove the files."""
    return [RemoveAction(file.path, True, _now_ms(), file.size, _as_text(file)) for file in files]


def _now_ms() -> int:
    return int(time.time() * 1000)


def spark_schema(table: DeltaTable) -> StructType:
    """Return a table's Spark schema."""
    from pyspark.sql.types import StructType

    return StructType.fromJson(json.loads(table.schema().to_json()))


def arrow_schema(table: DeltaTable) -> pa.Schema:
    """Return a table's Arrow schema, without the comments on columns."""
    return pa.schema([field.remove_metadata() for field in pa.schema(table.schema().to_arrow())])


def dataset_of(uri: str) -> Any:
    """Return the rows of a table's newest version as a dataset of pyarrow, to be read in batches.

    Raises DeltaError if the table needs a newer reader, for example for deletion vectors.
    """
    files, path = file_system(uri)
    # With delta-rs's Python file system, reader threads can abort the process while it is exiting.
    return DeltaTable(uri).to_pyarrow_dataset(filesystem=pyarrow.fs.SubTreeFileSystem(path, files))


def files_of(table: DeltaTable, table_uri: str = "") -> list[TableFile]:
    """Return the files of a table at its loaded version. Driver memory: one entry per file."""
    actions = pa.table(table.get_add_actions(flatten=True)).to_pydict()
    paths, prefix = actions["path"], "partition."
    keys = [name for name in actions if name.startswith(prefix)]
    firsts, lasts = (actions.get(f"{end}.{USER_BUCKET}", [None] * len(paths)) for end in ("min", "max"))
    return [
        TableFile(
            path,
            actions["size_bytes"][k],
            actions["num_records"][k] or 0,
            {key.removeprefix(prefix): actions[key][k] for key in keys},
            None if firsts[k] is None or lasts[k] is None else (firsts[k], lasts[k]),
            actions["modification_time"][k],
            table_uri,
        )
        for k, path in enumerate(paths)
    ]


def in_folders(file: TableFile, partition_by: Sequence[str]) -> bool:
    """Return whether the file's folders name its partition values, which readers of plain Parquet need."""
    folders = file.path.split("/")[:-1]
    return [folder.partition("=")[0] for folder in folders] == list(partition_by)


def _statistics(file: TableFile) -> dict[str, Any]:
    if file.buckets is None:
        return {"numRecords": file.num_rows}
    first, last = ({USER_BUCKET: bucket} for bucket in file.buckets)
    return {"numRecords": file.num_rows, "minValues": first, "maxValues": last}


def _as_text(file: TableFile) -> dict[str, str | None]:
    return {name: None if value is None else str(value) for name, value in file.values.items()}


def matches(keys: Keys) -> PartitionFilter:
    """Return a predicate for partition values that match any of ``keys``; its cost is independent of their number."""
    values_by_names: dict[tuple[str, ...], set[tuple[Any, ...]]] = defaultdict(set)
    for key in keys:
        values_by_names[tuple(key)].add(tuple(key.values()))
    return lambda row: any(tuple(row[name] for name in names) in values for names, values in values_by_names.items())
