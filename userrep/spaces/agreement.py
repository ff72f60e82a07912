"""Agreement of one space's vectors, mapped into another space's coordinates, with that space's own vectors.

Shapes: B rows, D dimensions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.errors import UsageError
from userrep.spaces.mapping import LinearMap, vectors_of
from userrep.spark.sums import sum_over

_MIN_VARIANCE = 1e-9  # relative to the largest variance; a dimension with less does not vary
_NEIGHBOR_SAMPLE = 2_000  # held-out users whose vectors are collected on the driver


@dataclass(frozen=True)
class Agreement:
    """Agreement of mapped vectors with the target space's vectors, measured on held-out users.

    ``mean_cosine``: mean cosine similarity of a user's two vectors. ``residual``: mean over the dimensions that vary of
    the squared error divided by the variance, so that tastes do not outweigh the others; 0 is perfect, 1 is no better
    than predicting means. ``overlap_at_10``: mean share of a user's ten nearest neighbors (by cosine, among
    ``num_neighbours`` users) that are the same in both spaces.
    """

    num_rows: int
    mean_cosine: float
    residual: float
    overlap_at_10: float
    num_neighbours: int


def agreement(pairs: DataFrame, fitted: LinearMap) -> Agreement:
    """Evaluate a map on the held-out rows.

    Cost: one pass over these rows, and one over a sample of at most 2,000 users of the last as-of date.

    Raises
    ------
    UsageError
        If fewer than two held-out users have a vector in both spaces.
    """
    held_out = pairs.where("is_held_out")
    sums = sum_over(held_out.select("z_new", "z_old"), lambda batch: _error_sums(batch, fitted))
    if not sums or sums["num_rows"] < 2:
        raise UsageError(
            "map between spaces: fewer than two held-out users have a vector in both spaces. "
            "Publish snapshots of both spaces for the same users and as-of dates."
        )
    num_rows = int(sums["num_rows"])
    variance_D = sums["squares"] - np.square(sums["z_old"]) / num_rows
    varies_D = variance_D > _MIN_VARIANCE * variance_D.max()
    overlap, num_neighbours = _overlap(held_out, fitted)
    return Agreement(
        num_rows=num_rows,
        mean_cosine=float(sums["cosine"] / num_rows),
        residual=float((sums["squared_error"][varies_D] / variance_D[varies_D]).mean()),
        overlap_at_10=overlap,
        num_neighbours=num_neighbours,
    )


def _error_sums(batch: pa.RecordBatch, fitted: LinearMap) -> dict[str, NDArray[np.float64] | float]:
    """Return the sums over rows that the cosine and the residual are computed from."""
    z_old = vectors_of(batch.column("z_old")).astype(np.float64)
    z_mapped = fitted(vectors_of(batch.column("z_new"))).astype(np.float64)
    return {
        "num_rows": len(z_old),
        "cosine": (_unit(z_mapped) * _unit(z_old)).sum(),
        "squared_error": np.square(z_mapped - z_old).sum(axis=0),
        "squares": np.square(z_old).sum(axis=0),
        "z_old": z_old.sum(axis=0),
    }


def _overlap(held_out: DataFrame, fitted: LinearMap) -> tuple[float, int]:
    """Return the neighbor overlap of a sample of users of the last as-of date, and the size of the sample."""
    last = held_out.agg(F.max("as_of")).first()[0]  # type: ignore[index]
    sample = held_out.where(F.col("as_of") == F.lit(last)).select("z_new", "z_old").limit(_NEIGHBOR_SAMPLE).toArrow()
    z_new, z_old = (vectors_of(sample.column(name).combine_chunks()) for name in ("z_new", "z_old"))
    return shared_neighbours(fitted(z_new), z_old), len(z_old)


def shared_neighbours(a_BD: NDArray[Any], b_BD: NDArray[Any]) -> float:
    """Return the mean share of a row's ten nearest neighbors (by cosine) that are the same in both matrices.

    A single row has no neighbors and returns 1. Memory: B x B numbers.
    """
    k = min(10, len(b_BD) - 1)
    if k < 1:
        return 1.0
    shared = [len(np.intersect1d(a, b)) for a, b in zip(_nearest(a_BD, k), _nearest(b_BD, k), strict=True)]
    return float(np.mean(shared)) / k


def _nearest(z_BD: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the indices of the k other rows nearest to each row, by cosine."""
    unit_BD = _unit(z_BD)
    near_BB = unit_BD @ unit_BD.T
    np.fill_diagonal(near_BB, -np.inf)
    return np.argpartition(-near_BB, k - 1, axis=1)[:, :k]


def _unit(z_BD: NDArray[Any]) -> NDArray[np.float64]:
    unit_BD: NDArray[np.float64] = z_BD / np.maximum(np.linalg.norm(z_BD, axis=1, keepdims=True), 1e-12)
    return unit_BD
