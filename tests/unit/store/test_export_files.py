"""Parts of an export: whole files whose bytes follow from their rows."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import types as T

from userrep.store import export_files
from userrep.store.export_files import (
    Part,
    _groups,
    write_part,
    write_parts_here,
)

pytestmark = pytest.mark.fast

NAME = "part-00000.parquet"


def rows_of(*users: str) -> pa.Table:
    vectors = pa.array([[float(k), 0.5] for k in range(len(users))], pa.list_(pa.float32()))
    return pa.table({"user_id": pa.array(users, pa.string()), "embedding": vectors})


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
    once = write_part(str(tmp_path / "a"), NAME, "user_id", rows, [])
    often = write_part(str(tmp_path / "b"), NAME, "user_id", rows[:7], [rows[7:9_000], rows[9_000:]])
    assert once == often == Part(NAME, 20_000, sha256(tmp_path / "a" / NAME))
    assert sha256(tmp_path / "b" / NAME) == once.sha256
    assert pq.read_table(tmp_path / "b" / NAME).equals(rows)
    assert names(tmp_path / "a") == [NAME]


def test_an_export_without_rows_has_a_file_with_its_columns(tmp_path: Path) -> None:
    columns = T.StructType([T.StructField("user_id", T.StringType()), T.StructField("n", T.LongType())])
    (part,) = write_parts_here([], lambda batch, _: batch, columns, str(tmp_path), order=["user_id"])
    assert (part.name, part.num_rows, part.sha256) == (NAME, 0, sha256(tmp_path / NAME))
    assert pq.read_table(tmp_path / NAME).to_pydict() == {"user_id": [], "n": []}


def test_a_part_replaces_an_older_one_only_when_it_is_whole(tmp_path: Path) -> None:
    write_part(str(tmp_path), NAME, "user_id", rows_of("old"), [])

    def interrupted() -> Iterator[pa.Table]:
        yield rows_of("b")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_part(str(tmp_path), NAME, "user_id", rows_of("a"), interrupted())
    assert pq.read_table(tmp_path / NAME).equals(rows_of("old"))
    assert all(name.startswith(f".{NAME}-") for name in names(tmp_path) if name != NAME)
    write_part(str(tmp_path), NAME, "user_id", rows_of("new"), [])
    assert pq.read_table(tmp_path / NAME).equals(rows_of("new"))


def test_all_columns_except_ids_and_vectors_are_written_with_dictionaries(tmp_path: Path) -> None:
    rows = rows_of("a", "b").append_column("modality", pa.array(["m", "m"]))
    write_part(str(tmp_path), NAME, "user_id", rows, [])
    group = pq.read_metadata(tmp_path / NAME).row_group(0)
    columns = {group.column(k).path_in_schema.split(".")[0]: group.column(k) for k in range(3)}
    coded = {name: "RLE_DICTIONARY" in column.encodings for name, column in columns.items()}
    assert coded == {"user_id": False, "embedding": False, "modality": True}
