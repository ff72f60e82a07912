"""Benchmarks of streaming on a tiny base, with a real Kafka broker and a real Redis server."""

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks import stream_growth, stream_latency, stream_new_user, stream_throughput
from benchmarks.stream_data import StreamSize
from benchmarks.stream_load import Load
from tests.support.benchmark_lines import check_line

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server: `make setup` installs it"),
]

SIZE = ("users", "items", "dim")
TINY = StreamSize(users=2_000, dim=8, items=200)
LOAD = Load(seconds=3, warm=1)


def test_half_of_the_watched_events_arrive_sooner_than_the_median_and_none_later_than_the_worst(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_latency, "SMALL_LOAD", LOAD)
    line = stream_latency.measure(spark, TINY, tmp_path, 1)
    check_line(line, "stream_latency", SIZE, tmp_path)
    assert line["seconds"] <= line["value"] <= line["worst_seconds"]
    assert 40 <= line["size"]["watched"] <= 80  # every tenth of 200 a second for three seconds


def test_new_users_are_seen_by_a_pick_and_by_an_event(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_latency, "SMALL_LOAD", LOAD)
    line = stream_new_user.measure(spark, TINY, tmp_path, 1)
    check_line(line, "stream_new_user", SIZE, tmp_path)
    by_kind = line["p95_seconds_of"]
    assert by_kind.keys() == {"new_user_pick", "new_user_event"}
    assert min(by_kind.values()) <= line["value"] <= line["worst_seconds"]
    assert 8 <= line["size"]["watched"] <= 16  # four a second for three seconds


def test_throughput_is_events_per_second_of_a_batch(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_throughput, "BATCHES", 3)
    line = stream_throughput.measure(spark, TINY, tmp_path, 1)
    check_line(line, "stream_throughput", SIZE, tmp_path)
    assert (line["size"]["events"], line["size"]["events_per_batch"]) == (6_000, 2_000)
    assert line["value"] == pytest.approx(2_000 / line["seconds"], rel=0.02)


def test_growth_is_the_ratio_of_a_batch_s_seconds_with_ten_times_as_many_users(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_growth, "SMALL_BATCHES", 3)
    line = stream_growth.measure(spark, TINY, tmp_path, 1)
    check_line(line, "stream_growth", SIZE, tmp_path)
    assert line["smaller_size"]["users"] == 200
    assert line["value"] == pytest.approx(line["seconds"] / line["smaller_seconds"], rel=0.02)
