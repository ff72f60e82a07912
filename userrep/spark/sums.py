"""Sums of arrays over all rows of a frame, computed in the tasks that read them."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from safetensors.numpy import load, save

Sums = dict[str, NDArray[np.float64]]


def sum_over(rows: DataFrame, sums_of: Callable[[pa.RecordBatch], Mapping[str, NDArray[np.float64] | float]]) -> Sums:
    """Add up what ``sums_of`` returns for each batch of rows, by name. Without rows, the result is empty.

    Tasks and then the driver add in the order of the rows, so the same partitions give the same bits. Cost: one pass
    without a shuffle; one set of sums of each task reaches the driver.
    """

    def add_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = _total(sums_of(batch) for batch in batches if batch.num_rows)
        if sums:
            yield pa.RecordBatch.from_pydict({"sums": [save(sums)]})

    return _total(load(bytes(row.sums)) for row in rows.mapInArrow(add_up, "sums BINARY").collect())


def _total(parts: Iterable[Mapping[str, NDArray[np.float64] | float]]) -> Sums:
    total: Sums = {}
    for part in parts:
        for name, value in part.items():
            numbers = np.asarray(value, np.float64)
            total[name] = np.asarray(total[name] + numbers) if name in total else numbers  # 0-d sums are NumPy scalars
    return total
