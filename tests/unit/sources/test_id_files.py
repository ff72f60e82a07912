"""Files of user ids: text, CSV, Parquet and folders of exports, and what is refused."""

import json
import os
import threading
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from userrep.errors import UsageError
from userrep.sources.id_files import IdFile, as_ids, read_id_file, read_ids

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory. Name a text file with one user id per line"),
        (b"\n \n", r"no user ids in the file\. Write one per line"),
        (b"\xff\xfe", r"not UTF-8 text\. Write one user id per line"),
        (b"ann\n" + b"x" * 1025, "line 2 is longer than 1024 bytes"),
    ],
)
def test_a_file_without_ids_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "ids.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_ids(path)


def test_ids_are_read_once_each_and_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("ann\r\n\nbob b\nann\n", encoding="utf-8")
    assert read_ids(tmp_path / "ids.txt") == ["ann", "bob b"]


def test_ids_are_read_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=["ann\nbob\n"])
    writer.start()
    assert read_id_file(str(tmp_path / "pipe"), "--seeds").user_ids.to_pylist() == ["ann", "bob"]
    writer.join()


def test_text_csv_parquet_and_exports_have_the_same_ids(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("007\nbob b\n")
    (tmp_path / "ids.csv").write_text('note,user_id\nx,007\ny,"bob b"\nz,\nx,007\n')
    pq.write_table(pa.table({"user_id": ["007", "bob b", None, " ", "007"]}), tmp_path / "ids.parquet")
    for name in ("ids", "ids.csv", "ids.parquet"):
        assert read_id_file(str(tmp_path / name), "--seeds") == IdFile(pa.array(["007", "bob b"])), name


def test_the_space_of_ids_is_read_from_a_column_or_a_manifest(tmp_path: Path) -> None:
    rows = pa.table({"user_id": ["a", "b", "c"], "space_id": ["s1", "s2", None]})
    pq.write_table(rows, tmp_path / "ids.parquet")
    assert read_id_file(str(tmp_path / "ids.parquet"), "--seeds").space_ids == {"s1", "s2"}
    folder = tmp_path / "out"
    folder.mkdir()
    pq.write_table(rows.select(["user_id"]), folder / "part-00000.parquet")
    manifest = {"state": "complete", "space_id": "s3", "sha256": {"part-00000.parquet": "0"}}
    (folder / "_manifest.json").write_text(json.dumps(manifest))
    assert read_id_file(str(folder), "--seeds") == IdFile(pa.array(["a", "b", "c"]), frozenset({"s3"}))
    (folder / "_manifest.json").write_text(json.dumps(manifest | {"state": "incomplete"}))
    with pytest.raises(UsageError, match=r"--seeds .*/out: the folder is not a complete export\. Name a file"):
        read_id_file(str(folder), "--seeds")


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (pa.array([7, None, 7]), ["7"]),
        (pa.array([7.0, float("nan"), 12.0]), ["7", "12"]),
        (pa.array([Decimal("7.00"), None, Decimal("12.00")]), ["7", "12"]),
        (pa.array([12345678901234567890123456789], pa.decimal128(38)), ["12345678901234567890123456789"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b"]),
        (pa.array([None, None]), []),
    ],
)
def test_numbers_and_dictionaries_are_ids(values: pa.Array, ids: list[str]) -> None:
    assert as_ids(values).to_pylist() == ids


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"customer": ["a"]}, "no column user_id; columns found: customer"),
        ({"user_id": [True]}, "user_id must be of type string, got bool"),
        ({"user_id": [1.5]}, "Float value 1.50* was truncated"),
        ({"user_id": [Decimal("1.5")]}, "Rescaling Decimal value would cause data loss"),
    ],
)
def test_a_parquet_file_without_ids_is_refused(tmp_path: Path, rows: dict[str, list[object]], said: str) -> None:
    path = tmp_path / "ids.parquet"
    pq.write_table(pa.table(rows), path)
    with pytest.raises(UsageError, match=rf"--seeds {path}: {said}.*\. Name a file with a column user_id\."):
        read_id_file(str(path), "--seeds")


@pytest.mark.parametrize("name", ["none.parquet", "none.csv", "bad.parquet", "folder"])
def test_what_cannot_be_read_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        UsageError, match=rf"--seeds {tmp_path}/{name}: .*\. Name a file with a column user_id"
    ) as caught:
        read_id_file(str(tmp_path / name), "--seeds")
    assert len(caught.value.faults) == 1
    assert "\n" not in str(caught.value)
