"""Files on local disks and in object stores: artifacts, folders of output, and Parquet files read without Spark."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from userrep.failpoints import around
from userrep.utc import EPOCH

_READ_ATTEMPTS = 5
_NOT_RETRIED = "INTERNAL_FAILURE during GetObject"  # pyarrow's error for a failed S3 read that it does not retry itself
_SMALL = 1 << 16  # bytes up to which a remote file is fetched in one request instead of many small reads
PARTIAL = "."  # prefix of the names of incomplete files and folders: PARTIAL, name, "-" and a random id
Content = TypeVar("Content")


def absolute(path: str) -> str:
    """Return an absolute local path; URIs are returned unchanged."""
    return path if re.match(r"[a-z][a-z0-9+.-]*:/", path) else str(Path(path).absolute())


def root_path(root: str) -> str:
    """Return a root as an absolute path or a URI, without a trailing slash."""
    return absolute(re.sub(r"^file:/+", "/", root.rstrip("/")))


def file_system(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return pyarrow's file system for a path or a URI in Spark's notation, and the path in that file system.

    Raises ValueError for an invalid URI or a scheme that pyarrow does not support.
    """
    if uri.startswith("file:"):
        uri = re.sub(r"^file:/+", "/", unquote(uri))
    if uri.startswith("dbfs:/"):
        uri = "/dbfs/" + uri.removeprefix("dbfs:/").lstrip("/")
    if "://" not in uri:
        return pyarrow.fs.LocalFileSystem(), str(Path(uri).absolute())
    parts = re.fullmatch(r"([^?/]+//[^?/]*)([^?]*)(\?.*)?", re.sub(r"^s3[an]://", "s3://", uri))
    if parts is None:
        raise ValueError(f"{uri[:200]!r} is not a URI")
    files, base = _store(parts[1] + (parts[3] or ""))
    return files, base.rstrip("/") + unquote(parts[2])


