"""The session: Delta works, times are UTC, and errors name what is missing."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession

from userrep.errors import UsageError
from userrep.spark.session import (
    DELTA_COORDINATES,
    KAFKA_COORDINATES,
    S3_PACKAGES,
    _own_jvm,
    get_session,
    jars_folder,
    shuffle_partitions,
)

pytestmark = pytest.mark.default


def test_sessions_run_in_utc_whatever_they_were_started_with(spark: SparkSession) -> None:
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    assert get_session().conf.get("spark.sql.session.timeZone") == "UTC"


def test_settings_of_the_configuration_reach_an_active_session(spark: SparkSession) -> None:
    before = spark.conf.get("spark.sql.shuffle.partitions")
    try:
        session = get_session(conf={"spark.sql.shuffle.partitions": "7", "spark.driver.memory": "1g"})
        assert session.conf.get("spark.sql.shuffle.partitions") == "7"
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)


def _failing() -> None:
    raise RuntimeError("Cannot find catalog plugin class")


@pytest.mark.parametrize("extensions", ["", "io.delta.sql.DeltaSparkSessionExtension"])
def test_an_error_about_a_session_without_delta_explains_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, extensions: str
) -> None:
    bare = SimpleNamespace(
        conf=SimpleNamespace(get=lambda *_: extensions), catalog=SimpleNamespace(currentDatabase=_failing)
    )
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: bare)
    with pytest.raises(UsageError, match=r"the Spark session has no Delta. Start it with the package io.delta"):
        get_session()


def test_a_session_of_databricks_is_taken_as_it_is_and_runs_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, str] = {}
    theirs = SimpleNamespace(conf=SimpleNamespace(get=lambda *_: "", set=settings.__setitem__))
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: theirs)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "19.3")
    assert get_session() is theirs
    assert settings["spark.sql.session.timeZone"] == "UTC"


def test_jars_that_are_kept_are_those_of_delta_and_of_kafka_and_so_are_fetched_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERREP_JARS", str(tmp_path))
    (tmp_path / DELTA_COORDINATES.replace(":", "_")).mkdir()
    (tmp_path / DELTA_COORDINATES.replace(":", "_") / "of-before.jar").touch()
    assert _own_jvm("local[1]", {})["spark.jars.packages"] == f"{DELTA_COORDINATES},{KAFKA_COORDINATES}"
    jars_folder().mkdir()
    (jars_folder() / "kept.jar").touch()
    (jars_folder() / "org.apache.parquet_parquet-column-1.16.0.jar").touch()  # Spark has another version
    (jars_folder(S3_PACKAGES)).mkdir()
    (jars_folder(S3_PACKAGES) / "s3.jar").touch()
    kept, s3 = str(jars_folder() / "kept.jar"), str(jars_folder(S3_PACKAGES) / "s3.jar")
    settings = _own_jvm("spark://host:7077", {})
    assert (settings["spark.jars"], "spark.jars.packages" in settings) == (f"{kept},{s3}", False)
    monkeypatch.setattr(SparkContext, "_gateway", None)  # as in a process without a JVM
    settings = _own_jvm("local[1]", {"spark.driver.extraClassPath": "mine.jar"})
    assert settings["spark.driver.extraClassPath"] == os.pathsep.join([kept, "mine.jar"])
    assert settings["spark.jars"] == s3


@pytest.mark.parametrize(("setting", "tasks"), [("16", 16), ("auto", 200), (None, 200)])
def test_the_number_of_tasks_is_that_of_the_session_or_200(setting: str | None, tasks: int) -> None:
    session: Any = SimpleNamespace(conf=SimpleNamespace(get=lambda _, default: setting or default))
    assert shuffle_partitions(session) == tasks


def test_workers_of_a_local_session_have_the_libraries_of_tasks_when_they_start(spark: SparkSession) -> None:
    def modules(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            parents = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8").split("\0")
            yield pa.record_batch({"parent": pa.array([" ".join(parents)] * batch.num_rows)})

    [row] = spark.range(1).mapInArrow(modules, "parent STRING").collect()
    assert "userrep.spark.worker_daemon" in row.parent
