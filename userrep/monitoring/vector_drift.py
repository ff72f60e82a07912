"""Drift of vectors from one snapshot to the next: new and vanished users, moments, and nearest neighbors.

Effective rank: Roy and Vetterli (2007).

Shapes: N vectors of D numbers.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.spaces.agreement import shared_neighbours
from userrep.spaces.mapping import vectors_of
from userrep.spark.sums import Sums, sum_over

Metrics = dict[str, float]
Parts = dict[str, dict[str, float]]

NOW, BEFORE = "now", "before"


@dataclass(frozen=True)
class VectorMoments:
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
    def of(cls, sums: Sums, side: str, neighbours_ND: NDArray[np.float32]) -> "VectorMoments":
        """Return the statistics of one side from the sums of ``_sums`` over the users of both."""
        if f"{side}_num_rows" not in sums:
            return cls(0, 0, 0.0, np.zeros(0), np.zeros((0, 0)), neighbours_ND)
        num, unmatched, norms, sum_D, products_DD = (
            sums[f"{side}_{name}"] for name in ("num_rows", "num_unmatched", "norms", "sum_D", "products_DD")
        )
        mean_D = sum_D / num
        covariance_DD = products_DD / num - np.outer(mean_D, mean_D)
        return cls(int(num), int(unmatched), float(norms / num), mean_D, covariance_DD, neighbours_ND)

    @property
    def variance_D(self) -> NDArray[np.float64]:
        return np.diag(self.covariance_DD)

    @property
    def deviation_D(self) -> NDArray[np.float64]:
        """Standard deviations; those of dimensions that do not vary are above zero, to divide by them."""
        return np.sqrt(np.maximum(self.variance_D, 1e-12))

    @property
    def correlated(self) -> "VectorMoments":
        """The same with correlations as covariances, so that tastes do not outweigh the other dimensions."""
        return replace(self, covariance_DD=self.covariance_DD / np.outer(self.deviation_D, self.deviation_D))

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the principal components' shares of the variance."""
        shares = np.maximum(np.linalg.eigvalsh(self.covariance_DD), 0)
        shares = shares[shares > 0] / max(shares.sum(), 1e-300)
        return float(np.exp(-(shares * np.log(shares)).sum()))


def measure_moments(
    now: DataFrame, before: DataFrame, few_now: pa.Table, few_before: pa.Table
) -> tuple[VectorMoments, VectorMoments]:
    """Measure the vectors of two snapshots, given with the columns user_id and embedding.

    ``few_now``, ``few_before``: some users of both, in memory; ``neighbours_ND`` has those who are in both tables.
    Cost: one pass over both snapshots and one shuffle by user. Each task sends D x D numbers to the driver.
    """
    a, b = (rows.select("user_id", F.col("embedding").alias(side)) for rows, side in ((now, NOW), (before, BEFORE)))
    sums = sum_over(a.join(b, on="user_id", how="full_outer").select(NOW, BEFORE), _sums)
    few_now, few_before = few_now.combine_chunks(), few_before.combine_chunks()
    index = pc.index_in(few_now["user_id"], few_before["user_id"].combine_chunks())
    in_both = {NOW: few_now.filter(index.is_valid()), BEFORE: few_before.take(index.drop_null())}
    of_now, of_before = (
        VectorMoments.of(sums, side, vectors_of(rows["embedding"].combine_chunks())) for side, rows in in_both.items()
    )
    return of_now, of_before


def _sums(batch: pa.RecordBatch) -> dict[str, NDArray[np.float64] | float]:
    """Return the sums over the vectors of each snapshot; none of a snapshot without vectors in the batch."""
    num_both = pc.sum(pc.and_(batch.column(NOW).is_valid(), batch.column(BEFORE).is_valid())).as_py()
    sums: dict[str, NDArray[np.float64] | float] = {}
    for side in (NOW, BEFORE):
        present = batch.column(side).drop_null()
        if len(present):
            z_ND = vectors_of(present).astype(np.float64)
            sums |= {
                f"{side}_num_rows": len(z_ND),
                f"{side}_num_unmatched": len(z_ND) - num_both,
                f"{side}_norms": np.linalg.norm(z_ND, axis=1).sum(),
                f"{side}_sum_D": z_ND.sum(axis=0),
                f"{side}_products_DD": z_ND.T @ z_ND,
            }
    return sums


def compare_moments(now: VectorMoments, before: VectorMoments) -> tuple[Metrics, Parts]:
    """Return the drift metrics of two snapshots, and ``mean_shift`` and ``variance_change`` by dimension."""
    dims = [f"dimension {k}" for k in range(len(now.mean_D))]
    shift_D = np.abs(now.mean_D - before.mean_D) / before.deviation_D
    change_D = np.abs(np.log(np.maximum(now.variance_D, 1e-12) / np.maximum(before.variance_D, 1e-12)))
    metrics = {
        "new_share": now.num_unmatched / max(1, before.num_rows),
        "vanished_share": before.num_unmatched / max(1, before.num_rows),
        "norm_change": abs(now.mean_norm / max(before.mean_norm, 1e-12) - 1),
        "mean_shift": float(shift_D.max()),
        "variance_change": float(change_D.max()),
        "rank_loss": max(0.0, 1 - now.correlated.effective_rank / before.correlated.effective_rank),
        "neighbours_lost": 1 - shared_neighbours(now.neighbours_ND, before.neighbours_ND),
    }
    parts = {
        "mean_shift": dict(zip(dims, shift_D.tolist(), strict=True)),
        "variance_change": dict(zip(dims, change_D.tolist(), strict=True)),
    }
    return metrics, parts
