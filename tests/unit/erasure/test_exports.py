"""Parts of an export after rows were erased, and exports that are incomplete, damaged or missing."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from userrep.erasure.exports import (
    UNREACHED,
    _erase_from_part,
    erase_from_exports,
    erase_from_parts,
    find_in_parts,
)
from userrep.store.export_files import MANIFEST, Part, write_part
from userrep.store.export_folder import export_lease
from userrep.store.file_tables import FileTables
from userrep.store.leases import held
from userrep.store.schemas import EXPORTS
from userrep.store.xxhash import bucket_of

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


def test_only_the_rows_of_erased_users_leave_a_part(tmp_path: Path) -> None:
    rows = rows_of("a", "b", "c", "b")
    write_part(str(tmp_path), NAME, "user_id", rows, [])
    part, num_erased = _erase_from_part(str(tmp_path), NAME, "user_id", is_user("b", "unknown"))
    assert (part, num_erased) == (Part(NAME, 2, sha256(tmp_path / NAME)), 2)
    assert pq.read_table(tmp_path / NAME).equals(rows.take([0, 2]))
    assert names(tmp_path) == [NAME]


def test_a_part_that_loses_no_row_is_left_as_it_is(tmp_path: Path) -> None:
    written = write_part(str(tmp_path), NAME, "user_id", rows_of("a", "b"), [])
    inode = (tmp_path / NAME).stat().st_ino
    assert _erase_from_part(str(tmp_path), NAME, "user_id", is_user("c")) == (written, 0)
    assert (tmp_path / NAME).stat().st_ino == inode


def test_a_part_may_lose_all_its_rows(tmp_path: Path) -> None:
    write_part(str(tmp_path), NAME, "user_id", rows_of("a"), [])
    part, num_erased = _erase_from_part(str(tmp_path), NAME, "user_id", is_user("a"))
    assert (part.num_rows, num_erased) == (0, 1)
    assert pq.read_table(tmp_path / NAME).equals(rows_of())


def test_users_of_a_training_set_are_found_by_the_column_of_its_labels(tmp_path: Path) -> None:
    rows = rows_of("a", "b").append_column("who", pa.array(["b", None], pa.string()))
    write_part(str(tmp_path), NAME, "who", rows, [])
    write_manifest(tmp_path, state="complete", user_column="who")
    assert find_in_parts(str(tmp_path), is_user("b")) == (1, 1)
    assert _erase_from_part(str(tmp_path), NAME, "who", is_user("b"))[1] == 1
    assert pq.read_table(tmp_path / NAME).equals(rows.slice(1))


def test_users_are_found_in_large_strings(tmp_path: Path) -> None:
    rows = rows_of("a", "b")
    large = rows.set_column(0, "user_id", rows["user_id"].cast(pa.large_string()))
    write_part(str(tmp_path), NAME, "user_id", large, [])
    write_manifest(tmp_path, state="complete")

    def is_in_bucket_of_b(ids: pa.Array) -> Any:
        return bucket_of(ids) == bucket_of(pa.array(["b"]))

    assert find_in_parts(str(tmp_path), is_in_bucket_of_b) == (1, 1)
    assert _erase_from_part(str(tmp_path), NAME, "user_id", is_in_bucket_of_b)[1] == 1


def test_item_vectors_in_the_folder_of_an_earlier_export_have_no_users(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": ["a"]}), tmp_path / NAME)
    write_manifest(tmp_path, state="complete", what="item-vectors", sha256={NAME: sha256(tmp_path / NAME)})
    assert find_in_parts(str(tmp_path), is_user("a")) == (0, 0)
    assert erase_from_parts(None, str(tmp_path), is_user("a")) == 0  # type: ignore[arg-type]


def test_a_folder_without_a_manifest_is_left_unchanged(tmp_path: Path) -> None:
    write_part(str(tmp_path), NAME, "user_id", rows_of("a"), [])
    spark: Any = None
    assert erase_from_parts(spark, str(tmp_path), is_user("a")) is None
    assert erase_from_parts(spark, str(tmp_path / "gone"), is_user("a")) is None
    assert names(tmp_path) == [NAME]


def test_an_export_that_is_written_or_may_be_on_another_machine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileTables, "spark", None)
    tables = FileTables(None, str(tmp_path / "root"))
    folder = tmp_path / "out"
    folder.mkdir()
    write_manifest(folder, state="incomplete")
    at = {"what": "embeddings", "as_of": date(2024, 5, 1), "exported_at": datetime(2024, 5, 1)}
    tables.add(EXPORTS, [{"path": path, **at} for path in (str(folder), str(tmp_path / "gone"))])
    with held(tables, export_lease(str(folder))):
        found = _result_in_thread(lambda: erase_from_exports(tables, is_user("a")))
    assert found == {str(folder): "being written: repeat `userrep forget` when the export has ended"}
    monkeypatch.setattr("userrep.erasure.exports.is_local", lambda uri: uri != tables.artifacts_root)  # on S3
    found = erase_from_exports(tables, is_user("a"))
    assert found[str(folder)] == "0 rows"
    assert found[str(tmp_path / "gone")].startswith("not found on this machine: it was deleted, or written on another")
    assert all(result.startswith(UNREACHED) == (path != str(folder)) for path, result in found.items())


def _result_in_thread(work: Callable[[], Any]) -> Any:
    """Return a result of another thread, for which leases of this one are those of another run."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


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
