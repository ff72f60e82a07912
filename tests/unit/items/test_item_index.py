"""Dense item numbers: concurrent runs never give one number to two items."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from userrep.items.item_index import extended_index
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ITEM_INDEX
from userrep.tiles.ledger import read_tiles

pytestmark = pytest.mark.default

V2 = date(2024, 5, 15)


def test_two_runs_that_number_new_items_at_once_give_no_number_twice(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = FileTables(spark, str(tmp_path))

    def numbered(name: str) -> DataFrame:
        items = spark.createDataFrame([(f"{name}{k}",) for k in range(3)], "item_id STRING")
        return extended_index(tables, "l1", items, read_tiles(tables, start=None, end=V2))

    append = FileTables.append

    def overtaken(self: FileTables, rows: DataFrame, table: Any, **more: Any) -> bool:
        monkeypatch.setattr(FileTables, "append", append)
        numbered("b")  # by another run, between this one's look at the numbers and its commit
        return append(self, rows, table, **more)

    monkeypatch.setattr(FileTables, "append", overtaken)
    mine = {row.item_id: row.item_index for row in numbered("a").collect()}
    assert mine.keys() == {"a0", "a1", "a2", "b0", "b1", "b2"}
    assert sorted(mine.values()) == list(range(6))
    assert {row.item_id: row.item_index for row in tables.read(ITEM_INDEX).collect()} == mine
