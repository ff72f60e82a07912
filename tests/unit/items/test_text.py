"""Content vectors in Arrow batches: tf-idf as scikit-learn has it, and directions in a fitted basis."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from safetensors.numpy import save
from sklearn.feature_extraction.text import TfidfTransformer

from tests.unit.items.test_vectors import Frame
from userrep.config import TextVectors
from userrep.items.text import NUM_FEATURES, Basis, basis_of, content_vectors, read_basis, tf_idf, token_counts
from userrep.store.arrow import stacked
from userrep.store.filesystem import write_bytes

pytestmark = pytest.mark.fast

DOCUMENTS = [[3, 5, 3, 3], [5], [], [9, 3, 9, 12], [12, 12, 5, 7]]


def tokens_of(documents: list[list[int]]) -> pa.ListArray:
    return pa.array(documents, pa.list_(pa.int32()))


def frame_of(documents: list[list[int]], *, cut: int) -> DataFrame:
    """Bring documents into two batches; the second is a slice of a longer one."""
    columns: dict[str, Any] = {
        "item_index": pa.array(range(len(documents)), pa.int32()),
        "tokens": tokens_of(documents),
    }
    whole = pa.RecordBatch.from_pydict(columns)
    return cast(DataFrame, Frame([whole.slice(0, cut), whole.slice(cut)]))


def expected_tf_idf(documents: list[list[int]], idf: NDArray[Any]) -> NDArray[np.float64]:
    """Compute rows of norm 1 with scikit-learn, given the weights of the features."""
    counts = np.zeros((len(documents), len(idf)))
    for row, document in enumerate(documents):
        np.add.at(counts[row], document, 1)
    transformer = TfidfTransformer(sublinear_tf=True).fit(counts)
    transformer.idf_ = idf.astype(np.float64)
    rows: NDArray[np.float64] = transformer.transform(counts).toarray()
    return rows


def random_basis(width: int, seed: int = 0) -> Basis:
    random = np.random.default_rng(seed)
    idf_H = random.uniform(1, 5, NUM_FEATURES).astype(np.float32)
    return Basis(idf_H, random.normal(size=(NUM_FEATURES, width)).astype(np.float32))


def write_basis(folder: Path, basis: Basis) -> str:
    path = str(folder / "basis.safetensors")
    write_bytes(path, save(basis._asdict()))
    return path


@pytest.mark.parametrize("cut", [0, 2])
def test_tf_idf_is_that_of_scikit_learn(cut: int) -> None:
    idf = np.random.default_rng(1).uniform(1, 5, NUM_FEATURES).astype(np.float32)
    found = tf_idf(token_counts(tokens_of(DOCUMENTS)[cut:]), idf).toarray()
    np.testing.assert_allclose(found, expected_tf_idf(DOCUMENTS, idf)[cut:], rtol=1e-6)


def test_a_content_vector_is_the_direction_of_tf_idf_in_the_basis(tmp_path: Path) -> None:
    basis = random_basis(4)
    path = write_basis(tmp_path, basis)
    found = cast(Frame, content_vectors(frame_of(DOCUMENTS, cut=2), path=path))
    vectors = np.concatenate([stacked(batch.column("vector"), 4) for batch in found.batches])
    projected = expected_tf_idf(DOCUMENTS, basis.idf_H) @ basis.components_HK
    norms = np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, projected / np.where(norms > 0, norms, 1), rtol=1e-4, atol=1e-5)
    assert not vectors[2].any(), "it has no token"
    assert np.concatenate([batch.column("item_index") for batch in found.batches]).tolist() == [0, 1, 2, 3, 4]


def test_a_title_that_the_basis_hardly_knows_has_no_direction(tmp_path: Path) -> None:
    idf_H, components_HK = np.ones(NUM_FEATURES, np.float32), np.zeros((NUM_FEATURES, 2), np.float32)
    components_HK[3], components_HK[5] = [9e-5, 0], [0, -2e-4]
    path = write_basis(tmp_path, Basis(idf_H, components_HK))
    (first, second) = cast(Frame, content_vectors(frame_of([[3], [5]], cut=1), path=path)).batches
    assert [stacked(batch.column("vector"), 2).tolist() for batch in (first, second)] == [[[0, 0]], [[0, -1]]]


def test_a_basis_has_the_weights_and_leading_directions_of_scikit_learn() -> None:
    random = np.random.default_rng(4)
    documents = [list(map(int, random.integers(0, 40, size=12))) for _ in range(60)]
    settings = TextVectors(kind="text", dim=5)
    basis = basis_of(token_counts(tokens_of(documents)), settings)
    dense = np.zeros((60, NUM_FEATURES))
    for row, document in enumerate(documents):
        np.add.at(dense[row], document, 1)
    seen = dense.any(axis=0)
    np.testing.assert_allclose(basis.idf_H[seen], TfidfTransformer().fit(dense[:, seen]).idf_, rtol=1e-6)
    rows = expected_tf_idf(documents, basis.idf_H)[:, seen]
    strengths = np.linalg.svd(rows, compute_uv=False)
    found = basis.components_HK[seen]
    np.testing.assert_allclose(found.T @ found, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows @ found, axis=0), strengths[:5], rtol=0.02)
    assert not basis.components_HK[~seen].any()
    assert basis_of(token_counts(tokens_of(documents)), settings).components_HK.tobytes() == (
        basis.components_HK.tobytes()
    )


@pytest.mark.parametrize("documents", [[], [[]], [[3, 5], [3]]], ids=["no items", "no tokens", "two items"])
def test_directions_that_the_items_do_not_have_are_zeros(documents: list[list[int]]) -> None:
    basis = basis_of(token_counts(tokens_of(documents)), TextVectors(kind="text", dim=5))
    assert basis.components_HK.shape == (NUM_FEATURES, 5)
    assert np.isfinite(basis.idf_H).all()
    assert basis.components_HK.any(axis=0).sum() == (2 if len(documents) == 2 else 0)


def test_a_basis_comes_back_as_it_was_written(tmp_path: Path) -> None:
    basis = random_basis(2, seed=3)
    path = write_basis(tmp_path, basis)
    found = read_basis(path)
    np.testing.assert_array_equal(found.idf_H, basis.idf_H)
    np.testing.assert_array_equal(found.components_HK, basis.components_HK)
