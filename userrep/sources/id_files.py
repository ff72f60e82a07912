"""Files of user ids that a caller names: text, CSV, Parquet, or the folder of an export."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet as pq

from userrep.errors import UsageError, first_line
from userrep.store.arrow import combined, decoded, is_text
from userrep.store.filesystem import file_system, open_parquet, read_bytes

_MOST_BYTES = 1024  # of an id
_MOST_FILE_BYTES = 2**31  # of a text file in an object store
_COLUMNS = ("user_id", "space_id")


@dataclass(frozen=True)
class IdFile:
    """The distinct user ids of a file, in order, and the spaces that it names, in a column or a manifest."""

    user_ids: pa.StringArray
    space_ids: frozenset[str] = frozenset()


def read_ids(path: Path | str, option: str = "--users") -> list[str]:
    """Read user ids from a UTF-8 text file, one per line. Blank lines and duplicates are ignored.

    Raises
    ------
    UsageError
        If the file cannot be read, is not UTF-8, has no ids, or has a line longer than 1024 bytes.
    """
    where = f"{option} {path}"
    try:
        content = _content(str(path)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{where}: not UTF-8 text. Write one user id per line.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: {_reason(error)}. Name a text file with one user id per line.") from None
    lines = content.replace("\r\n", "\n").split("\n")
    ids = list(dict.fromkeys(line for line in lines if line.strip()))
    if not ids:
        raise UsageError(f"{where}: no user ids in the file. Write one per line.")
    long = next((k for k, line in enumerate(lines, 1) if len(line.encode()) > _MOST_BYTES), None)
    if long is not None:
        raise UsageError(f"{where}: line {long} is longer than {_MOST_BYTES} bytes. Write one user id per line.")
    return ids


def _content(path: str) -> bytes:
    """Read a file, also a pipe such as ``/dev/stdin``."""
    files, target = file_system(path)
    if isinstance(files, pyarrow.fs.LocalFileSystem):
        return Path(target).read_bytes()
    return read_bytes(path, max_bytes=_MOST_FILE_BYTES)


def read_id_file(path: str, option: str) -> IdFile:
    """Read user ids from a file or from the folder of an export or audience. Memory: the ids, a few times.

    ``.csv`` and ``.parquet`` files need a column ``user_id``; a column ``space_id`` names the space of the ids. All
    other files are text with one id per line. Ids that are whole numbers become text.

    Raises
    ------
    UsageError
        As ``read_ids``, or if a file has no such column, or a folder is not a complete export of users.
    """
    try:
        files, target = file_system(path)
        if files.get_file_info(target).type == pyarrow.fs.FileType.Directory:
            return _of_export(path)
        if path.lower().endswith((".parquet", ".pq")):
            return _of_table(_id_columns(pq.ParquetFile(target, filesystem=files)))
        if path.lower().endswith(".csv"):
            as_text = dict.fromkeys(_COLUMNS, pa.string())
            with files.open_input_stream(target) as stream:
                options = pyarrow.csv.ConvertOptions(column_types=as_text)
                return _of_table(pyarrow.csv.read_csv(stream, convert_options=options))
    except (OSError, ValueError) as error:  # ValueError: also pyarrow's errors about the content
        raise UsageError(f"{option} {path}: {_reason(error)}. Name a file with a column user_id.") from None
    return IdFile(pa.array(read_ids(path, option), pa.string()))


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or first_line(error)


def _of_export(folder: str) -> IdFile:
    """Return the ids of an export or audience. Raises OSError or ValueError if the folder is not a complete one."""
    from userrep.store.export_files import read_manifest  # imports Spark

    manifest = read_manifest(folder)
    if manifest.get("state") != "complete" or not isinstance(manifest.get("sha256"), dict):
        raise ValueError("the folder is not a complete export")
    parts = [_of_table(_id_columns(open_parquet(f"{folder}/{name}"))) for name in manifest["sha256"]]
    ids = pa.concat_arrays([pa.array([], pa.string()), *(part.user_ids for part in parts)])
    return IdFile(ids, frozenset({manifest["space_id"]} if "space_id" in manifest else ()))


def _id_columns(file: pq.ParquetFile) -> pa.Table:
    """Read only the columns with ids; all columns of a file without ids, whose names are then in the error."""
    names = [name for name in _COLUMNS if name in file.schema_arrow.names]
    return file.read(columns=names) if "user_id" in names else file.schema_arrow.empty_table()


def _of_table(rows: pa.Table) -> IdFile:
    if "user_id" not in rows.column_names:
        raise ValueError(f"no column user_id; columns found: {', '.join(rows.column_names)}")
    spaces = (
        rows["space_id"].drop_null().unique().cast(pa.string()).to_pylist() if "space_id" in rows.column_names else []
    )
    return IdFile(as_ids(combined(rows["user_id"])), frozenset(spaces))


def as_ids(values: pa.Array) -> pa.StringArray:
    """Return the distinct ids in a column, in order, as text. Nulls and blanks are dropped. See ``id_texts``."""
    ids = id_texts(values).drop_null().unique()
    return ids.filter(pc.not_equal(pc.utf8_trim_whitespace(ids), ""))


def id_texts(values: pa.Array) -> pa.StringArray:
    """Return a column of ids as text, as ``sources.columns.id_text`` does with Spark.

    Whole numbers in a floating-point or decimal column become text without ``.0``. Raises ValueError for other numbers,
    and for columns of other types.
    """
    values = decoded(values)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_finite(values), values, None).cast(pa.int64())
    elif pa.types.is_decimal(values.type):
        return values.cast(pa.decimal128(38)).cast(pa.string())
    if not (is_text(values.type) or pa.types.is_integer(values.type) or pa.types.is_null(values.type)):
        raise ValueError(f"user_id must be of type string, got {values.type}")
    return values.cast(pa.string())
