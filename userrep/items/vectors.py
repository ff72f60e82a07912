"""What all item vectors have in common: exact rounding, directions, and the rotation onto another version."""

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column
from pyspark.sql import functions as F

VECTOR_UNIT = 2**16  # components are multiples of 2^-16: sums of weight x vector are exact in float64


def rounded(vector: Column) -> Column:
    """Round a vector column to multiples of 2^-16, as array<float>."""
    return F.transform(vector.cast("array<double>"), lambda x: (F.rint(x * VECTOR_UNIT) / VECTOR_UNIT).cast("float"))


def aligned_directions(factors_ID: NDArray[np.float32], before_ID: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the factors at length 1, in the orthogonal rotation that is closest to ``before_ID``.

    The rotation is the solution of the orthogonal Procrustes problem (Schönemann 1966). Zeros in ``before_ID`` mark
    items that the other version lacks; they do not count. Without any item in both, factors keep their axes. A factor
    of zeros stays.
    """
    length_I = np.linalg.norm(factors_ID.astype(np.float64), axis=1, keepdims=True)
    unit_ID = factors_ID / np.where(length_I > 0, length_I, 1)
    if not before_ID.any():
        return unit_ID.astype(np.float32)
    left, _, right = np.linalg.svd(unit_ID.T @ before_ID.astype(np.float64))
    return (unit_ID @ (left @ right)).astype(np.float32)  # type: ignore[no-any-return]
