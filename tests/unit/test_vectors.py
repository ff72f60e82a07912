"""What workers do with batches of item vectors: directions of length 1, and rotations, row by row."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from userrep.arrow import stacked
from userrep.items.vectors import directions, rotated

pytestmark = pytest.mark.fast

Batches = Iterable[pa.RecordBatch]


@dataclass
class Frame:
    """Arrow batches in the place of a data frame: selects columns and maps batches as Spark does in one task."""

    batches: list[pa.RecordBatch]

    def select(self, *names: str) -> "Frame":
        return Frame([batch.select(list(names)) for batch in self.batches])

    def mapInArrow(self, function: Callable[[Batches], Iterator[pa.RecordBatch]], schema: str) -> "Frame":
        names = [column.split()[0] for column in schema.split(", ")]
        mapped = list(function(iter(self.batches)))
        assert all(batch.schema.names == names for batch in mapped)
        return Frame(mapped)

    def collect(self) -> list[Any]:
        return [SimpleNamespace(**row) for batch in self.batches for row in batch.to_pylist()]


def frame_of(vectors: NDArray[Any], *, cut: int, first: int = 0) -> DataFrame:
    """Bring vectors into two batches; the second is a slice of a longer one."""
    whole = pa.RecordBatch.from_pydict({
        "other": ["x"] * len(vectors), "item_index": pa.array(range(first, first + len(vectors)), pa.int32()),
        "vector": pa.array(vectors.tolist(), pa.list_(pa.float32())),
    })  # fmt: skip
    return cast(DataFrame, Frame([whole.slice(0, cut), whole.slice(cut)]))


def matrix_of(frame: DataFrame) -> NDArray[np.float32]:
    """Return the vectors, which come in the order of their items."""
    batches = cast(Frame, frame).batches
    assert np.concatenate([batch.column("item_index") for batch in batches]).tolist() == list(range(7, 13))
    width = len(batches[0].column("vector")[0])
    return np.concatenate([stacked(batch.column("vector"), width) for batch in batches])


def test_a_direction_has_length_1_and_zeros_have_none() -> None:
    vectors = np.random.default_rng(5).normal(size=(6, 3))
    vectors[2] = 0
    found = matrix_of(directions(frame_of(vectors, cut=4, first=7), dim=3))
    np.testing.assert_allclose(found * np.linalg.norm(vectors, axis=1, keepdims=True), vectors, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0, 1, 1, 1], atol=1e-6)


def test_a_rotation_is_applied_from_the_right() -> None:
    vectors = np.random.default_rng(6).normal(size=(6, 3))
    quarter_turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = matrix_of(rotated(frame_of(vectors, cut=1, first=7), quarter_turn))
    np.testing.assert_allclose(found, np.stack([-vectors[:, 1], vectors[:, 0], vectors[:, 2]], axis=1), rtol=1e-6)


def test_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="6 vectors of width 4 were expected, got one of 3 numbers"):
        directions(frame_of(np.ones((6, 3)), cut=6), dim=4)
