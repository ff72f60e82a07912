"""Sums of arrays over all rows: those of NumPy, whatever the partitions, and none without rows."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession

from userrep.spark.sums import sum_over

pytestmark = pytest.mark.default


def test_sums_are_those_of_all_rows_and_keep_their_shape(spark: SparkSession) -> None:
    def sums_of(batch: pa.RecordBatch) -> dict[str, np.ndarray | float]:
        x_B = batch.column("x").to_numpy()
        powers = np.array([x_B.sum(), (x_B**2).sum()])
        return {"num_rows": batch.num_rows, "powers": powers, "table": np.ones((2, 0))}

    x_N = np.random.default_rng(0).normal(size=1000)
    rows = spark.createDataFrame(pa.table({"x": x_N}))
    for partitions, rows_per_batch in ((1, 10_000), (7, 10_000), (2, 100)):
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", rows_per_batch)
        sums = sum_over(rows.repartition(partitions), sums_of)
        assert {name: value.shape for name, value in sums.items()} == {"num_rows": (), "powers": (2,), "table": (2, 0)}
        assert sums["num_rows"] == 1000
        np.testing.assert_allclose(sums["powers"], [x_N.sum(), np.square(x_N).sum()], rtol=1e-12)
    spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")


def test_names_may_differ_between_batches(spark: SparkSession) -> None:
    rows = spark.range(0, 10, 1, 5)
    sums = sum_over(rows, lambda batch: {f"{pc.max(batch.column('id')).as_py() > 5}": float(batch.num_rows)})
    assert sums == {"False": 6, "True": 4}


def test_without_rows_there_are_no_sums(spark: SparkSession) -> None:
    assert sum_over(spark.range(0), lambda _: {"x": 1.0}) == {}
