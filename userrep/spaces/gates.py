"""Checks that a snapshot must pass before it is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep import config
from userrep.store.arrow import stacked
from userrep.store.vector_storage import VectorStorage

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import DataFrame

LIVE_ABOVE = 0.01  # a dimension is live if its standard deviation exceeds this share of the largest one
_SUMS = ("broken", "finite", "sums", "squares", "at_limit")


@dataclass(frozen=True)
class SnapshotStats:
    """Aggregates of a snapshot.

    ``num_broken``: vectors that are not exactly D finite numbers. ``num_live_dims``: dimensions that vary between
    users; see ``LIVE_ABOVE``. ``num_at_limit``: numbers at the limit of the storage type, most of which were clipped.
    """

    num_rows: int
    num_users: int
    num_broken: int
    num_live_dims: int
    num_at_limit: int = 0


def snapshot_stats(rows: DataFrame, *, dim: int, storages: Mapping[date, VectorStorage]) -> dict[date, SnapshotStats]:
    """Aggregate the rows (as_of, user_id, embedding) of snapshots; one snapshot per as-of date.

    ``storages``: the storage type of each snapshot.

    Cost: two passes, and one shuffle of user ids. The driver receives 2 x dim numbers per task and as-of date.
    """
    from pyspark.sql import functions as F

    from userrep.spark.sums import sum_over

    sums = sum_over(rows.select("as_of", "embedding"), lambda batch: _sums_by_date(batch, dim, storages))
    counts = rows.groupBy("as_of").agg(F.count("*").alias("num_rows"), F.count_distinct("user_id").alias("num_users"))
    stats = {}
    for row in counts.collect():
        broken, num_finite, sums_D, squares_D, at_limit = (sums[f"{name} {row.as_of}"] for name in _SUMS)
        num_finite = np.maximum(1, num_finite)
        mean_D = sums_D / num_finite
        deviation_D = np.sqrt(np.maximum(squares_D / num_finite - mean_D**2, 0))
        live = int((deviation_D > LIVE_ABOVE * deviation_D.max()).sum())
        stats[row.as_of] = SnapshotStats(row.num_rows, row.num_users, int(broken), live, int(at_limit))
    return stats


def _sums_by_date(
    batch: pa.RecordBatch, dim: int, storages: Mapping[date, VectorStorage]
) -> dict[str, NDArray[np.float64] | float]:
    """Count and sum the vectors of each as-of date that are exactly ``dim`` finite numbers; count the others."""
    sums: dict[str, NDArray[np.float64] | float] = {}
    dates = batch.column("as_of")
    for as_of in dates.unique():
        vectors = batch.column("embedding").filter(pc.equal(dates, as_of))
        fits = pc.equal(vectors.value_lengths(), dim).fill_null(False)
        wide = stacked(vectors.filter(fits), dim)
        finite = wide[np.isfinite(wide).all(axis=1)]
        at_limit = storages[as_of.as_py()].num_at_limit(finite)
        finite = finite.astype(np.float64)
        moments = finite.sum(axis=0), np.square(finite).sum(axis=0)
        values = (len(vectors) - len(finite), len(finite), *moments, at_limit)
        sums |= {f"{name} {as_of}": value for name, value in zip(_SUMS, values, strict=True)}
    return sums


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
