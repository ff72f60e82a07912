"""Parts of an export: whole files whose bytes follow from their rows, also after rows were erased."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import types as T

from userrep.store import export_files
from userrep.store.export_files import (
    MANIFEST,
    Part,
    StoredRows,
    _erase_from_part,
    _groups,
    _write,
    erase_from_parts,
    write_parts_here,
)

pytestmark = pytest.mark.fast

NAME = "part-00000.parquet"


def rows_of(*users: str) -> pa.Table:
    vectors = pa.array([[float(k), 0.5] for k in range(len(users))], pa.list_(pa.float32()))
    return pa.table({"user_id": pa.array(users, pa.string()), "embedding": vectors})


def is_user(*erased: str) -> Any:
    return lambda ids: np.array([user in erased for user in ids.to_pylist()], bool)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_manifest(folder: Path, **values: Any) -> None:
    (folder / MANIFEST).write_text(json.dumps(values))


# Writing


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_row_groups_have_one_size_however_rows_arrive(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_files, "_GROUP_ROWS", 4)
        numbers = iter(range(sum(sizes)))
        first, *more = (pa.table({"n": pa.array([next(numbers) for _ in range(size)], pa.int64())}) for size in sizes)
        groups = [group["n"].to_pylist() for group in _groups(first, more)]
    whole = list(range(sum(sizes)))
    assert groups == [whole[start : start + 4] for start in range(0, len(whole), 4)]


def test_a_part_has_the_same_bytes_however_its_rows_arrive(tmp_path: Path) -> None:
    users = [f"u{k:05}" for k in range(20_000)]
    rows = rows_of(*users)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    once = _write(str(tmp_path / "a"), NAME, "user_id", rows, [])
    often = _write(str(tmp_path / "b"), NAME, "user_id", rows[:7], [rows[7:9_000], rows[9_000:]])
    assert once == often == Part(NAME, 20_000, sha256(tmp_path / "a" / NAME))
    assert sha256(tmp_path / "b" / NAME) == once.sha256
    assert pq.read_table(tmp_path / "b" / NAME).equals(rows)
    assert names(tmp_path / "a") == [NAME]


def test_an_export_without_rows_has_a_file_with_its_columns(tmp_path: Path) -> None:
    columns = T.StructType([T.StructField("user_id", T.StringType()), T.StructField("n", T.LongType())])
    stored = StoredRows([], lambda batch, _: batch)
    (part,) = write_parts_here(stored, columns, str(tmp_path), order=["user_id"])
    assert (part.name, part.num_rows, part.sha256) == (NAME, 0, sha256(tmp_path / NAME))
    assert pq.read_table(tmp_path / NAME).to_pydict() == {"user_id": [], "n": []}


def test_a_part_replaces_an_older_one_only_when_it_is_whole(tmp_path: Path) -> None:
    _write(str(tmp_path), NAME, "user_id", rows_of("old"), [])

    def interrupted() -> Iterator[pa.Table]:
        yield rows_of("b")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        _write(str(tmp_path), NAME, "user_id", rows_of("a"), interrupted())
    assert pq.read_table(tmp_path / NAME).equals(rows_of("old"))
    assert all(name.startswith(f".{NAME}-") for name in names(tmp_path) if name != NAME)
    _write(str(tmp_path), NAME, "user_id", rows_of("new"), [])
    assert pq.read_table(tmp_path / NAME).equals(rows_of("new"))


def test_all_columns_except_ids_and_vectors_are_written_with_dictionaries(tmp_path: Path) -> None:
    rows = rows_of("a", "b").append_column("modality", pa.array(["m", "m"]))
    _write(str(tmp_path), NAME, "user_id", rows, [])
    group = pq.read_metadata(tmp_path / NAME).row_group(0)
    columns = {group.column(k).path_in_schema.split(".")[0]: group.column(k) for k in range(3)}
    coded = {name: "RLE_DICTIONARY" in column.encodings for name, column in columns.items()}
    assert coded == {"user_id": False, "embedding": False, "modality": True}


# Erasing


def test_only_the_rows_of_erased_users_leave_a_part(tmp_path: Path) -> None:
    rows = rows_of("a", "b", "c", "b")
    _write(str(tmp_path), NAME, "user_id", rows, [])
    part, num_gone = _erase_from_part(str(tmp_path), NAME, is_user("b", "nobody"))
    assert (part, num_gone) == (Part(NAME, 2, sha256(tmp_path / NAME)), 2)
    assert pq.read_table(tmp_path / NAME).equals(rows.take([0, 2]))
    assert names(tmp_path) == [NAME]


def test_a_part_that_loses_no_row_is_left_as_it_is(tmp_path: Path) -> None:
    written = _write(str(tmp_path), NAME, "user_id", rows_of("a", "b"), [])
    inode = (tmp_path / NAME).stat().st_ino
    assert _erase_from_part(str(tmp_path), NAME, is_user("c")) == (written, 0)
    assert (tmp_path / NAME).stat().st_ino == inode


def test_a_part_may_lose_all_its_rows(tmp_path: Path) -> None:
    _write(str(tmp_path), NAME, "user_id", rows_of("a"), [])
    part, num_gone = _erase_from_part(str(tmp_path), NAME, is_user("a"))
    assert (part.num_rows, num_gone) == (0, 1)
    assert pq.read_table(tmp_path / NAME).equals(rows_of())


def test_a_folder_without_a_manifest_is_left_unchanged(tmp_path: Path) -> None:
    _write(str(tmp_path), NAME, "user_id", rows_of("a"), [])
    spark: Any = None
    assert erase_from_parts(spark, str(tmp_path), is_user("a")) is None
    assert erase_from_parts(spark, str(tmp_path / "gone"), is_user("a")) is None
    assert names(tmp_path) == [NAME]


def test_an_interrupted_export_loses_all_its_parts_but_no_unrelated_file(tmp_path: Path) -> None:
    write_manifest(tmp_path, state="incomplete")
    for name in (NAME, f".{NAME}-abc", "mine.parquet", ".hidden", "part-1.csv"):
        (tmp_path / name).write_bytes(b"a")
    spark: Any = None
    assert erase_from_parts(spark, str(tmp_path), is_user("a")) == 0
    assert names(tmp_path) == [".hidden", MANIFEST, "mine.parquet", "part-1.csv"]


@pytest.mark.parametrize("listed", [[], [NAME, "part-00001.parquet"]], ids=["one too many", "one missing"])
def test_parts_that_the_manifest_does_not_list_are_an_error(tmp_path: Path, listed: list[str]) -> None:
    write_manifest(tmp_path, state="complete", sha256=dict.fromkeys(listed, "0"))
    (tmp_path / NAME).write_bytes(b"a")
    spark: Any = None
    with pytest.raises(ValueError, match="its parts do not match its manifest"):
        erase_from_parts(spark, str(tmp_path), is_user("a"))
    assert (tmp_path / NAME).read_bytes() == b"a"
