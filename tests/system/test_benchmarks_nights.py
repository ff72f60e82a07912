"""The benchmark of nights on a small log: a broken day is refused and mended, and a user is forgotten."""

from datetime import date
from pathlib import Path
from subprocess import CompletedProcess

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from benchmarks import nights
from benchmarks.nights import NightsSize
from tests.support.benchmark_lines import check_line, write_retail
from tests.support.command_line import Userrep

pytestmark = pytest.mark.full


def test_nights_with_a_broken_day_end_without_a_fault(
    spark: SparkSession, userrep: Userrep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the commands in this process: starting Spark 14 times would take most of the time."""

    def run(arguments: list[str]) -> CompletedProcess[str]:
        answer = userrep(*arguments)
        return CompletedProcess(arguments, answer.code, answer.out, answer.err)

    log = tmp_path / "log"
    monkeypatch.setattr(nights, "run_process", run)
    monkeypatch.setattr(nights, "CONFIG", str(write_retail(log)))
    monkeypatch.setattr(nights, "AS_OF", date(2011, 4, 20))
    line = nights.measure(NightsSize(nights=1), tmp_path / "nights")
    (refusal,) = line["refused"]
    assert "new_share" in refusal
    assert line["faults"] == []
    assert line["value"] == 0
    check_line(line | {"value": 1}, "nights", ("log", "users", "nights"), tmp_path)
    bought = pq.read_table(log / "events.parquet").to_pylist()
    users = {row["user_id"] for row in bought if row["timestamp"].date() < date(2011, 4, 21)}
    assert line["size"]["users"] == len(users) > 100
    assert line["files_naming_the_user_before"] > 3
    assert "<html" in (tmp_path / "nights" / "report.html").read_text(encoding="utf-8")[:200]


def test_a_command_that_does_not_end_as_it_should_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nights, "CONFIG", str(write_retail(tmp_path / "log")))
    run = nights.Nights(tmp_path)
    run.run("no-such-command")
    assert len(run.faults) == 1
    assert run.faults[0].startswith("userrep no-such-command ended with 2, not 0: ")
    run.run("no-such-command", wanted=2)
    assert len(run.faults) == 1
