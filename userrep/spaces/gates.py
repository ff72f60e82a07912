"""Checks that a snapshot must pass before it is published."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep import config
from userrep.store.arrow import stacked

LIVE_ABOVE = 0.01  # a dimension is live if its standard deviation exceeds this share of the largest one


@dataclass(frozen=True)
class SnapshotStats:
    """Aggregates of a snapshot.

    ``num_broken``: vectors that are not exactly D finite numbers. ``num_live_dims``: dimensions that vary between
    users; see ``LIVE_ABOVE``.
    """

    num_rows: int
    num_users: int
    num_broken: int
    num_live_dims: int


def snapshot_stats(rows: DataFrame, *, dim: int) -> dict[date, SnapshotStats]:
    """Aggregate the rows (as_of, user_id, embedding) of snapshots; one snapshot per as-of date.

    Cost: one pass, and one shuffle of user ids. The driver receives 2 x dim numbers per as-of date.
    """

    def moments(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            dates = batch.column("as_of")
            for as_of in dates.unique():
                yield _moments(as_of, batch.column("embedding").filter(pc.equal(dates, as_of)), dim)

    fields = "as_of DATE, broken BIGINT, finite BIGINT, sums ARRAY<DOUBLE>, squares ARRAY<DOUBLE>"
    parts = rows.select("as_of", "embedding").mapInArrow(moments, fields).groupBy("as_of").agg(
        F.sum("broken").alias("broken"),
        F.sum("finite").alias("finite"),
        *(F.array(*(F.sum(F.col(name)[k]) for k in range(dim))).alias(name) for name in ("sums", "squares")),
    )  # fmt: skip
    keys = rows.groupBy("as_of").agg(F.count("*").alias("num_rows"), F.count_distinct("user_id").alias("num_users"))
    stats = {}
    for row in keys.join(parts, on="as_of", how="left").collect():
        mean = np.asarray(row.sums) / max(1, row.finite)
        deviation = np.sqrt(np.maximum(np.asarray(row.squares) / max(1, row.finite) - mean**2, 0))
        live = int((deviation > LIVE_ABOVE * deviation.max()).sum())
        stats[row.as_of] = SnapshotStats(row.num_rows, row.num_users, row.broken, live)
    return stats


def _moments(as_of: pa.Scalar, vectors: pa.ListArray, dim: int) -> pa.RecordBatch:
    """Count and sum the vectors of one as-of date that are exactly ``dim`` finite numbers; count the others."""
    fits = pc.equal(vectors.value_lengths(), dim).fill_null(False)
    wide = stacked(vectors.filter(fits), dim)
    finite = wide[np.isfinite(wide).all(axis=1)].astype(np.float64)
    return pa.RecordBatch.from_pydict(
        {
            "as_of": pa.array([as_of.as_py()], pa.date32()),
            "broken": [len(vectors) - len(finite)],
            "finite": [len(finite)],
            "sums": [finite.sum(axis=0)],
            "squares": [np.square(finite).sum(axis=0)],
        }
    )


def refusals(
    stats: SnapshotStats, gates: config.Gates, *, dim: int, expected_rows: int, rows_before: int | None
) -> list[str]:
    """Return the reasons why a snapshot must not be published; empty if it passes all gates.

    ``expected_rows``: number of rows of the features that were encoded. ``rows_before``: number of rows of the space's
    previous snapshot, None if this is the first.
    """
    faults = []
    if stats.num_rows == 0:
        faults.append("it has no rows")
    if stats.num_rows != expected_rows:
        faults.append(f"it has {stats.num_rows} rows, the features have {expected_rows}")
    if stats.num_users != stats.num_rows:
        faults.append(f"{stats.num_rows - stats.num_users} rows repeat a user")
    if stats.num_broken:
        faults.append(f"{stats.num_broken} vectors are not {dim} finite numbers")
    if stats.num_live_dims < gates.min_live_dims_share * dim:
        faults.append(
            f"only {stats.num_live_dims} of {dim} dimensions vary "
            f"(gates.min_live_dims_share {gates.min_live_dims_share})"
        )
    if rows_before is not None and stats.num_rows < gates.min_rows_share * rows_before:
        faults.append(
            f"it has {stats.num_rows} rows, the previous snapshot has {rows_before} "
            f"(gates.min_rows_share {gates.min_rows_share})"
        )
    return faults
