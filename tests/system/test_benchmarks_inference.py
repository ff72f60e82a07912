"""Benchmarks of the snapshot job on few users: both sides encode the same vectors."""

import importlib
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks.inference_data import UserSize
from tests.support.benchmark_lines import check_line

pytestmark = pytest.mark.full

TINY = UserSize(users=80)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all, so that users are drawn once."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.mark.parametrize(
    "name",
    [
        "inference_vs_torch",
        "inference_vs_torch_script",
        "inference_vs_map_in_arrow",
        "inference_vs_pandas_udf",
        "inference_vs_predict_batch_udf",
        "inference_vs_mlflow_spark_udf",
    ],
)
def test_a_benchmark_of_inference_compares_vectors_and_returns_its_line(
    name: str, spark: SparkSession, root: Path
) -> None:
    line = importlib.import_module(f"benchmarks.{name}").measure(spark, TINY, root, 1)
    check_line(line, name, ("users", "inputs", "dimensions"), root)
    assert (line["size"]["users"], line["size"]["inputs"]) == (80, 711)
