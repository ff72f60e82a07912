"""Item codes of a chunk: codes into distinct items, and their rows in the item matrix."""

import pyarrow as pa
import pytest

from tests.unit.features.test_features import ITEM_IDS
from userrep.features.sums.chunk import ItemCodes
from userrep.features.sums.item_matrix import ItemMatrix

pytestmark = pytest.mark.fast


def test_rows_find_their_item_in_the_matrix_and_minus_one_where_it_is_missing() -> None:
    matrix = ItemMatrix.empty(ITEM_IDS[:3], 1)
    items = ItemCodes.of([pa.array(["i2", "none"]), pa.array([], pa.string()), pa.array(["i2", "i0"])])
    rows = items.rows_in(matrix)
    assert len(items.distinct) == 3
    assert rows[1] == -1
    assert matrix.item_ids.take(pa.array(rows[[0, 2, 3]])).to_pylist() == ["i2", "i2", "i0"]
