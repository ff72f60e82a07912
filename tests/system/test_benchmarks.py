"""Benchmarks on small logs: answers of both sides agree, and lines hold what they must."""

import importlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from benchmarks import (
    answers,
    features_growth,
    features_vs_spark_sql,
    nights,
    quality,
    reader_vs_petastorm,
    training_data,
    training_memory,
)
from benchmarks.cpu_meter import CpuMeter
from benchmarks.inference_data import UserSize, check_vectors
from benchmarks.join_data import JoinSize
from benchmarks.logs import LogSize, log_files
from benchmarks.report import Skipped
from benchmarks.training_data import RowSize
from userrep.evaluation.results import Measured

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
NAMES = sorted(p.stem for p in (ROOT / "benchmarks").glob("*.py") if "\ndef measure" in p.read_text(encoding="utf-8"))
TRAINING_NAMES = [name for name in NAMES if name.startswith(("reader_", "training_"))]
INFERENCE_NAMES = [name for name in NAMES if name.startswith("inference_")]
JOIN_NAMES = [name for name in NAMES if name.startswith("join_")]
STREAM_NAMES = [name for name in NAMES if name.startswith("stream_")]  # tests/streaming has those
OTHER_NAMES = [
    *TRAINING_NAMES,
    *INFERENCE_NAMES,
    *JOIN_NAMES,
    *STREAM_NAMES,
    "retraining_auc_loss",
    "quality",
    "nights",
    "savings",
]
TINY = LogSize(events=1500, users=40, items=30, days=8)
TINY_ROWS = RowSize(rows=2 * training_data.BATCH)
TINY_USERS = UserSize(users=80)
TINY_JOIN = JoinSize(labels=300, users=40, snapshots=3, dim=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all, so that a log is drawn once."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OTHER_NAMES])
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


@pytest.mark.parametrize("name", [name for name in TRAINING_NAMES if name != "reader_vs_petastorm"])
def test_a_benchmark_of_training_delivers_the_same_rows_and_tells_its_line(
    name: str, spark: SparkSession, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(root / "hf"))
    monkeypatch.setattr(training_memory, "_rank", training_memory.rank)  # in this process: no libraries to load
    benchmark = importlib.import_module(f"benchmarks.{name}")
    line = benchmark.measure(TINY_ROWS, root, 1)
    assert json.loads(json.dumps(line)) == line
    assert line["benchmark"] == name
    assert {"rows", "inputs", "shards", "batch", "cores"} <= line["size"].keys()
    assert line["seconds"] > 0
    assert line.get("ratio", line.get("value")) > 0


@pytest.mark.parametrize("name", INFERENCE_NAMES)
def test_a_benchmark_of_inference_compares_vectors_and_tells_its_line(
    name: str, spark: SparkSession, root: Path
) -> None:
    line = importlib.import_module(f"benchmarks.{name}").measure(spark, TINY_USERS, root, 1)
    assert json.loads(json.dumps(line)) == line
    assert (line["benchmark"], line["size"]["users"], line["size"]["inputs"]) == (name, 80, 546)
    assert line["peer"]
    assert line["ratio"] > 0  # the peer's milliseconds are rounded
    assert not list(root.glob("run-*"))


def test_vectors_that_differ_are_no_comparison() -> None:
    ours, theirs = np.zeros((80, 120), np.float32), np.full((80, 120), 0.01, np.float32)
    for pair in ((ours, theirs), (ours[:79], ours[:79])):
        with pytest.raises(AssertionError, match="of 80 users, ours has"):
            check_vectors(*pair, TINY_USERS)


@pytest.mark.parametrize("name", [name for name in JOIN_NAMES if name not in ("join_vs_tempo", "join_vs_feast")])
def test_a_benchmark_of_joins_compares_answers_and_tells_its_line(name: str, spark: SparkSession, root: Path) -> None:
    line = importlib.import_module(f"benchmarks.{name}").measure(spark, TINY_JOIN, root, 1)
    assert json.loads(json.dumps(line)) == line
    assert line["benchmark"] == name
    assert {"labels", "users", "snapshots", "dim", "cores"} <= line["size"].keys()
    assert line["seconds"] > 0
    assert line.get("ratio", line.get("value")) > 0
    assert not list(root.glob("run-*"))


def test_a_log_of_nights_has_a_file_a_day_and_a_broken_one_nobody_who_is_known(tmp_path: Path) -> None:
    at = [datetime(2011, 10, day, 9) for day in (1, 1, 2, 3)]
    rows = pa.table({"user_id": ["17", "9", "17", "9"], "timestamp": pa.array(at, pa.timestamp("us"))})
    users = nights.write_days(rows, tmp_path, end=date(2011, 10, 3))
    assert len(users) == 2
    assert sorted(file.parent.name for file in tmp_path.rglob("*.parquet")) == ["day=2011-10-01", "day=2011-10-02"]
    file = tmp_path / "events" / "day=2011-10-01" / "events.parquet"
    assert sorted(pq.ParquetFile(file).read()["user_id"].to_pylist()) == users
    nights.break_day(file)
    broken = pq.ParquetFile(file).read()["user_id"].to_pylist()
    assert len({*broken, *users}) == 4
    assert nights.files_naming(tmp_path, broken[0]) == ["events/day=2011-10-01/events.parquet"]  # also if compressed


def test_a_peer_that_cannot_be_had_is_skipped_with_its_own_words(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_vs_petastorm, "PACKAGES", ("/no/such/petastorm",))  # asks no registry
    with pytest.raises(Skipped, match=r"petastorm does not install \(.+\)"):
        reader_vs_petastorm.measure(TINY_ROWS, root, 1)


@pytest.mark.parametrize("name", ["join_vs_tempo", "join_vs_feast"])
def test_a_join_s_peer_that_cannot_be_had_is_skipped(
    name: str, spark: SparkSession, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(benchmark, "PEER", "/no/such/peer")  # asks no registry
    with pytest.raises(Skipped, match=r"/no/such/peer does not install \(.+\)"):
        benchmark.measure(spark, TINY_JOIN, root, 1)


def test_rows_that_differ_are_no_comparison() -> None:
    with pytest.raises(AssertionError, match=r"of 1024 rows, ours delivers \(1024, 3, 4\) and the peer \(1024, 3, 5\)"):
        training_data.check_rows((1024, 3, 4), (1024, 3, 5), TINY_ROWS)
    with pytest.raises(AssertionError, match="of 1024 rows"):
        training_data.check_rows((512, 3, 4), (512, 3, 4), TINY_ROWS)


def test_the_lines_of_quality_are_gains_over_the_best_baseline_in_the_mean_over_spaces() -> None:
    def measured(task: str, name: str, value: float) -> Measured:
        metric = dict(asked)[task]
        return Measured(task, metric, name, (value,), np.full(20, value), "linear", {"test": 9})

    asked = {task for question in quality.QUESTIONS for task in question.tasks}
    values = {"embedding": 0.6, "pooled_longest": 0.4, "pooled_all": 0.5, "rfm": 0.5, "raw": 0.5}
    first = [measured(task, name, value) for task, _ in asked for name, value in values.items()]
    second = [measured(task, "embedding", 0.7) for task, _ in asked]
    found = {line["benchmark"]: line for line in quality.lines([first, second])}
    assert found["quality_pair_vs_average"]["value"] == pytest.approx(0.3)
    assert found["quality_pair_vs_average"]["interval"] == pytest.approx([0.3, 0.3])
    assert found["quality_pair_vs_average"]["baseline"] == ["next_item_7d: pooled_all 0.5000"]
    assert found["quality_volume_vs_rfm"]["value"] == pytest.approx(0.15)
    assert found["quality_mean_vs_raw"]["value"] == pytest.approx((6 * 0.3 + 0.15) / 7, abs=1e-4)
    assert "too few examples" in found["quality_vs_vae"]["skipped"]
    assert len(found) == 12


def test_every_benchmark_says_its_question_and_its_command() -> None:
    for name in NAMES:
        text = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
        assert "?" in text
        assert f"make bench-{name.replace('_', '-')}\n" in text
        assert f"python -m benchmarks.{name} --small" in text


def test_the_makefile_lists_benchmarks_that_there_are() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lists = re.findall(r"^[A-Z]+_BENCHES := ((?:.*\\\n)*.*)", makefile, flags=re.MULTILINE)
    assert len(lists) == 6
    for listed in lists:
        assert set(listed.replace("\\", "").split()) <= {name.replace("_", "-") for name in NAMES}


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


def test_cpu_seconds_are_of_all_processes_also_of_those_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 2: pass"
    with CpuMeter() as meter:
        before = meter.seconds()
        subprocess.run([sys.executable, "-c", burn], check=True)
        assert 1 <= meter.seconds() - before < 8
