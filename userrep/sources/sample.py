"""A sample of a source's rows, read without Spark: all rows of a small source, evenly spread parts of a large one."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.sql.types import StringType, StructField, StructType

from userrep.config import Source
from userrep.errors import UsageError, first_line
from userrep.sources.columns import check_times
from userrep.sources.listing import DataFile, Listings, hides_deletes, read_footer, spread
from userrep.sources.text_blocks import is_utf8
from userrep.sources.text_sample import Lines, csv_names, csv_rows, json_rows, read_lines
from userrep.store.arrow import decoded

_MAX_ROWS, _MAX_BYTES = 2_000_000, 1 << 30  # of Parquet, in memory
_MAX_TEXT_BYTES = 1 << 26
_MAX_FILES = 200  # opened; of more files, these are evenly spread
_MAX_GROUPS = 64  # row groups read of a Parquet source that exceeds the limits
_BATCH_ROWS = 1 << 13
_BUFFER_BYTES = 1 << 20  # of a column whose first rows are read


@dataclass(frozen=True)
class Sample:
    """Rows of a source, and its size.

    num_files, num_bytes : exact. num_rows : exact if ``is_counted``, else an estimate. rows : partition columns
    included; structs are replaced by their fields, named by dotted path; all values of CSV and JSON are text.
    num_unparsable : lines of the sample that are not rows. sees_end : whether the sample has rows near the end of the
    source, or of each of its compressed files.
    """

    num_files: int
    num_bytes: int
    num_rows: int
    is_counted: bool
    rows: pa.Table
    num_unparsable: int = 0
    sees_end: bool = True

    @property
    def is_complete(self) -> bool:
        """Whether the sample has all rows of the source."""
        return self.is_counted and self.rows.num_rows + self.num_unparsable == self.num_rows


def take_sample(
    source: Source, what: str, listings: Listings | None = None, *, max_text_bytes: int = _MAX_TEXT_BYTES
) -> Sample:
    """Read a sample: up to 2 million rows or 1 GB of Parquet and Delta, up to 64 MB of CSV and JSON.

    The sample is evenly spread over the files and their row groups, or the first, middle and last lines of each file.

    ``listings``: a new one by default. Cost: one listing, the footers of at most 200 files, and the rows of the sample,
    with at most 1 MB more per column of a row group that is read in part.

    Raises
    ------
    UsageError
        If the source is a table of a catalog, cannot be read in its format, or has no rows.
    """
    if source.format == "table":
        raise UsageError(f"{what}.path {source.path}: a table of a catalog can only be read with Spark.")
    files = (listings or Listings()).files(source, what)
    kept = spread(files, _MAX_FILES)
    try:
        if source.format in ("csv", "json"):
            sample = _text_sample(files, kept, source.format, max_text_bytes)
        else:
            sample = _parquet_sample(files, kept, f"{what}.path {source.path}")
        if source.format == "delta":
            sample = _as_delta(source, sample)
    except (pa.ArrowException, OSError, EOFError, ValueError, DeltaError, csv.Error) as error:
        raise UsageError(f"{what}.path {source.path}: not readable as {source.format} ({first_line(error)}).") from None
    if not sample.rows.num_rows:
        raise UsageError(f"{what}.path {source.path}: has no rows. Name the path of another {source.format} source.")
    return sample


def _parquet_sample(files: Sequence[DataFile], kept: Sequence[DataFile], where: str) -> Sample:
    footers = [read_footer(file) for file in kept]
    check_times(footers, where)
    sizes = [footer.row_group(k) for footer in footers for k in range(footer.num_row_groups)]
    num_rows = sum(footer.num_rows for footer in footers)
    bytes_per_row = max(1, sum(size.total_byte_size for size in sizes) // max(1, num_rows))  # encoded: at least
    limit = min(_MAX_ROWS, max(1000, _MAX_BYTES // bytes_per_row))
    groups = [(k, group) for k, footer in enumerate(footers) for group in range(footer.num_row_groups)]
    quota, settings = limit, dict[str, Any](coerce_int96_timestamp_unit="us")
    if num_rows > limit:
        groups = list(spread(groups, _MAX_GROUPS))
        quota = limit // len(groups)
        settings |= {"buffer_size": _BUFFER_BYTES, "pre_buffer": False}  # to read only the pages of the first rows
    with pq.ParquetFile(kept[0].path, filesystem=kept[0].store, metadata=footers[0], **settings) as first:
        tables = [first.schema_arrow.empty_table()]
    num_left, num_unseen = _MAX_BYTES, 0
    for done, (k, group) in enumerate(groups):
        with kept[k].store.open_input_file(kept[k].path) as stream:
            file = pq.ParquetFile(stream, metadata=footers[k], **settings)
            rows = _head(file, group, quota, num_left // (len(groups) - done))
        tables.append(_with_partitions(rows, kept[k]))
        num_left -= rows.nbytes
        num_unseen = footers[k].row_group(group).num_rows - rows.num_rows  # after the loop: of the last row group
    rows = _flat(pa.concat_tables(tables, promote_options="permissive"))
    sees_end = num_unseen <= num_rows / _MAX_GROUPS
    is_counted = len(kept) == len(files)
    total = num_rows if is_counted else round(num_rows / len(kept) * len(files))
    return Sample(len(files), sum(file.size for file in files), total, is_counted, rows, sees_end=sees_end)


def _head(file: pq.ParquetFile, group: int, num_rows: int, num_bytes: int) -> pa.Table:
    """Return the first rows of a row group, up to the batch that reaches a number of rows or bytes."""
    batches: list[pa.RecordBatch] = []
    for batch in file.iter_batches(batch_size=min(num_rows, _BATCH_ROWS), row_groups=[group]):
        batches.append(batch.slice(0, num_rows))
        num_rows, num_bytes = num_rows - len(batches[-1]), num_bytes - batches[-1].nbytes
        if num_rows <= 0 or num_bytes <= 0:
            break
    return pa.Table.from_batches(batches, file.schema_arrow)


def _text_sample(files: Sequence[DataFile], kept: Sequence[DataFile], format_: str, max_bytes: int) -> Sample:
    lines = [read_lines(file, max_bytes // len(kept)) for file in kept]
    if format_ == "csv":
        _check_encoding(kept, lines)
    names = csv_names(kept) if format_ == "csv" else []
    parsed = [(csv_rows(part.text, names), 0) if format_ == "csv" else json_rows(part.text) for part in lines]
    tables, num_bad = zip(*parsed, strict=True)
    rows = pa.concat_tables(map(_with_partitions, tables, kept), promote_options="permissive")
    num_bytes, seen = sum(file.size for file in files), rows.num_rows + sum(num_bad)
    if format_ == "json" and not rows.num_rows and num_bytes:
        raise ValueError("no line is a JSON object; one object per line is expected")
    is_whole = len(kept) == len(files) and all(part.is_whole for part in lines)
    total = seen if is_whole else round(seen * num_bytes / max(1, sum(part.num_bytes for part in lines)))
    sees_end = all(part.sees_end for part in lines)
    return Sample(len(files), num_bytes, total, is_whole, rows, sum(num_bad), sees_end)


def _check_encoding(files: Sequence[DataFile], lines: Sequence[Lines]) -> None:
    """Raise ValueError if lines are not UTF-8. NUL bytes in a header are from UTF-16."""
    for file, part in zip(files, lines, strict=True):
        if b"\0" in part.text.partition(b"\n")[0] or not is_utf8(part.text):
            raise ValueError(f"{file.path} is not UTF-8 text; convert it with `iconv -f ENCODING -t UTF-8`")


def _with_partitions(rows: pa.Table, file: DataFile) -> pa.Table:
    for name, value in file.partitions.items():
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.repeat(pa.scalar(value), rows.num_rows))
    return rows


def _flat(rows: pa.Table) -> pa.Table:
    while any(pa.types.is_struct(field.type) for field in rows.schema):
        rows = rows.flatten()
    # Few functions of Arrow take dictionaries.
    return pa.Table.from_arrays(list(map(decoded, rows.columns)), rows.column_names)


def _as_delta(source: Source, sample: Sample) -> Sample:
    """Refuse a table whose files use other column names. With deletion vectors, the number of rows is an estimate."""
    table = DeltaTable(source.path)
    missing = {field.name for field in table.schema().fields} - {n.partition(".")[0] for n in sample.rows.column_names}
    if missing:
        raise ValueError(f"its files lack {', '.join(sorted(missing))}; column mapping needs Spark")
    return replace(sample, is_counted=sample.is_counted and not hides_deletes(table))


def spark_columns(sample: Sample) -> StructType:
    """Return the names of a sample's columns as a Spark schema, without their types."""
    return StructType([StructField(name, StringType()) for name in sample.rows.column_names])
