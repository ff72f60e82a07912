"""Labels of a consumer: formats, a sample of users, the vectors of two spaces, and what is refused."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from deltalake import write_deltalake

from tests.support.embedding_tables import publish, snapshot
from tests.support.planted_spaces import DAYS, NEW, OLD, Tastes, labels_of, planted_tables, rotated, written
from userrep.errors import UsageError
from userrep.evaluation.consumer_labels import LabelRows, read_label_rows, read_labels
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import list_snapshots, record_snapshots
from userrep.spaces.verdicts import LabelTable
from userrep.store.file_tables import FileTables
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.fast

START = datetime(2024, 1, 1)
TASTES = Tastes.drawn(40)


@pytest.fixture
def tables(tmp_path: Path) -> FileTables:
    return planted_tables(tmp_path / "root", rotated, TASTES)


def read(tables: FileTables, table: LabelTable, *, most: int = 1_000) -> LabelRows:
    return read_label_rows(table, tables, find_space(tables, OLD), find_space(tables, NEW), most=most)


@pytest.mark.parametrize("format_", ["parquet", "delta", "csv"])
def test_labels_of_any_format_and_column_names_are_the_same(tmp_path: Path, format_: str) -> None:
    labels = labels_of(TASTES).rename_columns(["who", "at time", "label"])
    path = tmp_path / f"labels.{format_}"
    if format_ == "parquet":
        written(labels, tmp_path)
    elif format_ == "delta":
        write_deltalake(str(path), labels)
    else:
        as_text = labels["at time"].cast(pa.timestamp("us"))  # without a zone, which is UTC
        pyarrow.csv.write_csv(labels.set_column(1, "at time", as_text), path)
    found = read_labels(LabelTable(str(path), "who", "at time"), since=START, most=1_000)
    assert found.schema.types == [pa.string(), pa.timestamp("us", "UTC"), pa.float64()]
    wanted = labels.rename_columns(["user_id", "label_at", "label"])
    assert found.equals(wanted.sort_by([("user_id", "ascending"), ("label_at", "ascending")]))


def test_ids_times_and_labels_are_converted_and_rows_without_one_are_left_out(tmp_path: Path) -> None:
    day = date(2024, 5, 1)
    labels = pa.table({
        "user_id": [1, 2, None, 4, 5], "label_at": [day, None, day, day, date(2023, 5, 1)],
        "label": [True, True, True, None, True],
    })  # fmt: skip
    found = read_labels(LabelTable(written(labels, tmp_path)), since=START, most=10)
    assert [list(row.values())[::2] for row in found.to_pylist()] == [["1", 1.0]]
    not_finite = pa.table({"user_id": ["a"], "label_at": [datetime(2024, 5, 1)], "label": [float("nan")]})
    assert read_labels(LabelTable(written(not_finite, tmp_path)), since=START, most=10).num_rows == 0


def test_a_sample_has_the_users_of_the_lowest_buckets_in_any_order_of_rows(tmp_path: Path) -> None:
    labels = labels_of(Tastes.drawn(400))
    shuffled = labels.take(np.random.default_rng(1).permutation(labels.num_rows))
    samples = [read_labels(LabelTable(written(rows, tmp_path)), since=START, most=250) for rows in (labels, shuffled)]
    assert samples[0].equals(samples[1])
    buckets = bucket_of(labels["user_id"].combine_chunks())
    kept = {limit: int((buckets < limit).sum()) for limit in (2**20 >> k for k in range(8))}
    limit = max(limit for limit, num in kept.items() if num <= 250)
    assert samples[0].num_rows == kept[limit]
    assert sorted(samples[0]["user_id"].to_pylist()) == sorted(labels["user_id"].filter(buckets < limit).to_pylist())


def test_labels_get_both_spaces_vectors_of_their_user_and_date(tables: FileTables, tmp_path: Path) -> None:
    unknown = pa.table({"user_id": ["nobody"], "label_at": [datetime(2024, 5, 9)], "label": [1.0]})
    labels = labels_of(TASTES)
    rows = read(tables, LabelTable(written(pa.concat_tables([labels, unknown.cast(labels.schema)]), tmp_path)))
    assert len(rows) == labels.num_rows
    index = [TASTES.users.index(user) for user in rows.users.to_pylist()]
    np.testing.assert_allclose(rows.old_NE, TASTES.taste_UD[index], rtol=1e-6)
    np.testing.assert_allclose(rows.new_NF, rotated(TASTES)[0][index], rtol=1e-6)
    as_ofs = [(day - date(1970, 1, 1)).days for day in DAYS]
    assert rows.as_of_N.tolist() == as_ofs * len(TASTES.users)


def test_vectors_from_before_the_end_of_a_training_or_of_other_dates_are_left_out(
    tables: FileTables, tmp_path: Path
) -> None:
    table = LabelTable(written(labels_of(TASTES), tmp_path))
    first, last = list_snapshots(tables, NEW)
    record_snapshots(tables, [replace(first, in_sample=True)])
    assert len(read(tables, table)) == len(TASTES.users)
    publish(tables, {snapshot(DAYS[1] + timedelta(days=1), space=OLD, dim=4): {TASTES.users[0]: [0.0] * 4}})
    late = labels_of(TASTES, [DAYS[1] + timedelta(days=1)])  # the newest vector of the other space is a day older
    with pytest.raises(UsageError, match=r"none of 40 labels since 2024-05-08 06:00 UTC has vectors of"):
        read(tables, LabelTable(written(late, tmp_path)))
    early = labels_of(TASTES, [date(2024, 4, 20)])
    with pytest.raises(UsageError, match=r"none of 0 labels since 2024-05-08 06:00 UTC"):
        read(tables, LabelTable(written(early, tmp_path)))
    record_snapshots(tables, [replace(first, in_sample=True), replace(last, in_sample=True)])
    with pytest.raises(UsageError, match="space s002-b: no published snapshot is dated 2024-04-01"):
        read(tables, table)


def test_labels_that_cannot_be_read_are_refused_with_all_faults(tmp_path: Path) -> None:
    def faults(table: LabelTable) -> list[str]:
        with pytest.raises(UsageError) as caught:
            read_labels(table, since=START, most=10)
        return caught.value.faults

    assert faults(LabelTable("/nowhere.parquet")) == ["--labels /nowhere.parquet: not found."]
    path = written(pa.table({"user_id": [1.5], "label_at": ["2024"], "y": [1]}), tmp_path)
    assert faults(LabelTable(path)) == [
        f"--labels {path}: column 'label' is missing. The columns are user_id, label_at, y.",
        f"--labels {path}: column 'user_id' must have text or whole numbers, got double. Convert it.",
        f"--labels {path}: column 'label_at' must have times or dates, got string. Convert it.",
    ]
    (tmp_path / "labels.json").write_text('{"user_id": "a"}')
    path = str(tmp_path / "labels.json")
    assert faults(LabelTable(path)) == [f"--labels {path}: the format is json. Use Parquet, Delta or CSV."]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    assert "not readable" in faults(LabelTable(str(tmp_path / "broken.parquet")))[0]
