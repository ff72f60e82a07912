"""Samples of sources: whole where they are small, evenly spread parts with exact or estimated sizes where not."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.support.builders import event, write_rows
from userrep.config import Source
from userrep.errors import UsageError
from userrep.sources import sample as module
from userrep.sources.sample import Sample, spark_columns, take_sample

pytestmark = pytest.mark.fast


def sample_of(path: Path | str, kind: str = "parquet", **more: Any) -> Sample:
    return take_sample(Source.model_validate({"path": str(path), "format": kind}), "events", **more)


def test_a_small_source_is_read_whole_with_structs_and_partitions_as_columns(tmp_path: Path) -> None:
    write_rows(tmp_path / "dt=1" / "a.parquet", [event("u", "i", "2024-05-01", device={"kind": "tv"})])
    write_rows(tmp_path / "dt=2" / "b.parquet", [event("v", "i", "2024-05-02", more=1)])
    sample = sample_of(tmp_path)
    assert (sample.num_files, sample.num_rows, sample.is_complete) == (2, 2, True)
    assert spark_columns(sample).names == ["user_id", "item_id", "event_at", "device.kind", "dt", "more"]
    assert sample.rows["dt"].to_pylist() == ["1", "2"]


def test_a_large_parquet_source_is_read_from_row_groups_over_its_whole_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_ROWS", 1000)
    monkeypatch.setattr(module, "_MAX_GROUPS", 10)
    pq.write_table(pa.table({"k": range(20_000)}), tmp_path / "a.parquet", row_group_size=500)
    sample = sample_of(tmp_path)
    assert (sample.num_rows, sample.is_counted, sample.is_complete) == (20_000, True, False)
    assert sample.rows["k"].to_pylist() == [500 * (k * 39 // 9) + row for k in range(10) for row in range(100)]


def test_a_source_that_is_larger_in_memory_than_in_its_files_is_read_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_BYTES", 4_000_000)
    text = "x" * 100  # a dictionary in the file
    pq.write_table(pa.table({"text": [text] * 200_000}), tmp_path / "a.parquet", row_group_size=50_000)
    sample = sample_of(tmp_path)
    assert (sample.num_rows, sample.is_complete, sample.sees_end) == (200_000, False, False)
    assert 2_000_000 < sample.rows.nbytes < 8_000_000


def test_of_a_large_row_group_only_the_pages_of_the_first_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_ROWS", 1000)
    table = pa.table({"k": np.random.default_rng(0).integers(0, 1 << 60, 2_000_000)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2_000_000, use_dictionary=False)
    before = pa.total_allocated_bytes()
    sample = sample_of(tmp_path)
    assert (sample.rows.num_rows, sample.sees_end) == (1000, False)
    assert pa.total_allocated_bytes() - before < 4_000_000


def test_of_many_files_some_are_read_and_the_rows_are_an_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_FILES", 2)
    for name in "abcd":
        write_rows(tmp_path / f"{name}.parquet", [event(name, "i", "2024-05-01")] * 3)
    sample = sample_of(tmp_path)
    assert (sample.num_files, sample.num_rows, sample.is_counted) == (4, 12, False)
    assert sample.rows["user_id"].to_pylist() == list("aaaddd")


@pytest.mark.parametrize(("kind", "line"), [("csv", "u{k},i\n"), ("json", '{{"user_id": "u{k}"}}\n')])
def test_the_rows_of_a_large_text_source_are_an_estimate(tmp_path: Path, kind: str, line: str) -> None:
    for name in "ab":
        text = ("user_id,item_id\n" if kind == "csv" else "") + "".join(line.format(k=k) for k in range(300_000))
        (tmp_path / f"{name}.{kind}").write_text(text)
    part = sample_of(tmp_path, kind, max_text_bytes=1 << 18)
    assert not part.is_counted
    assert part.num_rows == pytest.approx(600_000, rel=0.4)
    whole = sample_of(tmp_path, kind)
    assert (whole.num_rows, whole.is_complete) == (600_000, True)


def test_the_files_of_the_newest_delta_version_are_read(tmp_path: Path) -> None:
    for name in "ab":
        rows = pa.table({"user_id": [name], "dt": ["2024-05-01"]})
        write_deltalake(str(tmp_path), rows, mode="overwrite", partition_by=["dt"])
    sample = sample_of(tmp_path, "delta")
    assert sample.rows.to_pylist() == [{"user_id": "b", "dt": "2024-05-01"}]
    assert sample.is_complete


def test_a_delta_table_whose_files_lack_a_column_is_refused(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.table({"user_id": ["a"], "at": ["x"]}))
    file = tmp_path / DeltaTable(str(tmp_path)).to_pyarrow_dataset().files[0]
    pq.write_table(pa.table({"user_id": ["a"], "col-7": ["x"]}), file)
    with pytest.raises(UsageError, match=r"not readable as delta \(its files lack at; column mapping needs Spark\)"):
        sample_of(tmp_path, "delta")


def test_times_that_spark_cannot_read_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"t": pa.array([0], pa.timestamp("ns"))}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"events\.path .*: Spark cannot read times in nanoseconds \(t\)\."):
        sample_of(tmp_path)


def test_times_of_int96_may_lie_outside_of_the_range_of_nanoseconds(tmp_path: Path) -> None:
    times = [datetime(2024, 5, 1), datetime(9999, 12, 31)]
    table = pa.table({"t": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    assert sample_of(tmp_path).rows["t"].to_pylist() == times


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no Parquet")
    with pytest.raises(UsageError, match=r"events.path .*: not readable as parquet \(.*[^.]\)\.$"):
        sample_of(tmp_path)
    (tmp_path / "a.csv").write_text("user,item\n")
    with pytest.raises(UsageError, match=r"events.path .*: has no rows. Name the path of another csv source"):
        sample_of(tmp_path / "a.csv", "csv")
    with pytest.raises(UsageError, match=r"events.path db.log: a table of a catalog can only be read with Spark"):
        sample_of("db.log", "table")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_csv_in_another_encoding_is_refused_with_a_cure(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_text("user,item\nmüller,a\n", encoding)
    with pytest.raises(UsageError, match=r"a\.csv is not UTF-8 text; convert it with `iconv -f ENCODING -t UTF-8`"):
        sample_of(tmp_path / "a.csv", "csv")
