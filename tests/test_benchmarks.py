"""Benchmarks on small logs: answers of both sides agree, and lines hold what they must."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks import answers, features_growth, features_vs_spark_sql
from benchmarks.logs import LogSize, log_files

ROOT = Path(__file__).parents[1]
NAMES = sorted(p.stem for p in (ROOT / "benchmarks").glob("*.py") if "\ndef measure" in p.read_text(encoding="utf-8"))
TINY = LogSize(events=1500, users=40, items=30, days=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all, so that a log is drawn once."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_compares_answers_and_tells_its_line(
    name: str, spark: SparkSession, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_growth, "TIMES", 1)  # the one log does for all
    monkeypatch.delitem(features_vs_spark_sql.WAYS, "summed_columns")  # 128 columns take ten seconds to compile
    benchmark = importlib.import_module(f"benchmarks.{name}")
    size = replace(TINY, copies=benchmark.SIZE.copies, skewed=benchmark.SIZE.skewed)
    line = benchmark.measure(spark, size, root, 1)
    assert json.loads(json.dumps(line)) == line
    assert line["benchmark"] == name
    assert {"events", "users", "items", "days", "cores"} <= line["size"].keys()
    assert line["seconds"] > 0
    if "ratio" in line:
        assert line["peer"]
        assert line["ratio"] == pytest.approx(line["seconds"] / line["peer_seconds"], rel=0.05)
    else:
        assert line["value"] > 0
    assert not list(root.glob("run-*"))


def test_every_benchmark_says_its_question_and_its_command() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"FEATURE_BENCHES := ((?:.*\\\n)*.*)", makefile)
    assert listed is not None
    for name in NAMES:
        text = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
        assert "?" in text
        assert f"make bench-{name.replace('_', '-')}\n" in text
        assert f"python -m benchmarks.{name} --small" in text
    named = set(listed[1].replace("\\", "").split())
    assert named <= {name.replace("_", "-") for name in NAMES}


def test_a_log_is_drawn_once_and_the_same_again(tmp_path: Path) -> None:
    first, again = log_files(TINY, tmp_path / "a"), log_files(TINY, tmp_path / "b")
    files = sorted(first[0].iterdir())
    assert len(files) == TINY.days
    assert all(file.read_bytes() == (again[0] / file.name).read_bytes() for file in files)
    files[0].unlink()
    log_files(TINY, tmp_path / "a")
    assert not files[0].exists()


def test_different_answers_are_no_comparison() -> None:
    with pytest.raises(AssertionError, match="contents differ: 3 rows and 3 rows"):
        answers.check_same((3, 17), (3, 18))


def test_a_larger_log_has_as_many_events_per_user() -> None:
    assert features_growth.SIZE.of_events(80_000_000).users == 800_000
