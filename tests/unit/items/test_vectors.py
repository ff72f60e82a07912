"""Directions of factors, rotated onto those of another version."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from userrep.items.vectors import aligned_directions, given_vectors, rounded, side_by_side

pytestmark = pytest.mark.fast


Batches = Iterable[pa.RecordBatch]


@dataclass
class Frame:
    """Arrow batches instead of a data frame: selects columns and maps batches as Spark does in one task."""

    batches: list[pa.RecordBatch]

    def select(self, *names: str) -> "Frame":
        return Frame([batch.select(list(names)) for batch in self.batches])

    def mapInArrow(self, function: Callable[[Batches], Iterator[pa.RecordBatch]], schema: str) -> "Frame":
        names = [column.split()[0] for column in schema.split(", ")]
        mapped = list(function(iter(self.batches)))
        assert all(batch.schema.names == names for batch in mapped)
        return Frame(mapped)


def unit(x_ID: NDArray[Any]) -> NDArray[Any]:
    return x_ID / np.linalg.norm(x_ID, axis=1, keepdims=True)


def test_components_are_rounded_to_multiples_of_a_65536th() -> None:
    values = np.random.default_rng(3).normal(size=(5, 10)) * 10
    found = rounded(values)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.rint(values * 2**16) / 2**16)


def test_given_vectors_of_another_width_or_with_a_component_that_is_no_number_are_left_out() -> None:
    vectors = [[0.1, -1.0], [1.0], None, [1.0, None], [float("nan"), 1.0], [1.0, float("inf")], [], [2.0, 3.0]]
    items = {"item_index": pa.array(range(8), pa.int32()), "vector": pa.array(vectors, pa.list_(pa.float64()))}
    whole = pa.RecordBatch.from_pydict(items)
    frame = cast(DataFrame, Frame([whole.slice(0, 3), whole.slice(3), whole.slice(8)]))
    rows = [row for batch in cast(Frame, given_vectors(frame, dim=2)).batches for row in batch.to_pylist()]
    assert rows == [
        {"item_index": 0, "vector": [round(0.1 * 2**16) / 2**16, -1.0]},
        {"item_index": 7, "vector": [2, 3]},
    ]


def test_a_given_component_that_only_float64_can_hold_is_not_stored_as_infinity() -> None:
    vectors = pa.array([[1e39, 0.0], [1.0, 0.0]], pa.list_(pa.float64()))
    batch = pa.RecordBatch.from_pydict({"item_index": pa.array([0, 1], pa.int32()), "vector": vectors})
    with np.errstate(over="ignore"):
        (found,) = cast(Frame, given_vectors(cast(DataFrame, Frame([batch])), dim=2)).batches
    assert found["item_index"].to_pylist() == [1]


def test_directions_have_length_1_and_zeros_stay() -> None:
    factors = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
    factors[2] = 0
    found = aligned_directions(factors, np.zeros_like(factors))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found * np.linalg.norm(factors, axis=1, keepdims=True), factors, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0, 1, 1, 1], atol=1e-4)


def test_the_rotation_is_found_from_the_items_in_both_versions() -> None:
    rng = np.random.default_rng(4)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    before = rng.normal(size=(60, 5)).astype(np.float32)
    now = (before * rng.uniform(0.5, 2, (60, 1)) @ rotation.T).astype(np.float32)
    now[40:50] = rng.normal(size=(10, 5))  # new items
    seen = unit(before)
    seen[40:50] = 0
    now[50:] = 0  # items that have no event any more
    found = aligned_directions(now, seen.astype(np.float32))
    np.testing.assert_allclose(found[:40], unit(before)[:40], atol=1e-4)
    np.testing.assert_allclose(found[40:50], unit(now[40:50]) @ rotation, atol=1e-4)


def test_without_an_item_in_both_versions_nothing_is_rotated() -> None:
    factors, before = np.zeros((2, 4, 3), np.float32)
    factors[:2], before[2:] = np.eye(3)[:2], np.eye(3)[1:]
    np.testing.assert_array_equal(aligned_directions(factors, before), factors)


def test_vectors_of_modalities_are_next_to_each_other_and_zeros_mark_what_is_missing() -> None:
    rows = pa.table(
        {"modality": ["b", "a", "b"], "vector": pa.array([[1.0], [2.0, 3.0], [4.0]], pa.list_(pa.float32()))}
    )
    vector_IE, has_IM = side_by_side(rows, np.array([2, 0, 0]), 3, {"a": 2, "b": 1})
    assert vector_IE.tolist() == [[2, 3, 4], [0, 0, 0], [0, 0, 1]]
    assert has_IM.tolist() == [[True, True], [False, False], [False, True]]
