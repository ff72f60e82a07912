"""Content vectors: truncated SVD of the hashed tf-idf of an item's text.

The basis is fitted once per lineage and stored as an artifact, so that all versions and new items share it.

Shapes: N items, H hashed features, K numbers in a vector.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import scipy.sparse
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from safetensors.numpy import load, save
from threadpoolctl import threadpool_limits

from userrep.config import TextVectors
from userrep.errors import UsageError, UserrepError
from userrep.items.vectors import rounded
from userrep.store.arrow import combined, listed
from userrep.store.filesystem import exists, read_bytes, write_bytes

NUM_FEATURES = 2**15
_PARTITIONS = 8  # fixed, so that vectors do not depend on session settings
_OVERSAMPLING = 10
_PASSES = 4
_MAX_ITEMS = 500_000  # sample that a basis is fitted on
_MAX_BYTES = 2**30
_TOKENS = pa.schema({"tokens": pa.list_(pa.int32())})


class Basis(NamedTuple):
    """Inverse document frequencies idf_H, and the projection components_HK from tf-idf to K numbers."""

    idf_H: NDArray[np.float32]
    components_HK: NDArray[np.float32]


def text_vectors(items: DataFrame, *, settings: TextVectors, path: str, is_first: bool) -> DataFrame:
    """Return item_index, vector of the items with a text: item_index, text.

    The first version of a lineage fits the basis and writes it to ``path``. Later ones use it.

    Raises UserrepError if there is no basis for a later version.
    """
    tokenized = items.where(F.trim("text") != "").select("item_index", tokens(F.col("text")).alias("tokens"))
    tokenized = tokenized.repartition(_PARTITIONS, "item_index").sortWithinPartitions("item_index")
    if not exists(path):
        if not is_first:
            raise UserrepError(
                f"{path}: the basis of the text vectors is missing, but earlier versions were made with it. Restore "
                "the file from a backup, because vectors of a new basis cannot be compared with those."
            )
        fit_basis(tokenized, settings=settings, path=path)
    return content_vectors(tokenized, path=path)


def tokens(text: Column) -> Column:
    """Hash a text's words and pairs of adjacent words to feature numbers. A text without words is one token."""

    def with_pairs(words: Column) -> Column:
        length = F.size(words) - 1
        pairs = F.zip_with(F.slice(words, 1, length), F.slice(words, 2, length), lambda a, b: F.concat_ws(" ", a, b))
        return F.concat(words, pairs)

    words = F.filter(F.split(F.lower(text), r"[^\p{L}\p{N}]+"), lambda word: word != "")
    # Spark computes a column again at each of its uses, but the argument of a lambda only once.
    steps = F.transform(F.array(words), lambda words: F.when(F.size(words) > 0, words).otherwise(F.array(F.trim(text))))
    both = F.flatten(F.transform(steps, with_pairs))
    return F.transform(both, lambda token: F.pmod(F.xxhash64(token), F.lit(NUM_FEATURES)).cast("int"))


def fit_basis(items: DataFrame, *, settings: TextVectors, path: str) -> None:
    """Fit tf-idf weights and the SVD basis on the items' tokens, and write them to ``path`` (safetensors).

    Parameters
    ----------
    items : one row per item: item_index, tokens array<int>. Above 500,000 items, those with the lowest hashes are used.

    Cost: one pass over the items. One task needs memory for the tokens of the sample and a few 32,768 x (dim + 10)
    matrices.
    """

    def fit(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        counts = token_counts(combined(pa.Table.from_batches(batches, _TOKENS).column("tokens")))
        basis = basis_of(counts, settings)
        yield pa.RecordBatch.from_pydict({"basis": [save(basis._asdict())]})

    sample = items.orderBy(F.xxhash64("item_index")).limit(_MAX_ITEMS).select("tokens")
    row = sample.mapInArrow(fit, "basis BINARY").first()
    if row is None:  # there was no row, so no task ran
        raise UsageError(
            "items.columns.text: no item has a text, so item vectors of kind text cannot be fitted. Fill in texts, or "
            "remove the modality from item_vectors."
        )
    write_bytes(path, bytes(row.basis))


def basis_of(counts_NH: scipy.sparse.csr_matrix, settings: TextVectors) -> Basis:
    """Return the smoothed inverse document frequencies and the leading right singular vectors of the tf-idf rows.

    Randomized SVD (Halko, Martinsson, Tropp 2011) by scikit-learn. With fewer items than ``dim``, the remaining
    components are zeros. The same rows in the same order give the same bits.
    """
    from sklearn.decomposition import TruncatedSVD  # imported only by the task that fits: takes 2 s

    frequency_H = np.bincount(counts_NH.indices, minlength=NUM_FEATURES)
    idf_H = (np.log((1 + counts_NH.shape[0]) / (1 + frequency_H)) + 1).astype(np.float32)
    components_HK = np.zeros((NUM_FEATURES, settings.dim), np.float32)
    if counts_NH.nnz:
        svd = TruncatedSVD(settings.dim, n_iter=_PASSES, n_oversamples=_OVERSAMPLING, random_state=settings.seed)
        with threadpool_limits(1, user_api="blas"):
            fitted_KH = svd.fit(tf_idf(counts_NH, idf_H)).components_
        components_HK[:, : len(fitted_KH)] = fitted_KH.T
    return Basis(idf_H, components_HK)


def content_vectors(items: DataFrame, *, path: str) -> DataFrame:
    """Project items onto a fitted basis. Vectors have norm 1, or 0 if the basis knows none of the item's tokens.

    Parameters
    ----------
    items : item_index, tokens. Returns item_index, vector. Narrow: no shuffle; each worker reads the basis once.
    """

    def project(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        basis = read_basis(path)
        for batch in batches:
            vectors = tf_idf(token_counts(batch.column("tokens")), basis.idf_H) @ basis.components_HK
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            unit = listed(rounded(vectors / np.where(norms > 1e-4, norms, np.inf)))
            yield pa.RecordBatch.from_arrays([batch.column("item_index"), unit], ["item_index", "vector"])

    return items.select("item_index", "tokens").mapInArrow(project, "item_index INT, vector ARRAY<FLOAT>")


def token_counts(column: pa.ListArray) -> scipy.sparse.csr_matrix:
    """Count the tokens of each list: one row per list, one column per hashed feature."""
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = column.flatten().to_numpy().copy()
    counts_NH = scipy.sparse.csr_matrix((np.ones(len(tokens)), tokens, offsets), shape=(len(column), NUM_FEATURES))
    counts_NH.sum_duplicates()
    return counts_NH


def tf_idf(counts_NH: scipy.sparse.csr_matrix, idf_H: NDArray[np.float32]) -> scipy.sparse.csr_matrix:
    """Return tf-idf rows of norm 1: (1 + log count) x idf."""
    weights_NH = counts_NH.copy()
    weights_NH.data = (1 + np.log(counts_NH.data)) * idf_H[counts_NH.indices]
    norms = np.sqrt(np.asarray(weights_NH.multiply(weights_NH).sum(axis=1)).ravel())
    return scipy.sparse.diags_array(1 / np.where(norms > 0, norms, 1)) @ weights_NH


@lru_cache(maxsize=8)
def read_basis(path: str) -> Basis:
    """Read a basis; cached per worker."""
    return Basis(**load(read_bytes(path, max_bytes=_MAX_BYTES)))
