"""The benchmark of what a retraining costs existing models, on a small log with planted tastes."""

from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks import retraining_auc_loss
from tests.support.benchmark_lines import write_retail
from userrep.config import load_config
from userrep.spaces.registry import list_spaces
from userrep.store.open import open_tables

pytestmark = pytest.mark.full


def test_a_retraining_is_judged_by_spaces_of_two_dates_that_a_later_run_does_not_train_again(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_retail(tmp_path / "log")
    monkeypatch.setattr(retraining_auc_loss, "CONFIG", str(config))
    monkeypatch.setattr(retraining_auc_loss, "AS_OF", date(2011, 5, 15))
    untils = date(2011, 3, 1), date(2011, 4, 1)
    monkeypatch.setattr(retraining_auc_loss, "UNTILS", untils)
    line = retraining_auc_loss.measure(1, tmp_path)
    assert line["benchmark"] == "retraining_auc_loss"
    assert line["size"]["seeds"] == 1
    assert line["size"]["labels"] > 100
    assert line["by_seed"] == [line["value"]]
    assert 0.5 < line["auc_own"][0] < 1  # who buys often comes back
    assert 0 < line["auc_own"][0] - line["value"] < 1
    assert -1 < line["mean_cosine"] <= 1
    assert 0 < line["residual"] < 2
    assert 0 < line["overlap_at_10"] <= 1
    tables = open_tables(load_config(config, [f"root={tmp_path}/retraining"]), spark)
    trained = [space.space_id for space in list_spaces(tables)]
    assert sorted(space.trained_until for space in list_spaces(tables)) == [*untils]
    assert retraining_auc_loss.measure(1, tmp_path) == line
    assert [space.space_id for space in list_spaces(tables)] == trained
