"""Columns of a users or items table as text, for explanations and audiences."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from userrep.config import Source
from userrep.errors import UsageError
from userrep.sources.columns import as_text, check_columns, id_text
from userrep.sources.id_files import id_texts
from userrep.sources.listing import deletions_version
from userrep.sources.read import read_source
from userrep.sources.sample import spark_columns, take_sample
from userrep.store.arrow import combined
from userrep.store.buckets import bucket_column
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of


def read_texts(
    tables: Tables, source: Source, what: str, wanted: dict[str, str], *, most_rows: int
) -> list[pa.StringArray]:
    """Return the ids of a users or items table and other columns of the same rows, as text, in the order of ``wanted``.

    ``wanted``: the columns by configuration key, that of the ids first. ``what``: the configuration section. Rows
    without an id or without any other value are left out. Of more than ``most_rows`` rows, those with the lowest hash
    buckets are returned.

    Cost: files are read without Spark, up to 2 million rows of them. Tables in a catalog and Delta tables with deletion
    vectors, are read by one Spark job.

    Raises
    ------
    UsageError
        If the table cannot be read, or a column is missing or is neither text nor numbers.
    """
    if source.format == "table" or (source.format == "delta" and deletions_version(source.path)):
        frame = read_source(tables.spark, source, what=what)
        check_columns(frame.schema, wanted, what)
        id_column, *names = wanted.values()
        texts = {f"text_{k}": as_text(frame, name) for k, name in enumerate(names)}
        rows = frame.select(id_text(frame, id_column).alias("id"), *(text.alias(k) for k, text in texts.items()))
        known = rows.dropna(subset="id").dropna("all", subset=list(texts))
        return list(map(combined, known.orderBy(bucket_column("id")).limit(most_rows).toArrow().columns))
    sample = take_sample(source, what)
    check_columns(spark_columns(sample), wanted, what)
    ids, *columns = (
        _as_text(sample.rows[name], f"{what}.{key}", is_id=not k) for k, (key, name) in enumerate(wanted.items())
    )
    has_value_N = np.logical_or.reduce([column.is_valid() for column in columns])
    row_N = np.flatnonzero(np.logical_and(ids.is_valid(), has_value_N))
    bucket_N = bucket_of(ids.take(pa.array(row_N)))
    lowest = pa.array(row_N[np.argsort(bucket_N, kind="stable")[:most_rows]])
    return [column.take(lowest) for column in (ids, *columns)]


def _as_text(values: pa.ChunkedArray, where: str, *, is_id: bool) -> pa.StringArray:
    """Cast values to text. Ids are cast as for the tiles: whole numbers lose their ``.0``, and NaN is no id."""
    values = combined(values)
    try:
        if not (is_id and (pa.types.is_decimal(values.type) or pa.types.is_floating(values.type))):
            return values.cast(pa.string())
        finite = pc.if_else(pc.is_finite(values), values, None)
        whole = pc.if_else(pc.equal(finite, pc.round(finite)), finite, None)
        return pc.coalesce(id_texts(whole), finite.cast(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UsageError(f"{where}: must be text or numbers, got {values.type}. Convert the column to text.") from None
