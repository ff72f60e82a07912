"""Rows of ledgers read without Spark look like Spark's."""

import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from pyspark.sql import Row

from userrep.store.rows import LedgerRow

pytestmark = pytest.mark.fast

RECORD = {"user_id": "u", "count": 3, "maps": {"a": "b"}, "as_of": None}


def made_by_spark(record: Mapping[str, Any]) -> Row:
    return Row(**record)


@pytest.mark.parametrize("make", [made_by_spark, LedgerRow])
def test_a_row_has_its_columns_as_attributes_keys_and_positions(make: Any) -> None:
    row = make(RECORD)
    assert (row.user_id, row["count"], row[2], row.as_of) == ("u", 3, {"a": "b"}, None)
    assert row.asDict() == RECORD
    assert list(row) == list(RECORD.values())
    assert list(row.__fields__) == list(RECORD)
    assert pickle.loads(pickle.dumps(row)) == row
    with pytest.raises(AttributeError):
        _ = row.unknown


def test_rows_of_both_kinds_are_equal() -> None:
    assert LedgerRow(RECORD) == made_by_spark(RECORD)
