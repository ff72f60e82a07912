"""Listing of a source's data files without Spark, and detection of their format."""

import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from userrep.config import Source
from userrep.errors import UsageError, first_line
from userrep.store.data_files import files_of
from userrep.store.filesystem import absolute, file_system
from userrep.utc import EPOCH

COMPRESSED = re.compile(r"\.(gz|bz2|zst)$")
_FORMATS = {"parquet": "parquet", "pq": "parquet", "json": "json", "jsonl": "json", "ndjson": "json", "csv": "csv"}
_GLOB = re.compile(r"[*?\[{]")
_FILES_SNIFFED = 100
_MAX_FOOTERS = 2000  # read per source, in about a second; sources of more files have no footers here

Part = TypeVar("Part")


class DataFile(NamedTuple):
    """A data file: its path in pyarrow's file system, its size in bytes, and the values of its partition folders.

    ``modified_at``: naive UTC, to the millisecond, as Spark lists it.
    """

    store: pyarrow.fs.FileSystem
    path: str
    size: int
    modified_at: datetime
    partitions: dict[str, str]


class Listings:
    """The files of sources and their Parquet footers. Each source is listed once, and each footer is read once."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, bool], list[DataFile]] = {}
        self._footers: dict[tuple[str, bool], list[pq.FileMetaData]] = {}

    def files(self, source: Source, what: str) -> list[DataFile]:
        """Return the files of a source. Raises what ``list_files`` does."""
        key = source.path, source.format == "delta"
        if key not in self._files:
            self._files[key] = list_files(source.path, source.format, what)
        return self._files[key]

    def footers(self, source: Source, what: str) -> list[pq.FileMetaData]:
        """Return the footers of a Parquet or Delta source.

        Empty if the source has none, has more than 2,000 files, or has a file that is not readable.
        """
        key = source.path, source.format == "delta"
        if source.format in ("parquet", "delta") and key not in self._footers:
            self._footers[key] = self._read_footers(source, what)
        return self._footers.get(key, [])

    def _read_footers(self, source: Source, what: str) -> list[pq.FileMetaData]:
        try:
            if source.format == "delta" and len(DeltaTable(source.path).file_uris()) > _MAX_FOOTERS:
                return []  # before listing each file
            files = self.files(source, what)
            return [read_footer(file) for file in files] if len(files) <= _MAX_FOOTERS else []
        except (UsageError, DeltaError, pa.ArrowException, OSError):
            return []


def read_footer(file: DataFile) -> pq.FileMetaData:
    """Read the footer of a Parquet file."""
    return pq.read_metadata(file.path, filesystem=file.store)


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
        location = as_spark_reads(path)
        store, target = file_system(location)
        base = file_system(base_folder(location))[1]
        if format_ == "delta":
            infos = store.get_file_info([f"{target}/{file.path}" for file in files_of(DeltaTable(location))])
        elif store.get_file_info(target).type == pyarrow.fs.FileType.File:
            infos = [store.get_file_info(target)]
        else:
            infos = store.get_file_info(pyarrow.fs.FileSelector(base, recursive=True))
    except TableNotFoundError:
        raise no_delta(path, what) from None
    except (OSError, ValueError, DeltaError) as error:
        raise UsageError(f"{what}.path {path}: cannot be listed without Spark ({first_line(error)}).") from None
    files = sorted(_data_files(store, infos, target, base), key=lambda file: file.path)
    if not files:
        raise no_files(path, what)
    return files


def no_files(path: str, what: str) -> UsageError:
    """Return the error of a path without data files."""
    return UsageError(f"{what}.path {path}: no data files. Name a file, a folder or a pattern such as DIR/*.parquet.")


def _data_files(
    store: pyarrow.fs.FileSystem, infos: Iterable[pyarrow.fs.FileInfo], target: str, base: str
) -> Iterable[DataFile]:
    pattern = re.compile(_regex(target) + "(/.*)?")  # a folder is read whole
    for info in infos:
        folders = info.path.removeprefix(base).strip("/").split("/")
        is_hidden = any(part[:1] in ("_", ".") and "=" not in part for part in folders)
        if info.type == pyarrow.fs.FileType.File and info.size and not is_hidden and pattern.fullmatch(info.path):
            values = (part.partition("=") for part in folders[:-1] if "=" in part)
            modified_at = EPOCH + timedelta(milliseconds=info.mtime_ns // 1_000_000)
            yield DataFile(store, info.path, info.size, modified_at, {name: value for name, _, value in values})


def reads_below(path: str, folder: str) -> bool:
    """Return whether reading a path, which may be a pattern, also reads the files below a folder."""
    not_hidden = "(/[^_.][^/]*)*"
    return re.fullmatch(_regex(as_spark_reads(path).rstrip("/")) + not_hidden, as_spark_reads(folder)) is not None


def check_not_read(out: str, paths: Iterable[str]) -> None:
    """Raise UsageError if an output folder is inside one of these folders or patterns, whose files are all read."""
    for path in paths:
        if reads_below(path, out):
            raise UsageError(f"--out {out}: inside {path}, whose files are all read. Choose another folder.")


def _regex(path: str) -> str:
    """Translate a path, or a pattern of Hadoop with ``*``, ``?``, ``[a-c]``, ``[^a]``, ``[!a]`` and ``{a,b}``."""
    if not is_pattern(path):
        return re.escape(path)
    regex = re.escape(path).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    regex = re.sub(r"\\\[(.+?)\\\]", lambda part: "[" + re.sub("^!", "^", part[1].replace("\\", "")) + "]", regex)
    return re.sub(r"\\\{(.+?)\\\}", lambda part: "(?:" + part[1].replace(",", "|") + ")", regex)


def detect_format(path: str, what: str, listings: Listings) -> str:
    """Return the format of a source: from a Delta log, file names, or the first bytes of the files.

    Raises
    ------
    UsageError
        If the files are of several formats.
    """
    if not is_pattern(path) and is_delta(path):
        return "delta"
    files = listings.files(Source(path=path), what)
    formats = sorted({format_of_file(file) for file in spread(files, _FILES_SNIFFED)})
    if len(formats) > 1:
        raise UsageError(
            f"{what}.path {path}: files of several formats ({', '.join(formats)}). Name a pattern such as "
            f"{base_folder(path).rstrip('/')}/*.{formats[0]}."
        )
    return formats[0]


def is_delta(path: str) -> bool:
    """Return whether a path is that of a Delta table."""
    try:
        return bool(DeltaTable.is_deltatable(as_spark_reads(path)))
    except (OSError, DeltaError):
        return False


def no_delta(path: str, what: str) -> UsageError:
    """Return the error of a path with format ``delta`` that is not one of a Delta table."""
    cure = "Name the folder that contains _delta_log, or set another format"
    return UsageError(f"{what}.format: delta, but {path} is not a Delta table. {cure}.")


def hides_deletes(table: DeltaTable) -> bool:
    """Return whether a Delta table may have deletion vectors, which hide rows of its files."""
    return "deletionVectors" in (table.protocol().reader_features or [])


def deletions_version(path: str) -> int:
    """Return the newest version of a Delta table with deletion vectors; 0 without."""
    table = DeltaTable(as_spark_reads(path))
    return table.version() if hides_deletes(table) else 0


def format_of_file(file: DataFile) -> str:
    """Return the format of a file: from its name, or its first bytes. Raises UsageError for a zip archive."""
    suffix = re.sub(r"\.(gz|bz2|zst|lz4|snappy|deflate)$", "", file.path).rpartition(".")[2].lower()
    if suffix in _FORMATS:
        return _FORMATS[suffix]
    with file.store.open_input_stream(file.path) as stream:
        head = bytes(stream.read(64)).lstrip(b"\xef\xbb\xbf \t\r\n")  # a byte order mark, and white space
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK\x03\x04"):
        raise UsageError(f"{file.path}: a zip archive, which Spark cannot read. Unzip it; gzip works as it is.")
    return "json" if head.startswith((b"{", b"[")) else "csv"


def check_local(path: str, what: str) -> None:
    """Check that a path on a local disk exists. Raises UsageError."""
    is_checked = "://" not in path and not path.startswith(("dbfs:", "file:")) and not is_pattern(path)
    if is_checked and not Path(path).exists():
        raise UsageError(
            f"{what}.path {path}: does not exist. Relative paths start at the folder of the configuration file, or at "
            "the working directory if they are given on the command line."
        )


def base_folder(path: str) -> str:
    """Return the folder below which folder names are read as partition columns."""
    if is_pattern(path):
        return _GLOB.split(path, maxsplit=1)[0].rpartition("/")[0] or "."
    return str(Path(path).parent) if Path(as_spark_reads(path)).is_file() else path


def is_pattern(path: str) -> bool:
    """Return whether Spark reads a path as a pattern of files and folders."""
    return _GLOB.search(path) is not None


def folders_of(path: str) -> dict[str, str]:
    """Return the folders named ``column=value`` on a path, from which Spark may read columns, by lower-case name."""
    return {unquote(name).lower(): value for name, value in re.findall(r"([^/=]+)=([^/]*)/", path)}


def listed_uri(path: str) -> str:
    """Return the URI of a file of a log. Paths of listings have no escapes; URIs have."""
    return path.replace("%", "%25") if re.match(r"[a-z][a-z0-9+.-]*:/", path) else path


def driver_lists(path: str) -> bool:
    """Return whether this process lists a path as Spark does, so that no Spark job has to."""
    return re.match(r"/dbfs/|/Volumes/|[a-z0-9+.-]+:/", as_spark_reads(path)) is None


def as_spark_reads(path: str) -> str:
    """Return a local path as Spark reads it: absolute, without ``file:`` and ``..``, and with ``%20`` unchanged.

    URIs of other stores are returned unchanged.
    """
    local = absolute(re.sub(r"^file:/+", "/", path))
    return os.path.normpath(local) if local.startswith("/") else path
