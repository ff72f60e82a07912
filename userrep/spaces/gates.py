"""What a snapshot must pass before anybody reads it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep import config

LIVE_ABOVE = 0.01  # a dimension is live if its standard deviation exceeds this share of the largest


@dataclass(frozen=True)
class SnapshotStats:
    """Aggregates of a snapshot: rows, distinct users, vectors that are not D finite numbers, live dimensions."""

    num_rows: int
    num_users: int
    num_broken: int
    num_live_dims: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def snapshot_stats(rows: DataFrame, *, dim: int) -> SnapshotStats:
    """Aggregate a snapshot's rows. Cost: one pass, and one shuffle of user ids; 2 x dim numbers a partition to the driver."""

    def moments(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        broken, count, sums, squares = 0, 0, np.zeros(dim), np.zeros(dim)
        for batch in batches:
            vectors = batch.column("embedding")
            fits = vectors.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) == dim
            wide = vectors.filter(pa.array(fits)).flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
            finite = wide[np.isfinite(wide).all(axis=1)].astype(np.float64)
            broken += batch.num_rows - len(finite)
            count, sums, squares = (
                count + len(finite),
                sums + finite.sum(axis=0),
                squares + np.square(finite).sum(axis=0),
            )
        yield pa.RecordBatch.from_pydict({"broken": [broken], "count": [count], "sums": [sums], "squares": [squares]})

    parts = rows.select("embedding").mapInArrow(
        moments, "broken BIGINT, count BIGINT, sums ARRAY<DOUBLE>, squares ARRAY<DOUBLE>"
    ).collect()  # fmt: skip
    count = max(1, sum(part["count"] for part in parts))
    mean = np.sum([part.sums for part in parts], axis=0) / count
    deviation = np.sqrt(np.maximum(np.sum([part.squares for part in parts], axis=0) / count - mean**2, 0))
    live = int((deviation > LIVE_ABOVE * deviation.max()).sum()) if deviation.max() > 0 else 0
    users = rows.agg(F.count("*").alias("rows"), F.count_distinct("user_id").alias("users")).first()
    assert users is not None
    return SnapshotStats(users.rows, users.users, sum(part.broken for part in parts), live)


def refusals(
    stats: SnapshotStats, gates: config.Gates, *, dim: int, expected_rows: int, rows_before: int | None
) -> list[str]:
    """Return why a snapshot may not be published; empty if it may.

    ``expected_rows``: rows of the features it was made from. ``rows_before``: those of the space's snapshot before it.
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
            f"only {stats.num_live_dims} of {dim} dimensions vary (gates.min_live_dims_share {gates.min_live_dims_share})"
        )
    if rows_before is not None and stats.num_rows < gates.min_rows_share * rows_before:
        faults.append(
            f"it has {stats.num_rows} rows, the one before has {rows_before} (gates.min_rows_share {gates.min_rows_share})"
        )
    return faults