@lru_cache(maxsize=64)
def _store(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the file system of a bucket, container or cluster; connects once per process."""
    return pyarrow.fs.FileSystem.from_uri(uri)  # type: ignore[no-any-return]


def is_local(uri: str) -> bool:
    """Return whether a path or URI is on the local file system."""
    return isinstance(file_system(uri)[0], pyarrow.fs.LocalFileSystem)


@lru_cache(maxsize=4096)
def parquet_footer(uri: str) -> pq.FileMetaData:
    """Return the footer of a table's Parquet file. Cached for later tasks, because Delta files never change."""
    return pq.read_metadata(_input(uri))


def open_parquet(
    uri: str, footer: pq.FileMetaData = None, *, coded: Sequence[str] = (), buffer_bytes: int = 0
) -> pq.ParquetFile:
    """Open a Parquet file for reading row groups. ``footer`` is its footer, if it has already been read.

    ``coded`` names text columns to read as dictionaries. Local files are memory-mapped; from remote files, requested
    data is fetched at once. With ``buffer_bytes``, each column is read through a buffer of that size instead, so
    that memory does not depend on the size of the file or row group.
    """
    return pq.ParquetFile(
        _stream(uri) if buffer_bytes else _input(uri),
        metadata=footer,
        read_dictionary=list(coded),
        coerce_int96_timestamp_unit="us",
        pre_buffer=not buffer_bytes and not is_local(uri),
        buffer_size=buffer_bytes,
    )


def _input(uri: str) -> pa.NativeFile:
    return pa.memory_map(file_system(uri)[1]) if is_local(uri) else _stream(uri)


def _stream(uri: str) -> pa.NativeFile:
    files, path = file_system(uri)
    stream = files.open_input_file(path)
    size = stream.size()
    if is_local(uri) or size > _SMALL:
        return stream
    with stream:
        return pa.BufferReader(with_retries(lambda: stream.read_at(size, 0)))


def with_retries(read: Callable[[], Content]) -> Content:
    """Read, and retry the errors that pyarrow does not retry itself."""
    for _ in range(_READ_ATTEMPTS - 1):
        try:
            return read()
        except OSError as error:
            if _NOT_RETRIED not in str(error):
                raise
    return read()


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file atomically: under a temporary name, synced, then renamed. Readers never see a partial file."""
    files, path = file_system(uri)
    if not isinstance(files, pyarrow.fs.LocalFileSystem):
        with around(f"file:{path.rpartition('/')[2]}"), files.open_output_stream(path) as stream:
            stream.write(content)  # in object stores, a file becomes visible when it is complete
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f"{PARTIAL}{target.name}-{uuid.uuid4().hex}")
    try:
        _write_new(staged, content)
        with around(f"file:{target.name}"):
            os.replace(staged, target)
    except OSError:  # such as a full disk, on which staged files would add up
        staged.unlink(missing_ok=True)
        raise


def _write_new(file: Path, content: bytes, mode: int = 0o666) -> None:
    """Write and sync a file that must not exist yet; its permissions are ``mode`` minus the umask."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def write_folder(uri: str, files: Mapping[str, bytes], *, mode: int = 0o666) -> None:
    """Write a folder of files atomically: under a temporary name, synced, then renamed.

    Object stores have no atomic rename, so there the files are written in order, and readers must treat a folder
    without its last file as missing. On a local disk, the permissions of the files are ``mode`` minus the umask.

    Raises FileExistsError if the folder exists and is not empty.
    """
    system, path = file_system(uri)
    if folder_names(uri):
        raise FileExistsError(path)
    if not isinstance(system, pyarrow.fs.LocalFileSystem):
        for name, content in files.items():
            write_bytes(f"{uri}/{name}", content)
        return
    target = Path(path)
    partial = target.with_name(f"{PARTIAL}{target.name}-{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        for name, content in files.items():
            _write_new(partial / name, content, mode)
        _sync(partial)
        with around(f"folder:{target.name}"):
            partial.rename(target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno == errno.ENOTEMPTY:  # written since the check
            raise FileExistsError(path) from None
        raise
    _sync(target.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folder_names(uri: str) -> list[str]:
    """Return the sorted names of the entries of a folder; none if the folder does not exist."""
    return sorted(entry.base_name for entry in _entries(uri))


def newest_change(uri: str) -> datetime:
    """Return the time of the newest entry of a folder (naive UTC); 1970 if it is missing or empty."""
    times = [entry.mtime.astimezone(UTC).replace(tzinfo=None) for entry in _entries(uri) if entry.mtime is not None]
    return max(times, default=EPOCH)


def _entries(uri: str, *, recursive: bool = False) -> list[pyarrow.fs.FileInfo]:
    """Return the entries of a folder; none if the folder does not exist."""
    files, path = file_system(uri)
    return list(files.get_file_info(pyarrow.fs.FileSelector(path, allow_not_found=True, recursive=recursive)))


def read_bytes(uri: str, *, max_bytes: int) -> bytes:
    """Read a file. Raises ValueError if it is larger than ``max_bytes``, FileNotFoundError if it does not exist."""
    files, path = file_system(uri)
    size = files.get_file_info(path).size
    if size is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if size > max_bytes:
        raise ValueError(f"{path}: {size} bytes, more than the limit of {max_bytes} for such a file")

    def read_all() -> bytes:
        with files.open_input_stream(path) as stream:
            return stream.readall()  # type: ignore[no-any-return]

    return with_retries(read_all)


def exists(uri: str) -> bool:
    """Return whether a file or folder exists."""
    files, path = file_system(uri)
    return bool(files.get_file_info(path).type != pyarrow.fs.FileType.NotFound)


def all_exist(uris: Sequence[str]) -> bool:
    """Return whether all files exist. They must be on one file system, which checks several at once."""
    if not uris:
        return True
    files = file_system(uris[0])[0]
    entries = files.get_file_info([file_system(uri)[1] for uri in uris])
    return all(entry.type == pyarrow.fs.FileType.File for entry in entries)


def delete_file(uri: str) -> None:
    """Delete a file."""
    files, path = file_system(uri)
    with around(f"delete:{path.rpartition('/')[2]}"):
        files.delete_file(path)


def delete_partials(uri: str, *, older_than: timedelta) -> int:
    """Delete the partial files and folders that killed writers have left below a folder; return their number.

    Entries younger than ``older_than`` are kept, because a writer may still be working on them. Cost: a listing.
    """
    files, before = file_system(uri)[0], datetime.now(UTC) - older_than
    entries = _entries(uri, recursive=True)
    old = [entry for entry in entries if entry.base_name.startswith(PARTIAL) and entry.mtime and entry.mtime < before]
    for entry in old:
        is_folder = entry.type == pyarrow.fs.FileType.Directory
        files.delete_dir(entry.path) if is_folder else files.delete_file(entry.path)
    return len(old)


def delete_folder(uri: str) -> None:
    """Delete a folder with its contents, if it exists."""
    if exists(uri):
        files, path = file_system(uri)
        with around(f"delete:{path.rpartition('/')[2]}"):
            files.delete_dir(path)
