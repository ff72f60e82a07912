"""Commits of Spark: what a lost response and a concurrent commit look like."""

from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import DataFrameWriter, SparkSession

from tests.support.conformance import SHARES
from userrep.errors import UserrepError
from userrep.store.spark_tables import SparkTables

pytestmark = pytest.mark.default


@pytest.mark.full
def test_commits_whose_response_was_lost_are_recognized_on_releases_of_delta_that_refuse_them(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, save = SparkTables(spark, artifacts=str(tmp_path)), DataFrameWriter.save
    tables.create(SHARES)
    rows = spark.createDataFrame([(date(2024, 5, 1), "p", "u")], SHARES.fields())

    def refused(writer: DataFrameWriter, path: str) -> None:
        if is_written:
            save(writer, path)
        raise RuntimeError("[DELTA_CONCURRENT_WRITE] a concurrent commit was first")

    monkeypatch.setattr(DataFrameWriter, "save", refused)
    is_written = True
    assert tables.reserve(SHARES, "counter") == 1
    assert [tables.reserve(SHARES, "counter") for _ in range(3)] == [2, 3, 4]  # none of which a ledger has
    assert tables.append(rows, SHARES, transaction=("writer", 1))
    tables.replace(rows, SHARES, [{"day": "2024-05-01", "part": "p"}])
    assert tables.read(SHARES).count() == 1
    is_written = False
    with pytest.raises(UserrepError, match="another run has changed the same rows meanwhile"):
        tables.replace(rows, SHARES, [{"day": "2024-05-01", "part": "p"}])
    assert not tables.append(rows, SHARES, since=tables.version(SHARES))
