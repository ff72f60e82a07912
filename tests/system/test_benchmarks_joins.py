"""Benchmarks of point-in-time joins on few labels, with every peer: both sides agree."""

import importlib
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks import join_vs_tempo, peers
from benchmarks.join_data import JoinSize
from benchmarks.report import Skipped
from tests.support.benchmark_lines import check_line

pytestmark = pytest.mark.full

TINY = JoinSize(labels=300, users=40, snapshots=3, dim=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all, so that snapshots are drawn once."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.mark.parametrize("name", ["join_growth", "join_into_fit", "join_vs_range", "join_vs_tempo", "join_vs_feast"])
def test_a_benchmark_of_joins_compares_answers_and_returns_its_line(name: str, spark: SparkSession, root: Path) -> None:
    """Tempo and Feast are installed into the user's cache by the first run."""
    line = importlib.import_module(f"benchmarks.{name}").measure(spark, TINY, root, 1)
    check_line(line, name, ("labels", "users", "snapshots", "dim"), root)
    assert (root / "peers").exists() is False


def test_a_benchmark_whose_peer_does_not_install_is_skipped_with_the_installer_s_words(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path / "peers")
    monkeypatch.setattr(join_vs_tempo, "PEER", "/no/such/peer")  # asks no registry
    with pytest.raises(Skipped, match=r"/no/such/peer does not install \(.*/no/such/peer.*\)"):
        join_vs_tempo.measure(spark, TINY, tmp_path, 1)
    assert not list(tmp_path.rglob("done"))  # so that the next run tries again
