"""Files beside the tables: artifacts, and the Parquet files that workers read without Spark."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from userrep.config import Config
from userrep.errors import UsageError
from userrep.failpoints import around

_READS = 5  # of few bytes in S3: of an error with a text longer than they are pyarrow says this, and tries no more
_UNTRIED = "INTERNAL_FAILURE during GetObject"
_SMALL = 1 << 16  # bytes of a file that is fetched whole: each read is a request, and some are of few bytes
PARTIAL = "."  # begins the names of what is not whole yet


def artifacts_root(config: Config) -> str:
    """Return the folder of artifacts: ``root``, ``artifacts``, or the volume ``userrep`` of the catalog's schema."""
    return absolute(config.root or config.artifacts or f"/Volumes/{config.catalog}/{config.schema_}/userrep")


def absolute(path: str) -> str:
    """Make a local path absolute; a URI stays as it is."""
    return path if re.match(r"[a-z][a-z0-9+.-]*:/", path) else str(Path(path).absolute())


def file_system(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return pyarrow's file system for a path or URI as Spark writes it, and the path in it.

    Raises ValueError for what is no URI, or one of a kind that pyarrow does not know.
    """
    if uri.startswith("file:"):
        uri = re.sub(r"^file:/+", "/", unquote(uri))
    if uri.startswith("dbfs:/"):
        uri = "/dbfs/" + uri.removeprefix("dbfs:/").lstrip("/")
    if "://" not in uri:
        return pyarrow.fs.LocalFileSystem(), str(Path(uri).absolute())
    parts = re.fullmatch(r"([^?/]+//[^?/]*)([^?]*)(\?.*)?", re.sub(r"^s3[an]://", "s3://", uri))
    if parts is None:
        raise ValueError(f"{uri[:200]!r} is no URI")
    files, base = _store(parts[1] + (parts[3] or ""))
    return files, base.rstrip("/") + unquote(parts[2])


@lru_cache(maxsize=64)
def _store(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Connect to a bucket, container or cluster once in a process."""
    return pyarrow.fs.FileSystem.from_uri(uri)  # type: ignore[no-any-return]


def is_local(uri: str) -> bool:
    """Say whether a path or URI is on this machine's file system."""
    return isinstance(file_system(uri)[0], pyarrow.fs.LocalFileSystem)


@lru_cache(maxsize=4096)
def parquet_footer(uri: str) -> pq.FileMetaData:
    """Return the footer of a table's Parquet file, kept for the tasks to come: Delta's files never change."""
    return pq.read_metadata(_input(uri))


def open_parquet(
    uri: str, footer: pq.FileMetaData = None, *, coded: Sequence[str] = (), buffer_bytes: int = 0
) -> pq.ParquetFile:
    """Open a Parquet file to read row groups of it; ``footer``: where it has been read already.

    ``coded``: text columns that are read as dictionaries. A local file is mapped into memory, not copied; of others,
    what is asked for is fetched at once. With ``buffer_bytes``, each column is read through a buffer of that size
    instead, so that memory does not follow the size of a file or row group.
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
        return pa.BufferReader(_tried(lambda: stream.read_at(size, 0)))


def _tried(read: Callable[[], bytes]) -> bytes:
    """Read, once more where pyarrow does not try again by itself."""
    for tries_left in range(_READS - 1, -1, -1):
        try:
            return read()
        except OSError as error:
            if not tries_left or _UNTRIED not in str(error):
                raise
    raise AssertionError


def staged_name(name: str) -> str:
    """Return how the names begin under which ``write_bytes`` writes a file before it renames it."""
    return f"{PARTIAL}{name}-"


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file whole: under a temporary name, synced, then renamed. A reader never sees half of it."""
    files, path = file_system(uri)
    if not isinstance(files, pyarrow.fs.LocalFileSystem):
        with around(f"file:{path.rpartition('/')[2]}"), files.open_output_stream(path) as stream:
            stream.write(content)  # object stores show a file when it is complete
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f"{staged_name(target.name)}{uuid.uuid4().hex}")
    _write_new(staged, content)
    with around(f"file:{target.name}"):
        os.replace(staged, target)


