"""An items table with gaps, and its texts as ``read_texts`` returns them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from userrep.config import Source
from userrep.sources.read_texts import read_texts
from userrep.store.file_tables import FileTables

IDS = (pa.float64(), pa.decimal128(10, 1))
WANTED = {"columns.item_id": "id", "columns.text": "title", "categories[0]": "size"}


def items_file(folder: Path, ids: pa.DataType = IDS[0]) -> Path:
    """Write the table. ``ids``: the type of the ids, of which one is missing."""
    missing = None if pa.types.is_decimal(ids) else float("nan")
    columns = {
        "id": pa.array([1.0, 2.0, 2.5, missing, None, 6.0]).cast(ids),
        "title": pa.array(["mug", None, "cup", "pot", "jug", None]),
        "size": pa.array([3, 4, None, 5, 6, None]),
    }
    pq.write_table(pa.table(columns), folder / "items.parquet")
    return folder / "items.parquet"


def texts_of(source: Source, spark: SparkSession | None = None, most_rows: int = 9) -> list[tuple[Any, ...]]:
    """Return the rows with an id and a value, ordered by id."""
    columns = read_texts(FileTables(spark, "none"), source, "items", WANTED, most_rows=most_rows)
    return sorted(zip(*(column.to_pylist() for column in columns), strict=True))
