"""Benchmarks of streaming on a tiny base: lines hold what they must."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks import stream_growth, stream_latency, stream_throughput
from benchmarks.stream_data import StreamSize
from benchmarks.stream_load import Load

TINY = StreamSize(users=2_000, dim=8, items=200)
pytestmark = [pytest.mark.full, pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")]


@pytest.mark.parametrize("name", ["stream_latency", "stream_new_user", "stream_throughput", "stream_growth"])
def test_a_benchmark_of_streaming_tells_its_line(
    name: str, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_latency, "SMALL_LOAD", Load(seconds=3, warm=1))
    monkeypatch.setattr(stream_throughput, "BATCHES", 3)
    monkeypatch.setattr(stream_growth, "SMALL_BATCHES", 3)
    line = importlib.import_module(f"benchmarks.{name}").measure(spark, TINY, tmp_path, 1)
    assert json.loads(json.dumps(line)) == line
    assert line["benchmark"] == name
    assert {"users", "items", "dim", "cores"} <= line["size"].keys()
    assert line["seconds"] > 0
    assert line["value"] > 0
    assert not list(tmp_path.glob("run-*"))
