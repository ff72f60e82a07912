"""Steps shared by all item vectors: exact rounding, unit norm, and the rotation onto another version."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from userrep.store.arrow import combined, listed, stacked

VECTOR_UNIT = 2**16  # components are multiples of 2^-16, so sums of weight x vector are exact in float64


def rounded(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round components to multiples of 2^-16."""
    return (np.rint(vectors * VECTOR_UNIT) / VECTOR_UNIT).astype(np.float32)


def given_vectors(items: DataFrame, *, dim: int) -> DataFrame:
    """Read the owner's vectors: item_index, vector as array<double> in, as rounded array<float> out.

    Items are dropped if their vector has another width, or a component that is null or not finite. Narrow: no shuffle.
    """

    def valid(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            matching = batch.filter(pc.equal(pc.list_value_length(batch.column("vector")), dim))
            values = matching.column("vector").flatten().to_numpy(zero_copy_only=False)
            vectors = rounded(values.astype(np.float64).reshape(matching.num_rows, dim))  # nulls are NaN
            is_finite = np.isfinite(vectors).all(axis=1)  # in float32, as stored
            columns = [matching.column("item_index").filter(pa.array(is_finite)), listed(vectors[is_finite])]
            yield pa.RecordBatch.from_arrays(columns, ["item_index", "vector"])

    return items.select("item_index", "vector").mapInArrow(valid, "item_index INT, vector ARRAY<FLOAT>")


def aligned_directions(factors_ID: NDArray[np.float32], before_ID: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the factors with norm 1, in the orthogonal rotation closest to ``before_ID``, rounded.

    The rotation solves the orthogonal Procrustes problem (Schönemann 1966). Zeros in ``before_ID`` mark items that the
    other version lacks; these are ignored. If the versions have no item in common, the factors are not rotated. Factors
    of zeros stay zero.
    """
    norm_I = np.linalg.norm(factors_ID.astype(np.float64), axis=1, keepdims=True)
    unit_ID = factors_ID / np.where(norm_I > 0, norm_I, 1)
    if not before_ID.any():
        return rounded(unit_ID)
    left, _, right = np.linalg.svd(unit_ID.T @ before_ID.astype(np.float64))
    return rounded(unit_ID @ (left @ right))


def slices_of(dims: Mapping[str, int]) -> dict[str, slice]:
    """Return where each modality lies in vectors that have all modalities side by side. ``dims``: their widths."""
    ends = np.cumsum(list(dims.values())).tolist()
    return {modality: slice(end - dim, end) for (modality, dim), end in zip(dims.items(), ends, strict=True)}


def side_by_side(
    rows: pa.Table, index_N: NDArray[np.int64], num_items: int, dims: Mapping[str, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Concatenate the vectors of all modalities per item, and return which modalities each item has.

    Parameters
    ----------
    rows : modality, vector. index_N : the item of each row. dims : the modalities in order, with their widths.

    Returns
    -------
    vector_IE, zeros where an item lacks a modality, and has_IM.
    """
    vector_IE = np.zeros((num_items, sum(dims.values())), np.float32)
    has_IM = np.zeros((num_items, len(dims)), bool)
    for m, (modality, part) in enumerate(slices_of(dims).items()):
        is_modality = pc.equal(rows.column("modality"), modality)
        items, vectors = index_N[is_modality.to_numpy()], rows.column("vector").filter(is_modality)
        vector_IE[items, part] = stacked(combined(vectors), dims[modality])
        has_IM[items, m] = True
    return vector_IE, has_IM
