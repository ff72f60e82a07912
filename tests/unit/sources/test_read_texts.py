"""Columns of a users or items table as text: ids as in the tiles, rows with a value, those of the lowest buckets."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.item_texts import IDS, WANTED, items_file, texts_of
from userrep.config import Source
from userrep.errors import UsageError
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.fast


@pytest.fixture(params=IDS, ids=str)
def items(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return items_file(tmp_path, request.param)


def test_rows_with_an_id_and_a_value_are_text_with_the_ids_of_the_tiles(items: Path) -> None:
    expected = [("1", "mug", "3"), ("2", None, "4"), ("2.5", "cup", None)]
    assert texts_of(Source(path=str(items))) == expected


def test_of_many_rows_those_with_the_lowest_buckets_are_read(items: Path) -> None:
    ids = ["1", "2", "2.5"]
    lowest = np.argsort(bucket_of(pa.array(ids)))[:2]
    assert [row[0] for row in texts_of(Source(path=str(items)), most_rows=2)] == sorted(ids[k] for k in lowest)


@pytest.mark.parametrize("name", list(WANTED))
def test_a_column_that_is_neither_text_nor_numbers_is_refused(tmp_path: Path, name: str) -> None:
    columns = {column: pa.array([["a"]] if key == name else ["a"]) for key, column in WANTED.items()}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    with pytest.raises(UsageError, match=rf"items\.{re.escape(name)}: must be text or numbers, got list<.*\. Convert"):
        texts_of(Source(path=str(tmp_path / "items.parquet")))
