"""The benchmarks of quality, on a small log with planted tastes."""

import math
from collections import defaultdict
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from benchmarks import look_alikes, quality, quality_by_log
from tests.support.benchmark_lines import write_retail

pytestmark = pytest.mark.full


def test_quality_answers_every_question_with_a_gain_that_follows_from_its_parts(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "CONFIG", str(write_retail(tmp_path / "log")))
    monkeypatch.setattr(quality, "AS_OF", date(2011, 3, 15))
    lines = {line["benchmark"]: line for line in quality.measure(2, tmp_path)}
    assert len(lines) == 8
    assert [name for name, line in lines.items() if "skipped" in line] == []
    for line in lines.values():
        assert line["size"]["seeds"] == 2
        low, high = line["interval"]
        assert low <= line["value"] <= high
        gains = []
        for baseline, by_seed in zip(line["baseline"], line["embedding_by_seed"], strict=True):
            task, theirs = baseline.split(":")[0], float(baseline.split()[-1])
            ours = math.fsum(by_seed) / len(by_seed)
            assert len(set(by_seed)) == len(by_seed) == 2  # spaces of two seeds
            gains.append(ours - theirs if task == "volume_30d" else ours / theirs - 1)
        assert line["value"] == pytest.approx(math.fsum(gains) / len(gains), abs=2e-3)
    assert min(lines["quality_pair_vs_average"]["embedding_by_seed"][0]) > 0.55  # tastes are found
    check_picks(tmp_path)


def test_quality_by_log_keeps_each_training_and_compares_all_peers(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = quality_by_log.Log(str(write_retail(tmp_path / "log")), date(2011, 2, 15))
    monkeypatch.setattr(quality_by_log, "LOGS", {"retail": log})
    monkeypatch.setattr(quality_by_log, "PEERS", ("untrained", "rfm_history", "pca"))
    line = quality_by_log.measure("retail", "later", 2, tmp_path)
    assert line["benchmark"] == "quality_retail_later"
    assert set(line["ahead"]) == {"untrained", "rfm_history", "pca"}
    for families in line["ahead"].values():
        for lead, low, high in families.values():
            assert low <= lead <= high
    assert {tuple(losses) for losses in line["storage_losses"].values()} == {("float16", "int8")}
    assert line["value"] == min(families["mean"][0] for families in line["ahead"].values())
    monkeypatch.setattr(quality_by_log, "_evaluated", None)  # nothing is measured twice
    assert quality_by_log.measure("retail", "later", 2, tmp_path) == line


def test_look_alikes_have_recall_and_lift_of_all_representations(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = quality_by_log.Log(str(write_retail(tmp_path / "log")), date(2011, 2, 15))
    monkeypatch.setattr(quality_by_log, "LOGS", {"retail": log})
    line = look_alikes.measure("retail", "later", tmp_path)
    assert line["benchmark"] == "look_alikes_retail"
    assert {"embedding", "rfm_history", "als_folded", "embedding_int8"} <= line["look_alikes"]["look_alikes_20"].keys()
    assert {tuple(losses) for losses in line["storage_losses"].values()} == {("float16", "int8")}
    assert line["value"] < 0.01


def check_picks(root: Path) -> None:
    """Compare the picks with the items of each user's first day, in plain Python."""
    bought = defaultdict(set)
    for row in pq.read_table(root / "log" / "events.parquet").to_pylist():
        bought[row["user_id"], row["timestamp"].date()].add(row["item_id"])
    first = {}
    for user, day in sorted(bought):
        first.setdefault(user, day)
    picked = defaultdict(list)
    for row in pq.read_table(root / "quality-picks.parquet").to_pylist():
        assert row["event_at"].date() == first[row["user_id"]]
        assert row["event_at"].time().hour == 0  # before the day's first event
        picked[row["user_id"]].append(row["item_id"])
    assert picked.keys() == first.keys()
    for user, items in picked.items():
        on_first_day = bought[user, first[user]]
        assert set(items) <= on_first_day
        assert len(items) == len(set(items)) == min(5, len(on_first_day))
