"""Listing of a source's data files without Spark, and detection of their format."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import pyarrow.fs
from deltalake.exceptions import DeltaError

from userrep.errors import UsageError
from userrep.sources.read import base_folder, check_local
from userrep.store.delta_files import DeltaFiles
from userrep.store.filesystem import file_system

COMPRESSED = re.compile(r"\.(gz|bz2|zst)$")
_FORMATS = {"parquet": "parquet", "pq": "parquet", "json": "json", "jsonl": "json", "ndjson": "json", "csv": "csv"}
_FILES_SNIFFED = 100

Part = TypeVar("Part")


class DataFile(NamedTuple):
    """A data file: its path in pyarrow's file system, its size in bytes, and the values of its partition folders."""

    store: pyarrow.fs.FileSystem
    path: str
    size: int
    partitions: dict[str, str]


def spread(parts: Sequence[Part], at_most: int) -> Sequence[Part]:
    """Return at most so many parts, evenly spread over the sequence, the first and the last included."""
    if len(parts) <= at_most:
        return parts
    return [parts[k * (len(parts) - 1) // max(1, at_most - 1)] for k in range(at_most)]


def list_files(path: str, format_: str | None, what: str) -> list[DataFile]:
    """List the data files of a file, a folder, a pattern or, with format ``delta``, a Delta table, by path.

    Empty files, and files and folders whose names start with ``_`` or a dot, are left out. Cost: one listing.

    Raises
    ------
    UsageError
        If there are none, or if pyarrow cannot list the path.
    """
    check_local(path, what)
    try:
        store, target = file_system(path)
        base = file_system(base_folder(path))[1]
        if format_ == "delta":
            infos = store.get_file_info([f"{target}/{file.path}" for file in DeltaFiles(path).files()])
        elif store.get_file_info(target).type == pyarrow.fs.FileType.File:
            infos = [store.get_file_info(target)]
        else:
            infos = store.get_file_info(pyarrow.fs.FileSelector(base, recursive=True))
    except (OSError, ValueError, DeltaError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UsageError(f"{what}.path {path}: cannot be listed without Spark ({reason}).") from None
    files = sorted(_data_files(store, infos, target, base), key=lambda file: file.path)
    if not files:
        raise UsageError(
            f"{what}.path {path}: no data files. Name a file, a folder or a pattern such as DIR/*.parquet."
        )
    return files


def _data_files(
    store: pyarrow.fs.FileSystem, infos: Iterable[pyarrow.fs.FileInfo], target: str, base: str
) -> Iterable[DataFile]:
    pattern = re.compile(re.escape(target).replace(r"\*", "[^/]*") + "(/.*)?")  # a matching folder is read whole
    for info in infos:
        folders = info.path.removeprefix(base).strip("/").split("/")
        is_hidden = any(part[:1] in ("_", ".") and "=" not in part for part in folders)
        if info.type == pyarrow.fs.FileType.File and info.size and not is_hidden and pattern.fullmatch(info.path):
            values = (part.partition("=") for part in folders[:-1] if "=" in part)
            yield DataFile(store, info.path, info.size, {name: value for name, _, value in values})


def detect_format(path: str, what: str) -> str:
    """Return the format of a source: from a Delta log, file names, or the first bytes of the files.

    Raises
    ------
    UsageError
        If the files are of several formats.
    """
    check_local(path, what)
    if "*" not in path and _is_delta(path):
        return "delta"
    files = list_files(path, None, what)
    formats = sorted({format_of_file(file) for file in spread(files, _FILES_SNIFFED)})
    if len(formats) > 1:
        raise UsageError(
            f"{what}.path {path}: files of several formats ({', '.join(formats)}). Name a pattern such as "
            f"{base_folder(path).rstrip('/')}/*.{formats[0]}."
        )
    return formats[0]


def _is_delta(path: str) -> bool:
    try:
        return DeltaFiles(path).exists()
    except (OSError, DeltaError):
        return False


def format_of_file(file: DataFile) -> str:
    """Return the format of a file: from its name, or its first bytes."""
    suffix = COMPRESSED.sub("", file.path).rpartition(".")[2].lower()
    if suffix in _FORMATS:
        return _FORMATS[suffix]
    with file.store.open_input_stream(file.path) as stream:
        head = bytes(stream.read(64)).lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    return "json" if head.startswith((b"{", b"[")) else "csv"
