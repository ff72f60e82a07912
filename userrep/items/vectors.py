"""What all item vectors have in common: exact rounding, and the rotation of one version onto the one before."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.arrow import listed, stacked

VECTOR_UNIT = 2**16  # components are multiples of 2^-16: sums of weight x vector are exact in float64


def rounded(vector: Column) -> Column:
    """Round a vector column to multiples of 2^-16, as array<float>."""
    return F.transform(vector.cast("array<double>"), lambda x: (F.rint(x * VECTOR_UNIT) / VECTOR_UNIT).cast("float"))


def rotation_onto(vectors: DataFrame, before: DataFrame, *, dim: int) -> NDArray[np.float64]:
    """Return the orthogonal matrix that best turns ``vectors`` onto ``before`` (Procrustes; Schönemann 1966).

    Both have item_index and vector; items in only one of them don't count. The identity where none is in both.
    Cost: one join by item; the driver gets one dim x dim matrix per partition.
    """
    pairs = vectors.join(before.select("item_index", F.col("vector").alias("before")), on="item_index", how="inner")

    def products(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total = np.zeros((dim, dim))
        for batch in batches:
            total += _wide(batch, "vector", dim).T @ _wide(batch, "before", dim)
        yield pa.RecordBatch.from_pydict({"product": [total.ravel()]})

    parts = pairs.select("vector", "before").mapInArrow(products, "product ARRAY<DOUBLE>").collect()
    product = sum((np.asarray(part.product).reshape(dim, dim) for part in parts), np.zeros((dim, dim)))
    left, _, right = np.linalg.svd(product)
    return np.asarray(left @ right) if np.any(product) else np.eye(dim)


def rotated(vectors: DataFrame, rotation: NDArray[np.float64]) -> DataFrame:
    """Apply a rotation to item_index, vector."""
    return _mapped(vectors, lambda vector_BD: vector_BD @ rotation, dim=len(rotation))


def directions(vectors: DataFrame, *, dim: int) -> DataFrame:
    """Give each vector of item_index, vector the length 1; zeros stay."""

    def of(vector_BD: NDArray[np.float64]) -> NDArray[np.float64]:
        length_B = np.linalg.norm(vector_BD, axis=1, keepdims=True)
        return vector_BD / np.where(length_B > 0, length_B, 1)

    return _mapped(vectors, of, dim=dim)


def _mapped(
    vectors: DataFrame, function: Callable[[NDArray[np.float64]], NDArray[np.float64]], *, dim: int
) -> DataFrame:
    def mapped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            vector_BD = function(_wide(batch, "vector", dim)).astype(np.float32)
            yield pa.RecordBatch.from_arrays([batch.column("item_index"), listed(vector_BD)], ["item_index", "vector"])

    return vectors.select("item_index", "vector").mapInArrow(mapped, "item_index INT, vector ARRAY<FLOAT>")


def _wide(batch: pa.RecordBatch, column: str, dim: int) -> NDArray[np.float64]:
    return stacked(batch.column(column), dim).astype(np.float64)
