"""Content vectors: hashed tf-idf of an item's text, and its truncated SVD in Arrow passes.

The basis is fitted once per lineage and kept as an artifact, so that every version and every new item uses the same.
Method: randomised subspace iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4).
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa
import scipy.sparse
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from safetensors.numpy import load, save

from userrep.arrow import listed
from userrep.config import TextVectors
from userrep.storage import delete_file, read_bytes, write_bytes

NUM_FEATURES = 2**15
_OVERSAMPLING = 10
_PASSES = 4
_MAX_BYTES = 2**30


class Basis(NamedTuple):
    """H hashed features: idf_H, and components_HK that turn tf-idf into K numbers."""

    idf_H: NDArray[np.float32]
    components_HK: NDArray[np.float32]


def tokens(text: Column) -> Column:
    """Hash a text's words and pairs of neighbouring words into feature numbers; a text without words is one token."""
    words = F.filter(F.split(F.lower(text), r"[^\p{L}\p{N}]+"), lambda word: word != "")
    words = F.when(F.size(words) > 0, words).otherwise(F.array(F.trim(text)))
    pairs = F.transform(
        F.sequence(F.lit(1), F.greatest(F.size(words) - 1, F.lit(1))),
        lambda k: F.concat_ws(" ", F.element_at(words, k), F.try_element_at(words, k + 1)),
    )
    both = F.when(F.size(words) > 1, F.concat(words, pairs)).otherwise(words)
    return F.transform(both, lambda token: F.pmod(F.xxhash64(token), F.lit(NUM_FEATURES)).cast("int"))


def fit_basis(items: DataFrame, *, settings: TextVectors, path: str) -> None:
    """Fit tf-idf weights and the SVD's basis on the items' tokens, and write them to ``path`` (safetensors).

    Parameters
    ----------
    items : one row per item: tokens array<int>.

    Cost: one pass over the items, whose tokens are cached, and five over the cache; each task and the driver hold a few
    32,768 x (dim + 10) matrices.
    """
    width = settings.dim + _OVERSAMPLING
    q_HL = np.linalg.qr(np.random.default_rng(settings.seed).standard_normal((NUM_FEATURES, width)))[0]
    z_HL = q_HL
    cached = items.select("tokens").cache()
    try:
        idf_H = _idf(cached)
        for _ in range(_PASSES):
            scratch = f"{path}.{uuid4().hex}"
            write_basis(scratch, Basis(idf_H, q_HL.astype(np.float32)))
            z_HL = _gram_product(cached, scratch, width)
            delete_file(scratch)
            q_HL = np.linalg.qr(z_HL)[0]
    finally:
        cached.unpersist()
    # The last Z = AᵀA Q spans the leading right singular vectors of A; the small SVD puts them in order.
    left, _, _ = np.linalg.svd(z_HL, full_matrices=False)
    write_basis(path, Basis(idf_H, left[:, : settings.dim].astype(np.float32)))


def content_vectors(items: DataFrame, *, path: str) -> DataFrame:
    """Project items onto a fitted basis; vectors have norm 1 (0 where the basis knows none of the tokens).

    Parameters
    ----------
    items : item_index, tokens. Returns item_index, vector. Narrow: no shuffle; each worker reads the basis once.
    """

    def project(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        basis = read_basis(path)
        for batch in batches:
            vectors = tf_idf(batch.column("tokens"), basis.idf_H) @ basis.components_HK
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            unit = (vectors / np.where(norms > 1e-4, norms, np.inf)).astype(np.float32)
            yield pa.RecordBatch.from_arrays([batch.column("item_index"), listed(unit)], ["item_index", "vector"])

    return items.select("item_index", "tokens").mapInArrow(project, "item_index INT, vector ARRAY<FLOAT>")


def tf_idf(column: pa.ListArray, idf_H: NDArray[np.float32]) -> scipy.sparse.csr_matrix:
    """Turn token lists into rows of norm 1: term frequency x idf."""
    counts = scipy.sparse.csr_matrix(
        (np.ones(len(column.flatten())), column.flatten().to_numpy().copy(), _offsets(column)),
        shape=(len(column), len(idf_H)),
    )
    counts.sum_duplicates()
    counts.data = (1 + np.log(counts.data)) * idf_H[counts.indices]
    norms = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    return scipy.sparse.diags_array(1 / np.where(norms > 0, norms, 1)) @ counts


def write_basis(path: str, basis: Basis) -> None:
    """Write a basis as safetensors, whole or not at all."""
    write_bytes(path, save(basis._asdict()))


@lru_cache(maxsize=8)
def read_basis(path: str) -> Basis:
    """Read a basis, once per worker."""
    return Basis(**load(read_bytes(path, max_bytes=_MAX_BYTES)))


def _idf(items: DataFrame) -> NDArray[np.float32]:
    """Smoothed inverse document frequency of each hashed feature; at most 32,768 counts reach the driver."""
    counts = items.select(F.explode(F.array_distinct("tokens")).alias("feature")).groupBy("feature").count().collect()
    frequency = np.zeros(NUM_FEATURES)
    frequency[[row.feature for row in counts]] = [row["count"] for row in counts]
    return (np.log((1 + items.count()) / (1 + frequency)) + 1).astype(np.float32)


def _gram_product(items: DataFrame, path: str, width: int) -> NDArray[np.float64]:
    """Return AᵀA Q, summed over partitions."""

    def products(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        basis = read_basis(path)
        total = np.zeros((NUM_FEATURES, width))
        for batch in batches:
            rows = tf_idf(batch.column("tokens"), basis.idf_H)
            total += rows.T @ (rows @ basis.components_HK)
        yield pa.RecordBatch.from_pydict({"product": [total.tobytes()]})

    parts = items.mapInArrow(products, "product BINARY").collect()
    total = np.zeros((NUM_FEATURES, width))
    for part in parts:
        total += np.frombuffer(part.product).reshape(NUM_FEATURES, width)
    return total


def _offsets(column: pa.ListArray) -> NDArray[np.int64]:
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths)])
