"""Tasks write what they make into files of tables and return what they have written."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import Row

from userrep.features.sums.pooling import OutputRows
from userrep.features.sums.pooling_tasks import Writing, Written
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.parquet_writer import Target

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 3, 1), date(2024, 3, 2)
FEATURES = pa.schema([("user_id", pa.string()), ("is_exact", pa.bool_())])
SUMS = pa.schema([("user_bucket", pa.int32()), ("user_id", pa.string())])


def features(as_of: date, *rows: tuple[str, bool]) -> OutputRows:
    values = [dict(zip(FEATURES.names, row, strict=True)) for row in rows]
    return OutputRows("features", as_of, pa.RecordBatch.from_pylist(values, FEATURES))


def sums(as_of: date, *rows: tuple[int, str]) -> OutputRows:
    values = [dict(zip(SUMS.names, row, strict=True)) for row in rows]
    return OutputRows("sums", as_of, pa.RecordBatch.from_pylist(values, SUMS))


@pytest.fixture
def writing(tmp_path: Path) -> Writing:
    """Features by date, and sums of one generation by slice of users, of four."""
    by_date = Target(str(tmp_path / "features"), FEATURES, ("as_of",), ())
    by_slice = Target(str(tmp_path / "sums"), SUMS, ("generation", "user_slice"), ())
    return Writing({"features": by_date, "sums": by_slice}, {"generation": 7}, 4)


def written(writing: Writing, made: Iterable[OutputRows]) -> list[Written]:
    """Write as a task does; read what it returns as the driver does."""
    return [Written.of(Row(**row)) for batch in writing(made) for row in batch.to_pylist()]


def rows_in(writing: Writing, files: list[Written]) -> dict[str, list[dict[str, Any]]]:
    """Read the rows of files, by the folder of each below its table."""
    found = defaultdict(list)
    for of in files:
        path = f"{writing.targets[of.output].uri}/{of.file.path}"
        rows = pq.read_table(path, partitioning=None).to_pylist()
        assert (of.file.num_rows, of.file.size) == (len(rows), Path(path).stat().st_size)
        found[f"{of.output}/{of.file.path.rpartition('/')[0]}"] += rows
    return dict(found)


def test_rows_lie_in_the_partition_of_their_date_or_slice(writing: Writing) -> None:
    quarter = NUM_BUCKETS // 4
    made = [features(D1, ("a", True)), sums(D1, (quarter - 1, "a")), features(D2, ("a", True)),
            features(D1, ("b", True)), sums(D1, (quarter, "b"), (quarter + 5, "c"))]  # fmt: skip
    found = rows_in(writing, written(writing, made))
    assert {folder: [row["user_id"] for row in rows] for folder, rows in found.items()} == {
        "features/as_of=2024-03-01": ["a", "b"],
        "features/as_of=2024-03-02": ["a"],
        "sums/generation=7/user_slice=0-of-4": ["a"],
        "sums/generation=7/user_slice=1-of-4": ["b", "c"],
    }


def test_rows_beyond_exact_sums_are_counted_by_date(writing: Writing) -> None:
    made = [features(D1, ("a", False), ("b", True)), features(D2, ("a", True)), features(D1, ("c", False)),
            sums(D1, (1, "a"))]  # fmt: skip
    found = {(part.output, part.file.values.get("as_of")): part for part in written(writing, made)}
    assert {key: (part.file.num_rows, part.num_inexact) for key, part in found.items()} == {
        ("features", "2024-03-01"): (3, 2),
        ("features", "2024-03-02"): (1, 0),
        ("sums", None): (1, 0),  # sums are not by date
    }
    assert found["features", "2024-03-01"].file.values == {"as_of": "2024-03-01"}
    assert found["sums", None].file.values == {"generation": 7, "user_slice": "0-of-4"}


def test_without_rows_nothing_is_written_or_returned(writing: Writing, tmp_path: Path) -> None:
    assert written(writing, [features(D1), sums(D1)]) == []
    assert list(tmp_path.iterdir()) == []
