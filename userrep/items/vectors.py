"""What all item vectors have in common: exact rounding, and the rotation of one version onto the one before."""

from collections.abc import Iterable, Iterator

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


def rotated(vectors: DataFrame, rotation: NDArray[np.float64], scale: float) -> DataFrame:
    """Apply a rotation and a scale to item_index, vector."""

    def turn(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            turned = _wide(batch, "vector", len(rotation)) @ rotation * scale
            yield pa.RecordBatch.from_arrays(
                [batch.column("item_index"), listed(turned.astype(np.float32))], ["item_index", "vector"]
            )

    return vectors.select("item_index", "vector").mapInArrow(turn, "item_index INT, vector ARRAY<FLOAT>")


def _wide(batch: pa.RecordBatch, column: str, dim: int) -> NDArray[np.float64]:
    return stacked(batch.column(column), dim).astype(np.float64)
