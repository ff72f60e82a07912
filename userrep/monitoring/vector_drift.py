"""Drift of vectors from one snapshot to the next: new and vanished users, moments, and nearest neighbors.

Effective rank: Roy and Vetterli (2007).

Shapes: N vectors of D numbers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from userrep.spaces.agreement import shared_neighbours
from userrep.store.arrow import stacked

Metrics = dict[str, float]
Parts = dict[str, dict[str, float]]

NOW, BEFORE = "now", "before"
_SUMS = """side STRING, num_rows BIGINT, num_unmatched BIGINT, norms DOUBLE, sums ARRAY<DOUBLE>, products BINARY,
    neighbours BINARY"""


@dataclass(frozen=True)
class Moments:
    """Statistics of one snapshot's vectors. ``num_unmatched``: vectors of users who are not in the other snapshot.

    ``neighbours_ND``: the vectors that nearest neighbors are computed among.
    """

    num_rows: int
    num_unmatched: int
    mean_norm: float
    mean_D: NDArray[np.float64]
    covariance_DD: NDArray[np.float64]
    neighbours_ND: NDArray[np.float32]

    @classmethod
    def of(cls, parts: Sequence[Row]) -> "Moments":
        """Combine the partial sums of the tasks for one snapshot."""
        num = sum(part.num_rows for part in parts)
        if not num:
            return cls(0, 0, 0.0, np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0), np.float32))
        mean_D = np.sum([part.sums for part in parts], axis=0) / num
        products_DD = sum(np.frombuffer(part.products).reshape(len(mean_D), -1) for part in parts)
        neighbours = np.concatenate([np.frombuffer(part.neighbours, np.float32) for part in parts])
        return cls(
            num_rows=num,
            num_unmatched=sum(part.num_unmatched for part in parts),
            mean_norm=sum(part.norms for part in parts) / num,
            mean_D=mean_D,
            covariance_DD=products_DD / num - np.outer(mean_D, mean_D),
            neighbours_ND=neighbours.reshape(-1, len(mean_D)),
        )

    @property
    def variance_D(self) -> NDArray[np.float64]:
        return np.diag(self.covariance_DD)

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the principal components' shares of the variance."""
        shares = np.maximum(np.linalg.eigvalsh(self.covariance_DD), 0)
        shares = shares[shares > 0] / max(shares.sum(), 1e-300)
        return float(np.exp(-(shares * np.log(shares)).sum()))


def measure_moments(now: DataFrame, before: DataFrame, *, neighbours_below: int) -> tuple[Moments, Moments]:
    """Measure the vectors of two snapshots, given with the columns user_id, user_bucket and embedding.

    ``neighbours_ND`` has the users who are in both snapshots, in buckets below ``neighbours_below``. Cost: one pass
    over both snapshots and one shuffle by user. Each task sends D x D numbers and its neighbor vectors to the driver.
    """
    a, b = (
        rows.select(
            "user_id", F.col("embedding").alias(side), (F.col("user_bucket") < neighbours_below).alias("is_few")
        )
        for side, rows in ((NOW, now), (BEFORE, before))
    )
    both = a.join(b.drop("is_few"), on="user_id", how="full_outer").select(NOW, BEFORE, "is_few")
    # Rows are collected in the order of tasks, so the neighbor vectors of both sides are in the same order of users.
    parts = both.mapInArrow(_sums, _SUMS).collect()
    moments_now, moments_before = (Moments.of([row for row in parts if row.side == side]) for side in (NOW, BEFORE))
    return moments_now, moments_before


def _sums(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Compute partial sums: one row for each batch and each snapshot with vectors in the batch."""
    for batch in batches:
        vectors_by_side = {side: batch.column(side) for side in (NOW, BEFORE)}
        in_both = pc.and_(vectors_by_side[NOW].is_valid(), vectors_by_side[BEFORE].is_valid())
        few = pc.and_(in_both, batch.column("is_few")).fill_null(False)
        for side, vectors in vectors_by_side.items():
            present = vectors.drop_null()
            if len(present):
                width = len(present[0])
                z_ND = stacked(present, width).astype(np.float64)
                row = {
                    "side": side,
                    "num_rows": len(z_ND),
                    "num_unmatched": len(present) - pc.sum(in_both).as_py(),
                    "norms": float(np.linalg.norm(z_ND, axis=1).sum()),
                    "sums": z_ND.sum(axis=0),
                    "products": (z_ND.T @ z_ND).tobytes(),
                    "neighbours": stacked(vectors.filter(few), width).tobytes(),
                }
                yield pa.RecordBatch.from_pydict({name: [value] for name, value in row.items()})


def compare_moments(now: Moments, before: Moments) -> tuple[Metrics, Parts]:
    """Return the drift metrics of two snapshots, and ``mean_shift`` and ``variance_change`` by dimension."""
    dims = [f"dimension {k}" for k in range(len(now.mean_D))]
    deviation_D = np.sqrt(np.maximum(before.variance_D, 1e-12))
    shift_D = np.abs(now.mean_D - before.mean_D) / deviation_D
    change_D = np.abs(np.log(np.maximum(now.variance_D, 1e-12) / np.maximum(before.variance_D, 1e-12)))
    metrics = {
        "new_share": now.num_unmatched / max(1, before.num_rows),
        "vanished_share": before.num_unmatched / max(1, before.num_rows),
        "norm_change": abs(now.mean_norm / max(before.mean_norm, 1e-12) - 1),
        "mean_shift": float(shift_D.max()),
        "variance_change": float(change_D.max()),
        "rank_loss": max(0.0, 1 - now.effective_rank / before.effective_rank),
        "neighbours_lost": 1 - shared_neighbours(now.neighbours_ND, before.neighbours_ND),
    }
    parts = {
        "mean_shift": dict(zip(dims, shift_D.tolist(), strict=True)),
        "variance_change": dict(zip(dims, change_D.tolist(), strict=True)),
    }
    return metrics, parts
