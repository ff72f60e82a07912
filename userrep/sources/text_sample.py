"""Rows of CSV and JSON files as text, which is how Spark reads them, too."""

import csv
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv

from userrep.sources.listing import COMPRESSED, DataFile

_HEADER_BYTES = 1 << 16


class Part(NamedTuple):
    """The first rows of a file. ``num_bytes``: of the file as stored, up to the last row read, approximately."""

    rows: pa.Table
    num_bytes: int
    num_unparsable: int
    is_whole: bool


def read_csv(file: DataFile, max_bytes: int, *, like: DataFile) -> Part:
    """Read the first rows of a CSV file. The header of ``like`` names the columns, since all files have its columns.

    Raises
    ------
    ValueError
        If the header is not one of comma-separated, distinct names.
    """
    names = csv_header(like)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"the header names {', '.join(map(repr, repeated))} twice")
    if len(names) < 2:
        raise ValueError("the first line has no commas; a header with comma-separated names is expected")
    rejected: list[object] = []

    def skip(row: object) -> str:
        rejected.append(row)
        return "skip"

    text, num_bytes, is_whole = _head(file, max_bytes)
    rows = pyarrow.csv.read_csv(
        pa.py_buffer(text),
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=1),
        parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=skip),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )
    return Part(rows, num_bytes, len(rejected), is_whole)


def csv_header(file: DataFile) -> list[str]:
    """Return the column names in the first line of a CSV file."""
    first_line = _head(file, _HEADER_BYTES)[0].partition(b"\n")[0]
    line = first_line.decode("utf-8-sig", errors="replace").rstrip("\r")
    return next(csv.reader([line]), [])


def read_json(file: DataFile, max_bytes: int, *, like: DataFile) -> Part:  # noqa: ARG001  # as read_csv
    """Read the first rows of a file with one JSON object per line. Nested fields are named by dotted path.

    Raises
    ------
    ValueError
        If no line is a JSON object.
    """
    rows: list[dict[str, str | None]] = []
    num_unparsable = 0
    text, num_bytes, is_whole = _head(file, max_bytes)
    for line in text.decode("utf-8-sig", errors="replace").split("\n"):
        if line.strip():
            row = _json_object(line)
            num_unparsable += row is None
            rows += [row] if row is not None else []
    if not rows:
        raise ValueError("no line is a JSON object; one object per line is expected")
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    return Part(pa.table(columns), num_bytes, num_unparsable, is_whole)


def _json_object(line: str) -> dict[str, str | None] | None:
    try:
        value = json.loads(line, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    return dict(_leaves("", value)) if isinstance(value, dict) else None


def _leaves(path: str, values: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(f"{path}{name}.", value)
        elif value is None or isinstance(value, str):
            yield f"{path}{name}", value
        else:
            yield f"{path}{name}", json.dumps(value)


def _head(file: DataFile, max_bytes: int) -> tuple[bytes, int, bool]:
    """Return the first lines of a file, the number of its bytes that they take as stored, and whether they are all."""
    with file.store.open_input_file(file.path) as raw:
        stream = raw
        if COMPRESSED.search(file.path):
            stream = pa.CompressedInputStream(raw, pa.Codec.detect(file.path).name)
        text = stream.read(max_bytes + 1)
        if len(text) <= max_bytes:
            return text, file.size, True
        return text[: text.rfind(b"\n") + 1], raw.tell(), False