def _write_new(file: Path, content: bytes, mode: int = 0o666) -> None:
    """Write and sync a file that must not exist; the system takes the bits of its umask from ``mode``."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def write_folder(uri: str, files: Mapping[str, bytes], *, mode: int = 0o666) -> None:
    """Write a folder of files whole or not at all: beside its place first, synced, then renamed.

    An object store has no such rename. There the files are written in their order: a folder without its last file is
    none. Raises FileExistsError if the folder is there already, and is not empty. ``mode``: of the files on a local
    disk, less the umask.
    """
    system, path = file_system(uri)
    if exists(uri) and folder_names(uri):
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
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync(target.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folder_names(uri: str) -> list[str]:
    """Return the names of what lies in a folder, sorted; none where there is no such folder."""
    files, path = file_system(uri)
    found = files.get_file_info(pyarrow.fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found)


def read_bytes(uri: str, *, max_bytes: int) -> bytes:
    """Read a file whole. Raises ValueError if it is larger than ``max_bytes``, FileNotFoundError if it is not there."""
    files, path = file_system(uri)
    size = files.get_file_info(path).size
    if size is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if size > max_bytes:
        raise ValueError(f"{path}: {size} bytes, more than the {max_bytes} that such a file may have")

    def whole() -> bytes:
        with files.open_input_stream(path) as stream:
            return stream.readall()  # type: ignore[no-any-return]

    return _tried(whole)


def exists(uri: str) -> bool:
    """Say whether a file or folder is there."""
    files, path = file_system(uri)
    return bool(files.get_file_info(path).type != pyarrow.fs.FileType.NotFound)


def all_exist(uris: Sequence[str]) -> bool:
    """Say whether all of these files are there; they are of one file system. Looks at several at once."""
    if not uris:
        return True
    files = file_system(uris[0])[0]
    found = files.get_file_info([file_system(uri)[1] for uri in uris])
    return all(info.type == pyarrow.fs.FileType.File for info in found)


def delete_file(uri: str) -> None:
    """Remove a file."""
    files, path = file_system(uri)
    with around(f"delete:{path.rpartition('/')[2]}"):
        files.delete_file(path)


def delete_partials(uri: str, *, older_than: timedelta) -> int:
    """Delete what writers that were killed have left below a folder; return how many. Cost: a listing.

    ``older_than``: a writer may still be at work on what is younger.
    """
    files, path = file_system(uri)
    found = files.get_file_info(pyarrow.fs.FileSelector(path, recursive=True, allow_not_found=True))
    before, num = datetime.now(UTC) - older_than, 0
    for info in found:
        if info.base_name.startswith(PARTIAL) and info.mtime is not None and info.mtime < before:
            is_folder = info.type == pyarrow.fs.FileType.Directory
            files.delete_dir(info.path) if is_folder else files.delete_file(info.path)
            num += 1
    return num


def delete_folder(uri: str) -> None:
    """Remove a folder with all that is in it."""
    files, path = file_system(uri)
    with around(f"delete:{path.rpartition('/')[2]}"):
        files.delete_dir(path)


def names_in_out(out: str) -> list[str]:
    """Return the names in the folder that a command is to write to; none where it is not there yet.

    Raises
    ------
    UsageError
        If it cannot be looked into, is a file, or lies where this user may not write.
    """
    try:
        files, path = file_system(out)
        kind = files.get_file_info(path).type
        is_folder = kind == pyarrow.fs.FileType.Directory
        names = [file.base_name for file in files.get_file_info(pyarrow.fs.FileSelector(path))] if is_folder else []
    except (OSError, ValueError) as error:
        raise UsageError(f"--out {out}: not a folder that can be looked into ({error}).") from None
    if kind == pyarrow.fs.FileType.File:
        raise UsageError(f"--out {out}: a file is there; name a folder.")
    if isinstance(files, pyarrow.fs.LocalFileSystem):
        try:
            _check_access(path)
        except OSError as error:
            raise UsageError(f"--out {out}: {error.strerror}; name another one.") from None
    return names


def check_new_folder(out: str) -> None:
    """Refuse to write into a folder that holds anything. Nothing is made or changed.

    Raises
    ------
    UsageError
        If the folder is not empty, is a file, or lies where this user may not write.
    """
    names = sorted(names_in_out(out))
    if names:
        raise UsageError(f"--out {out}: the folder is not empty ({', '.join(names[:3])}); name another one.")


def check_writable(uri: str) -> None:
    """Refuse a folder that this user could not make or write to. On a local disk nothing is made.

    Raises
    ------
    UsageError
        With the reason.
    """
    try:
        files, path = file_system(uri)
        if isinstance(files, pyarrow.fs.LocalFileSystem):
            return _check_access(path)
        probe = f"{path}/.userrep-write-check"
        with files.open_output_stream(probe):
            pass
        files.delete_file(probe)
    except (OSError, ValueError) as error:  # ValueError: a scheme that pyarrow does not know
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UsageError(f"root {uri}: not writable ({reason}). Name another one, or have it opened for you.") from None


def _check_access(path: str) -> None:
    """Raise OSError if a local folder cannot be written to, or made in the nearest one that is there."""
    nearest = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{nearest} is not a folder that this user may write to")
