"""How near the vectors of one space, mapped into another's coordinates, come to that space's own.

Shapes: B rows, D dimensions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.errors import UsageError
from userrep.spaces.mapping import LinearMap, vectors_of

_NEIGHBOURS_AMONG = 2_000  # held-out users, on the driver


@dataclass(frozen=True)
class Agreement:
    """How near mapped vectors come to the others, on held-out users.

    ``mean_cosine``: of a user's two vectors. ``residual``: squared distance over the variance of what was aimed at; 0
    is perfect, 1 no better than the mean. ``overlap_at_10``: of a user's ten nearest neighbours, by cosine, among
    ``num_neighbours`` users, the share that both agree on.
    """

    num_rows: int
    mean_cosine: float
    residual: float
    overlap_at_10: float
    num_neighbours: int


def agreement(pairs: DataFrame, fitted: LinearMap) -> Agreement:
    """Judge a map on the held-out rows. Cost: one pass, and one over a sample of at most 2,000 users of the last date.

    Raises
    ------
    UsageError
        If no held-out user has a vector in both spaces.
    """
    held_out = pairs.where("is_held_out")

    def judge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            z_old = vectors_of(batch.column("z_old"))
            z_mapped = fitted(vectors_of(batch.column("z_new")).astype(np.float32)).astype(np.float64)
            found = {
                "num_rows": [len(z_old)],
                "cosine": [_cosines(z_mapped, z_old).sum()],
                "missed": [np.square(z_mapped - z_old).sum()],
                "squares": [np.square(z_old).sum()],
                "sums": [z_old.sum(axis=0)],
            }
            yield pa.RecordBatch.from_pydict(found)

    schema = "num_rows BIGINT, cosine DOUBLE, missed DOUBLE, squares DOUBLE, sums ARRAY<DOUBLE>"
    parts = held_out.select("z_new", "z_old").mapInArrow(judge, schema)
    width = len(fitted.bias_D)
    total = parts.agg(
        *(F.sum(name).alias(name) for name in ("num_rows", "cosine", "missed", "squares")),
        F.array(*(F.sum(F.col("sums")[k]) for k in range(width))).alias("sums"),
    ).first()
    if total is None or not total.num_rows:
        raise UsageError("no held-out user has a vector in both spaces: a map needs snapshots of the same users.")
    num_rows = int(total.num_rows)
    variance = total.squares - np.square(np.array(total.sums)).sum() / num_rows
    overlap, num_neighbours = _overlap(held_out, fitted)
    return Agreement(
        num_rows=num_rows,
        mean_cosine=total.cosine / num_rows,
        residual=total.missed / variance,
        overlap_at_10=overlap,
        num_neighbours=num_neighbours,
    )


def _overlap(held_out: DataFrame, fitted: LinearMap) -> tuple[float, int]:
    """Compare the ten nearest neighbours of a sample of users of the last date."""
    last = held_out.agg(F.max("as_of")).first()[0]  # type: ignore[index]
    sample = held_out.where(F.col("as_of") == F.lit(last)).select("z_new", "z_old").limit(_NEIGHBOURS_AMONG).toArrow()
    z_new, z_old = (vectors_of(sample.column(name).combine_chunks()) for name in ("z_new", "z_old"))
    return shared_neighbours(fitted(z_new.astype(np.float32)), z_old), len(z_old)


def shared_neighbours(a_BD: NDArray[Any], b_BD: NDArray[Any]) -> float:
    """Return the share of their ten nearest neighbours that rows have in both, by cosine; 1 for a single row.

    Memory: B x B numbers.
    """
    k = min(10, len(b_BD) - 1)
    if k < 1:
        return 1.0
    shared = [len(np.intersect1d(a, b)) for a, b in zip(_nearest(a_BD, k), _nearest(b_BD, k), strict=True)]
    return float(np.mean(shared)) / k


def _nearest(z_BD: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the places of each row's k nearest others, by cosine."""
    unit_BD = z_BD / np.maximum(np.linalg.norm(z_BD, axis=1, keepdims=True), 1e-12)
    near_BB = unit_BD @ unit_BD.T
    np.fill_diagonal(near_BB, -np.inf)
    return np.argpartition(-near_BB, k - 1, axis=1)[:, :k]


def _cosines(a_BD: NDArray[Any], b_BD: NDArray[Any]) -> NDArray[Any]:
    norms_B = np.linalg.norm(a_BD, axis=1) * np.linalg.norm(b_BD, axis=1)
    return (a_BD * b_BD).sum(axis=1) / np.maximum(norms_B, 1e-12)  # type: ignore[no-any-return]
