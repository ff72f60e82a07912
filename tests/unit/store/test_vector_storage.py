"""Storage types of vectors: error bounds, ties, limits, the form in exports, and which files get dictionaries."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from userrep.store.arrow import listed
from userrep.store.vector_storage import SCALES, STORAGE, VectorStorage, int8_scales, own_metadata, rounded_vectors

pytestmark = pytest.mark.fast

INT8 = VectorStorage.of("int8", [0.5, 0.0625])
HALF, WHOLE = VectorStorage("float16"), VectorStorage("float32")


def vectors(rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_float32_is_unchanged_and_not_copied() -> None:
    z_ND = vectors([[1 / 3, -2e38]])
    assert WHOLE.rounded(z_ND) is z_ND
    assert (WHOLE.num_at_limit(z_ND), WHOLE.column_types) == (0, {})
    rows = pa.table({"embedding": listed(z_ND)})
    assert WHOLE.in_table(rows) == (rows, 0)


def test_float16_is_off_by_at_most_half_a_unit_in_the_last_place() -> None:
    random = np.random.default_rng(0)
    z_ND = (random.standard_normal((500, 40)) * 10.0 ** random.uniform(-4, 4, (500, 40))).astype(np.float32)
    rounded_ND = HALF.rounded(z_ND)
    # 11 significant bits: 2^(e-10) is the unit of numbers from 2^e on; below 2^-14, it stays 2^-24.
    unit_ND = 2.0 ** np.maximum(np.floor(np.log2(np.abs(z_ND))) - 10, -24)
    assert rounded_ND.dtype == np.float32
    assert (np.abs(rounded_ND - z_ND) <= unit_ND / 2).all()
    assert np.array_equal(HALF.rounded(rounded_ND), rounded_ND)


def test_int8_is_off_by_at_most_half_a_scale_of_the_dimension() -> None:
    z_ND = np.random.default_rng(0).uniform(-1, 1, (1000, 2)).astype(np.float32) * vectors([[63.5, 7.9375]])
    rounded_ND = INT8.rounded(z_ND)
    assert (np.abs(rounded_ND - z_ND) <= vectors([[0.25, 0.03125]])).all()
    assert np.array_equal(rounded_ND / vectors([[0.5, 0.0625]]), np.rint(rounded_ND / vectors([[0.5, 0.0625]])))
    assert np.array_equal(INT8.rounded(rounded_ND), rounded_ND)


def test_ties_go_to_the_even_number_and_zero_has_no_sign() -> None:
    ties_ND = vectors([[0.25, 0.75 * 0.125], [0.75, -0.75 * 0.125], [-0.25, 0.03125]])  # 0.5, 1.5 and 2.5 steps
    assert INT8.rounded(ties_ND).tolist() == [[0.0, 0.125], [1.0, -0.125], [0.0, 0.0]]
    assert not np.signbit(INT8.rounded(ties_ND)[2]).any()
    assert HALF.rounded(vectors([[2049.0, 2051.0]])).tolist() == [[2048.0, 2052.0]]  # the unit is 2 from 2048 on


def test_numbers_beyond_the_limit_are_clipped_and_counted_and_nan_stays() -> None:
    z_ND = vectors([[63.5, -8.0], [1e9, 1.0], [np.nan, 7.9375]])
    rounded_ND = INT8.rounded(z_ND)
    assert np.array_equal(rounded_ND, vectors([[63.5, -7.9375], [63.5, 1.0], [np.nan, 7.9375]]), equal_nan=True)
    assert INT8.num_at_limit(rounded_ND) == 4
    halves_ND = HALF.rounded(vectors([[1e6, -np.inf, 3.0, np.nan]]))
    assert np.array_equal(halves_ND, vectors([[65504.0, -65504.0, 3.0, np.nan]]), equal_nan=True)
    assert HALF.num_at_limit(halves_ND) == 2


def test_scales_are_the_smallest_powers_of_two_that_cover_all_but_a_thousandth() -> None:
    random = np.random.default_rng(0)
    z_ND = (random.standard_normal((10_000, 5)) * [1e-12, 0.01, 1.0, 40.0, 1e7]).astype(np.float32)
    scale_D = np.array(int8_scales(z_ND))
    assert np.array_equal(np.frexp(scale_D)[0], np.full(5, 0.5))  # powers of two
    assert (scale_D[0], scale_D[4]) == (2.0**-24, 2.0**8)  # the bounds that keep int8 within float16
    shares = (np.abs(z_ND) > 127 * scale_D).mean(axis=0), (np.abs(z_ND) > 127 * scale_D / 2).mean(axis=0)
    assert (shares[0][1:4] <= 0.001).all()
    assert (shares[1][1:4] > 0.001).all()
    every = VectorStorage.of("int8", scale_D.tolist()).rounded(z_ND)
    assert np.array_equal(every, every.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("storage", "kind", "numbers"),
    [
        (HALF, pa.float16(), [[0.300048828125, 0.5], None, [-99.0, 0.0999755859375]]),
        (INT8, pa.int8(), [[1, 8], None, [-127, 2]]),
    ],
    ids=["float16", "int8"],
)
def test_an_exported_column_has_the_type_and_the_nulls(
    storage: VectorStorage, kind: pa.DataType, numbers: list[list[float] | None]
) -> None:
    column = pa.array([[9.0, 9.0], [0.3, 0.5], None, [-99.0, 0.1]], pa.list_(pa.float32())).slice(1)
    rows = pa.table({"embedding": column})
    exported = storage.in_table(rows)[0]["embedding"]
    assert exported.type.value_type == kind
    assert exported.to_pylist() == numbers
    assert storage.in_table(rows.slice(0, 0))[0]["embedding"].type == exported.type
    assert storage.in_table(rows.slice(1, 1))[0]["embedding"].to_pylist() == [None]


def test_the_metadata_of_a_column_describes_how_to_decode_it() -> None:
    z_ND = vectors([[1.0, 0.5], [-63.5, 0.0]])
    rows, num_at_limit = INT8.in_table(pa.table({"user_id": ["a", "b"], "embedding": listed(z_ND)}))
    metadata = own_metadata(rows.schema.field("embedding"))
    assert metadata == {STORAGE.encode(): b"int8", SCALES.encode(): b"[0.5, 0.0625]"}
    steps_ND = np.stack(rows["embedding"].to_numpy())
    assert np.array_equal(steps_ND * np.array(json.loads(metadata[SCALES.encode()]), np.float32), z_ND)
    assert num_at_limit == 1


def test_only_rounded_vectors_get_a_dictionary() -> None:
    z_ND = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    table = pa.table({"x": listed(z_ND), "y": listed(HALF.rounded(z_ND)), "z": ["a"] * 300})
    assert rounded_vectors(table) == ["y.list.element"]
    assert rounded_vectors(table.slice(0, 0)) == []
    with_null = table.set_column(1, "y", pc.if_else(pa.array([False] + [True] * 299), table["y"], None))
    assert rounded_vectors(with_null) == ["y.list.element"]
