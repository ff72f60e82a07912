"""The benchmarks of quality, on a small log with planted tastes."""

from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks import look_alikes, quality_by_log
from tests.support.benchmark_lines import write_retail

pytestmark = pytest.mark.full


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
