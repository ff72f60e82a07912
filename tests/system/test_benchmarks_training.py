"""Benchmarks of the trainer and its reader on few rows: both sides read the same rows, and memory does not grow."""

import importlib
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks import training_memory
from benchmarks.training_data import RowSize
from tests.support.benchmark_lines import check_line

pytestmark = pytest.mark.full

SIZE = ("rows", "inputs", "shards", "batch")
TINY = RowSize(rows=1024)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all, so that rows are drawn once."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.mark.parametrize("name", ["reader_vs_pyarrow_dataset", "reader_vs_hf_datasets", "training_vs_memory"])
def test_a_benchmark_of_reading_delivers_the_same_rows_and_returns_its_line(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(root / "hf"))
    line = importlib.import_module(f"benchmarks.{name}").measure(TINY, root, 1)
    check_line(line, name, SIZE, root)


@pytest.mark.parametrize("name", ["reader_vs_torch_distributor", "training_start", "training_two_ranks"])
def test_a_benchmark_of_processes_that_spark_starts_returns_its_line(
    name: str, spark: SparkSession, root: Path
) -> None:
    line = importlib.import_module(f"benchmarks.{name}").measure(TINY, root, 1)
    check_line(line, name, SIZE, root)


def test_a_rank_that_reads_ten_times_as_many_rows_needs_no_more_memory(root: Path) -> None:
    size = RowSize(rows=196_608)
    line = training_memory.measure(size, root, 1)
    check_line(line, "training_memory", SIZE, root)
    data_mib = size.rows * line["size"]["inputs"] * 4 / 2**20
    assert data_mib > 400
    assert line["mib"] - line["libraries_mib"] < data_mib  # the model and its optimizer, too
    assert line["mib"] - line["peer_mib"] < data_mib / 4
