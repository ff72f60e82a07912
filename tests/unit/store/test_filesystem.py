"""Files next to the tables: they are written whole or not at all, and paths are read as Spark writes them."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from userrep.store import filesystem
from userrep.store.filesystem import (
    absolute,
    all_exist,
    delete_file,
    delete_folder,
    delete_partials,
    exists,
    file_system,
    folder_names,
    is_local,
    open_parquet,
    read_bytes,
    write_bytes,
    write_folder,
)

pytestmark = pytest.mark.fast


# Paths


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/data/a b", "/data/a b"),
        ("/data/100%25", "/data/100%25"),  # a plain path holds no escapes
        ("file:/data/a%20b", "/data/a b"),
        ("file:///data/hour=10%253A00/a", "/data/hour=10%3A00/a"),
        ("dbfs:/data/a", "/dbfs/data/a"),
        ("dbfs:///data/a", "/dbfs/data/a"),
        ("/Volumes/main/s/v", "/Volumes/main/s/v"),
    ],
)
def test_local_paths_are_read_as_spark_writes_them(uri: str, path: str) -> None:
    files, found = file_system(uri)
    assert isinstance(files, pyarrow.fs.LocalFileSystem)
    assert found == path
    assert is_local(uri)


def test_a_relative_path_lies_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert file_system("build/x")[1] == absolute("build/x") == f"{tmp_path}/build/x"
    assert [absolute(uri) for uri in ("s3a://b/x", "dbfs:/x", "file:/x")] == ["s3a://b/x", "dbfs:/x", "file:/x"]


def test_the_path_in_a_store_is_unescaped_and_its_connection_is_kept() -> None:
    files, path = file_system("mock://bucket/a%20b/c?x=1")
    assert path.endswith("/a b/c")
    assert not is_local("mock://bucket/a")
    assert file_system("mock://bucket/other?x=1")[0] is files


def test_a_malformed_uri_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'\?://x' is not a URI"):
        file_system("?://x")


# Files


def test_a_file_is_replaced_at_once_so_that_a_reader_sees_the_old_or_the_new_content(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x"
    write_bytes(str(path), b"the old content")
    with path.open("rb") as reader:
        write_bytes(str(path), b"new")
        assert reader.read() == b"the old content"
    assert path.read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["x"]


def test_an_interrupted_write_leaves_the_old_file_and_a_partial_file_that_is_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    write_bytes(str(path), b"old")

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            write_bytes(str(path), b"new")
        assert [file.name for file in tmp_path.iterdir()] == ["x"]
        patch.setattr(os, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            write_bytes(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    assert delete_partials(str(tmp_path), older_than=timedelta(0)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_permissions_of_a_written_file_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(str(tmp_path / "x"), b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_files_written_in_many_threads_are_never_writable_by_others(tmp_path: Path) -> None:
    """The umask belongs to the process: a thread that changes it for a moment changes it for all."""

    def write(k: int) -> None:
        if k % 2:
            write_bytes(f"{tmp_path}/{k}", b"")
        else:
            (tmp_path / str(k)).touch()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(2000)))
    assert {file.stat().st_mode & 0o022 for file in tmp_path.iterdir()} == {0}


def test_a_folder_may_be_readable_by_its_owner_only(tmp_path: Path) -> None:
    write_folder(str(tmp_path / "secret"), {"key": b"k"}, mode=0o600)
    assert (tmp_path / "secret/key").stat().st_mode & 0o777 == 0o600


def test_a_file_above_the_size_limit_is_refused_and_a_missing_file_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    write_bytes(path, b"abc")
    assert read_bytes(path, max_bytes=3) == b"abc"
    with pytest.raises(ValueError, match="x: 3 bytes, more than the limit of 2 for such a file"):
        read_bytes(path, max_bytes=2)
    with pytest.raises(FileNotFoundError, match=f"No such file or directory: '{tmp_path}/y'"):
        read_bytes(f"{tmp_path}/y", max_bytes=2)


def test_all_files_exist_only_if_each_is_there_and_is_a_file(tmp_path: Path) -> None:
    uris = [str(tmp_path / name) for name in "ab"]
    assert all_exist([])
    write_bytes(uris[0], b"")
    assert not all_exist(uris)
    (tmp_path / "b").mkdir()
    assert exists(uris[1])
    assert not all_exist(uris)
    for _ in range(2):
        delete_folder(uris[1])  # the second time there is none
    write_bytes(uris[1], b"")
    assert all_exist(uris)
    delete_file(uris[0])
    assert not exists(uris[0])


def failing(times: int, message: str) -> tuple[Callable[[], bytes], list[int]]:
    calls: list[int] = []

    def read() -> bytes:
        calls.append(1)
        if len(calls) <= times:
            raise OSError(message)
        return b"content"

    return read, calls


def test_a_read_is_repeated_up_to_five_times_for_errors_that_pyarrow_does_not_retry() -> None:
    read, calls = failing(4, "AWS Error INTERNAL_FAILURE during GetObject operation")
    assert filesystem.with_retries(read) == b"content"
    assert len(calls) == 5
    for times, message, expected in ((5, "INTERNAL_FAILURE during GetObject", 5), (1, "ACCESS_DENIED", 1)):
        read, calls = failing(times, message)
        with pytest.raises(OSError, match=message):
            filesystem.with_retries(read)
        assert len(calls) == expected


def test_columns_are_read_the_same_with_and_without_a_buffer(tmp_path: Path) -> None:
    rows = pa.table({"n": list(range(1000)), "text": [f"t{k % 3}" for k in range(1000)]})
    pq.write_table(rows, tmp_path / "a b.parquet", row_group_size=100)
    uri = f"file://{tmp_path}/a%20b.parquet"
    assert open_parquet(uri).read().equals(rows)
    assert open_parquet(uri, buffer_bytes=512).read_row_groups([3]).equals(rows[300:400])
    coded = open_parquet(uri, coded=["text"]).read()["text"]
    assert pa.types.is_dictionary(coded.type)
    assert coded.to_pylist() == rows["text"].to_pylist()


# Folders


def test_a_folder_that_appears_while_it_is_written_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "space"
    (folder / "other").mkdir(parents=True)
    monkeypatch.setattr(filesystem, "folder_names", lambda _: [])  # as at the check
    with pytest.raises(FileExistsError, match="space"):
        write_folder(str(folder), {"a": b"1"})
    assert [path.name for path in tmp_path.rglob("*")] == ["space", "other"]


def test_a_folder_is_written_with_all_its_files_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    with pytest.raises(TypeError):
        write_folder(str(folder), {"a": b"1", "b": "not bytes"})  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []
    write_folder(str(folder), {"a": b"1", "b": b"2"})
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"a": b"1", "b": b"2"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_holds_something_is_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    folder.mkdir()
    write_folder(str(folder), {"a": b"1"})  # an empty folder may be replaced
    with pytest.raises(FileExistsError, match=str(folder)):
        write_folder(str(folder), {"b": b"2"})
    assert folder_names(str(folder)) == ["a"]


def test_names_in_a_folder_are_sorted_and_a_missing_folder_has_none(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).touch()
    assert folder_names(str(tmp_path)) == [".hidden", "a", "b"]
    assert folder_names(str(tmp_path / "none")) == []


def test_only_partial_files_and_folders_that_are_old_enough_are_deleted(tmp_path: Path) -> None:
    now = time.time()
    ages = {".old-1": 7200, "deep/.old-2": 7200, ".young": 600, "old": 7200, "deep/old.": 7200}
    for name, age in ages.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (now - age, now - age))
    (tmp_path / ".folder").mkdir()
    (tmp_path / ".folder" / "a").touch()
    os.utime(tmp_path / ".folder", (now - 7200, now - 7200))
    assert delete_partials(str(tmp_path), older_than=timedelta(hours=1)) == 3
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {".young", "old", "deep/old."}
    assert not (tmp_path / ".folder").exists()
    assert delete_partials(str(tmp_path / "none"), older_than=timedelta(0)) == 0
