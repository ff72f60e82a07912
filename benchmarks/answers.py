"""Comparison of the answers of both sides of a benchmark. Times are only compared if the answers agree."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from benchmarks.logs import AS_OF, Site, local_files
from userrep.features.build import read_features, stored_features
from userrep.features.layout import exported_form
from userrep.features.spec import POOLED, FeatureSpec
from userrep.store.data_files import matches
from userrep.store.filesystem import open_parquet
from userrep.store.schemas import TableSchema
from userrep.store.tables import Tables


def our_features(site: Site) -> DataFrame:
    """Return the built features of the as-of date."""
    return read_features(site.tables, site.config, site.versions.lineage_id, [AS_OF])


def check_features(site: Site, theirs: Path, *, as_of: date = AS_OF) -> None:
    """Check that a peer's features of a date, Parquet below a folder, equal ours.

    Means and shares must agree within 1e-6, everything else to the bit. The peer's vectors may be lists or packed.
    """
    names = [name for name in ds.dataset(theirs).schema.names if name != "as_of"]
    spec = FeatureSpec.of(site.config)
    wanted = spec.stored_columns() if POOLED in names else spec.columns()
    missing = {name for name, _ in wanted} - {*names, "is_exact"}
    if missing:
        raise AssertionError(f"the peer lacks {', '.join(sorted(missing))}")
    stored = stored_features(site.tables, site.config, site.versions.lineage_id, [as_of])
    rows = ds.dataset(local_files(stored)).to_batches()
    batches = rows if POOLED in names else (exported_form(batch, spec) for batch in rows)
    ours = pa.Table.from_batches(batches).select(names).sort_by("user_id")
    peers = ds.dataset(theirs).to_table(columns=names).sort_by("user_id")
    if ours.num_rows == 0:
        raise AssertionError("no user has features")
    for name in names:
        wanted, found = ours.column(name).combine_chunks(), peers.column(name).combine_chunks()
        if not _agree(wanted, found):
            raise AssertionError(f"{name} differs from the peer's")


def rows_of(tables: Tables, table: TableSchema, key: Mapping[str, Any], columns: list[str] | None) -> pa.Table:
    """Read the rows of a partition from its files, sorted by ``user_id`` if they have one."""
    files = tables.files(table, matches([key]))
    rows = pa.concat_tables(open_parquet(f"{tables.uri(table)}/{file.path}").read(columns=columns) for file in files)
    return rows.sort_by("user_id") if "user_id" in rows.column_names else rows


def content_hash(rows: DataFrame) -> tuple[int, int]:
    """Return the number of rows and the sum of their hashes over all columns, independent of their order."""
    columns = sorted(rows.columns)
    nulls = F.concat(*(F.isnull(name).cast("string") for name in columns))  # which xxhash64 passes over
    found = (
        rows.select(F.xxhash64(*columns, nulls).cast("decimal(38,0)").alias("h")).agg(F.count("*"), F.sum("h")).first()
    )
    assert found is not None
    return found[0], int(found[1])


def check_same(ours: tuple[int, int], theirs: tuple[int, int]) -> None:
    """Check that two content hashes are equal and not empty."""
    if ours != theirs or not ours[0]:
        raise AssertionError(f"contents differ: {ours[0]} rows and {theirs[0]} rows")


def _agree(wanted: pa.Array, found: pa.Array) -> bool:
    if len(wanted) != len(found) or wanted.null_count != found.null_count:
        return False
    if pa.types.is_list(wanted.type) or pa.types.is_binary(wanted.type):
        a, b = _numbers(wanted), _numbers(found)
        return len(a) == len(b) and bool(np.allclose(a, b, rtol=0, atol=1e-6))
    return wanted.equals(found.cast(wanted.type))


def _numbers(column: pa.ListArray | pa.BinaryArray) -> np.ndarray:
    """Return the numbers of all rows, one after the other."""
    if pa.types.is_list(column.type):
        return column.flatten().to_numpy()
    return np.frombuffer(b"".join(column.to_pylist()), "<f4")
