"""Parquet files of Delta tables, written by tasks with pyarrow: no row passes through the JVM.

A file counts once the driver has committed it (``Tables.commit``). What a killed or repeated task has written is in no
commit; nobody reads it, and VACUUM removes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from userrep.store.storage import file_system
from userrep.store.table_files import USER_BUCKET, TableFile

_GROUP_BYTES = 32 * 2**20
_PAGE_BYTES = 2**20
_CODECS = {"snappy": "snappy", "lz4_raw": "lz4"}  # Spark's names, and pyarrow's


@dataclass(frozen=True)
class Target:
    """A table to write files of. ``schema``: of the files, without the partition columns.

    ``properties``: the table's; of them ``parquet.block.size`` (bytes of a row group in memory), ``parquet.page.size``,
    ``parquet.enable.dictionary``, for all columns or for one (``#column``), and ``parquet.compression`` are heeded as
    Spark's writer heeds them.
    """

    uri: str
    schema: pa.Schema
    partition_by: tuple[str, ...]
    properties: tuple[tuple[str, str], ...]


class TableWriter:
    """Writes rows of one table into a file for each partition that it meets."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._open: dict[tuple[Any, ...], _File] = {}

    def write(self, rows: pa.Table, values: Mapping[str, Any]) -> None:
        """Add rows to the file of a partition, ``values``: of the partition columns."""
        if rows.num_rows:
            key = tuple(values[name] for name in self._target.partition_by)
            if key not in self._open:
                self._open[key] = _File(self._target, dict(zip(self._target.partition_by, key, strict=True)))
            self._open[key].write(rows)

    def close(self) -> list[TableFile]:
        """Finish all files and say which there are."""
        files = [file.close() for file in self._open.values()]
        self._open = {}
        return files


class _File:
    """A file on its way; rows wait until there are enough for a row group."""

    def __init__(self, target: Target, values: dict[str, Any]) -> None:
        folders = "/".join(f"{name}={value}" for name, value in values.items())
        self._path = "/".join(part for part in (folders, f"part-{uuid4()}.parquet") if part)
        self._values, self._schema, self._num_rows = values, _dense(target.schema), 0
        self._buckets: tuple[int, int] | None = None
        self._waiting: list[pa.Table] = []
        settings = dict(target.properties)
        self._group_bytes = int(settings.get("parquet.block.size", _GROUP_BYTES))
        files, path = file_system(f"{target.uri}/{self._path}")
        files.create_dir(path.rpartition("/")[0], recursive=True)
        self._stream = files.open_output_stream(path)
        self._writer = pq.ParquetWriter(
            self._stream,
            self._schema,
            compression=_CODECS[settings.get("parquet.compression", "snappy")],
            use_dictionary=_dictionaries(target),
            data_page_size=int(settings.get("parquet.page.size", _PAGE_BYTES)),
            write_statistics=[USER_BUCKET, "item_bucket"],  # readers skip row groups by them; ids stay out of footers
        )

    def write(self, rows: pa.Table) -> None:
        self._waiting.append(rows.select(self._schema.names).cast(self._schema))
        self._num_rows += rows.num_rows
        if USER_BUCKET in self._schema.names:
            ends = pc.min_max(rows[USER_BUCKET]).as_py()
            known = self._buckets or (ends["min"], ends["max"])
            self._buckets = min(known[0], ends["min"]), max(known[1], ends["max"])
        if sum(table.nbytes for table in self._waiting) >= self._group_bytes:
            self._flush()

    def close(self) -> TableFile:
        self._flush()
        self._writer.close()
        size = self._stream.tell()
        self._stream.close()
        return TableFile(self._path, size, self._num_rows, self._values, self._buckets)

    def _flush(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            bytes_per_row = max(1, table.nbytes // table.num_rows)
            self._writer.write_table(table, row_group_size=max(1, self._group_bytes // bytes_per_row))
            self._waiting = []


def _dense(schema: pa.Schema) -> pa.Schema:
    """Declare that vectors have no null among their numbers: files are read a fifth faster. One that has is refused."""
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False))
    is_vector = [pa.types.is_list(field.type) and pa.types.is_float32(field.type.value_type) for field in schema]
    return pa.schema([field.with_type(vector) if yes else field for field, yes in zip(schema, is_vector, strict=True)])


def _dictionaries(target: Target) -> list[str]:
    """Return the columns that are written with dictionaries."""
    settings = dict(target.properties)
    by_default = settings.get("parquet.enable.dictionary", "true")
    names = [name for name in target.schema.names if not pa.types.is_nested(target.schema.field(name).type)]
    return [name for name in names if settings.get(f"parquet.enable.dictionary#{name}", by_default) == "true"]
