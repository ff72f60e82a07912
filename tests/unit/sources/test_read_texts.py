"""Columns of a users or items table as text: ids as in the tiles, rows with a value, those of the lowest buckets."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from userrep.config import Source
from userrep.errors import UsageError
from userrep.sources.read_texts import read_texts
from userrep.store.file_tables import FileTables
from userrep.store.xxhash import bucket_of

WANTED = {"columns.item_id": "id", "columns.text": "title", "categories[0]": "size"}


@pytest.fixture
def items(tmp_path: Path) -> Path:
    columns = {
        "id": pa.array([1.0, 2.0, 2.5, float("nan"), None, 6.0]),
        "title": pa.array(["mug", None, "cup", "pot", "jug", None]),
        "size": pa.array([3, 4, None, 5, 6, None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    return tmp_path / "items.parquet"


def texts_of(source: Source, spark: SparkSession | None = None, most_rows: int = 9) -> list[tuple[Any, ...]]:
    """Return the rows, ordered by id."""
    columns = read_texts(FileTables(spark, "none"), source, "items", WANTED, most_rows=most_rows)
    return sorted(zip(*(column.to_pylist() for column in columns), strict=True))


@pytest.mark.fast
def test_rows_with_an_id_and_a_value_are_text_with_the_ids_of_the_tiles(items: Path) -> None:
    expected = [("1", "mug", "3"), ("2", None, "4"), ("2.5", "cup", None)]
    assert texts_of(Source(path=str(items))) == expected


@pytest.mark.fast
def test_of_many_rows_those_with_the_lowest_buckets_are_read(items: Path) -> None:
    ids = ["1", "2", "2.5"]
    lowest = np.argsort(bucket_of(pa.array(ids)))[:2]
    assert [row[0] for row in texts_of(Source(path=str(items)), most_rows=2)] == sorted(ids[k] for k in lowest)


@pytest.mark.fast
@pytest.mark.parametrize("name", list(WANTED))
def test_a_column_that_is_neither_text_nor_numbers_is_refused(tmp_path: Path, name: str) -> None:
    columns = {column: pa.array([["a"]] if key == name else ["a"]) for key, column in WANTED.items()}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    with pytest.raises(UsageError, match=rf"items\.{re.escape(name)}: must be text or numbers, got list<.*\. Convert"):
        texts_of(Source(path=str(tmp_path / "items.parquet")))


@pytest.mark.default
def test_a_table_of_a_catalog_has_the_same_texts(spark: SparkSession, items: Path) -> None:
    spark.read.parquet(str(items)).createOrReplaceTempView("shop_items")
    table = Source(path="shop_items", format="table")
    for most_rows in (9, 2):
        assert texts_of(table, spark, most_rows) == texts_of(Source(path=str(items)), None, most_rows)
