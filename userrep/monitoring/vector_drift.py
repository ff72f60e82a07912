"""How far vectors have moved from one snapshot to the next: who came and went, moments, and nearest neighbours.

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
_SUMS = """side STRING, num_rows BIGINT, num_alone BIGINT, norms DOUBLE, sums ARRAY<DOUBLE>, products BINARY,
    neighbours BINARY"""


@dataclass(frozen=True)
class Moments:
    """Of one snapshot's vectors. ``num_alone``: of users who are not in the other."""

    num_rows: int
    num_alone: int
    mean_norm: float
    mean_D: NDArray[np.float64]
    covariance_DD: NDArray[np.float64]
    neighbours_ND: NDArray[np.float32]

    @classmethod
    def of(cls, parts: Sequence[Row]) -> "Moments":
        """Add up what tasks have found of one side."""
        num = sum(part.num_rows for part in parts)
        if not num:
            return cls(0, 0, 0.0, np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0), np.float32))
        mean_D = np.sum([part.sums for part in parts], axis=0) / num
        products_DD = sum(np.frombuffer(part.products).reshape(len(mean_D), -1) for part in parts)
        neighbours = np.concatenate([np.frombuffer(part.neighbours, np.float32) for part in parts])
        return cls(
            num_rows=num,
            num_alone=sum(part.num_alone for part in parts),
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
        """The exponential of the entropy of the shares that the principal components have of the variance."""
        shares = np.maximum(np.linalg.eigvalsh(self.covariance_DD), 0)
        shares = shares[shares > 0] / max(shares.sum(), 1e-300)
        return float(np.exp(-(shares * np.log(shares)).sum()))


def moments(now: DataFrame, before: DataFrame, *, neighbours_below: int) -> tuple[Moments, Moments]:
    """Measure two snapshots' vectors: user_id, user_bucket, embedding.

    Nearest neighbours are looked for among users of both in buckets below ``neighbours_below``, on the driver. Cost:
    one pass over both, one shuffle of them by user; a task sends D x D numbers to the driver, and its neighbours.
    """
    a, b = (
        rows.select(
            "user_id", F.col("embedding").alias(side), (F.col("user_bucket") < neighbours_below).alias("is_few")
        )
        for side, rows in ((NOW, now), (BEFORE, before))
    )
    both = a.join(b.drop("is_few"), on="user_id", how="full_outer").select(NOW, BEFORE, "is_few")
    found = both.mapInArrow(_sums, _SUMS).collect()  # in the order of tasks: neighbours of both sides go in pairs
    of_now, of_before = (Moments.of([row for row in found if row.side == side]) for side in (NOW, BEFORE))
    return of_now, of_before


def _sums(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Add up a part of the users of both snapshots: a row a side and batch that has vectors of it."""
    for batch in batches:
        of = {side: batch.column(side) for side in (NOW, BEFORE)}
        in_both = pc.and_(of[NOW].is_valid(), of[BEFORE].is_valid())
        few = pc.and_(in_both, batch.column("is_few")).fill_null(False)
        for side, vectors in of.items():
            there = vectors.drop_null()
            if len(there):
                width = len(there[0])
                z_ND = stacked(there, width).astype(np.float64)
                row = {
                    "side": side,
                    "num_rows": len(z_ND),
                    "num_alone": len(there) - pc.sum(in_both).as_py(),
                    "norms": float(np.linalg.norm(z_ND, axis=1).sum()),
                    "sums": z_ND.sum(axis=0),
                    "products": (z_ND.T @ z_ND).tobytes(),
                    "neighbours": stacked(vectors.filter(few), width).tobytes(),
                }
                yield pa.RecordBatch.from_pydict({name: [value] for name, value in row.items()})


def compared(now: Moments, before: Moments) -> tuple[Metrics, Parts]:
    """Say how far the vectors have moved. Parts: each dimension by itself."""
    dims = [f"dimension {k}" for k in range(len(now.mean_D))]
    deviation_D = np.sqrt(np.maximum(before.variance_D, 1e-12))
    shift_D = np.abs(now.mean_D - before.mean_D) / deviation_D
    change_D = np.abs(np.log(np.maximum(now.variance_D, 1e-12) / np.maximum(before.variance_D, 1e-12)))
    metrics = {
        "new_share": now.num_alone / max(1, before.num_rows),
        "vanished_share": before.num_alone / max(1, before.num_rows),
        "norm_change": abs(now.mean_norm / max(before.mean_norm, 1e-12) - 1),
        "mean_shift": float(shift_D.max()),
        "variance_change": float(change_D.max()),
        "rank_loss": max(0.0, 1 - now.effective_rank / before.effective_rank),
        "neighbours_lost": 1 - _overlap(now.neighbours_ND, before.neighbours_ND),
    }
    parts = {
        "mean_shift": dict(zip(dims, shift_D.tolist(), strict=True)),
        "variance_change": dict(zip(dims, change_D.tolist(), strict=True)),
    }
    return metrics, parts


def _overlap(now_ND: NDArray[np.float32], before_ND: NDArray[np.float32]) -> float:
    """Compare the ten nearest neighbours of users who are in both, among the same users."""
    return shared_neighbours(now_ND, before_ND) if len(now_ND) > 1 else 1.0
