"""Rows of CSV and JSON files as text, which is how Spark reads them, too."""

import csv
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv

from userrep.sources.listing import COMPRESSED, DataFile

_HEADER_BYTES = 1 << 16
_VALUE = re.compile(r"\s*([+-]?[0-9]+([.][0-9]*)?\s*$|[0-9]{4}-[0-9])")  # a number or a time


class Part(NamedTuple):
    """Rows of a file: all, or the first, middle and last ones; of a large compressed file, only the first ones.

    num_bytes : of the rows as stored in the file, approximately. sees_end : whether the last rows are included.
    """

    rows: pa.Table
    num_unparsable: int
    num_bytes: int
    is_whole: bool
    sees_end: bool


def read_csv(file: DataFile, max_bytes: int, *, like: DataFile) -> Part:
    """Read rows of a CSV file. Its header must be that of ``like``, since Spark names columns by one file's header.

    Raises
    ------
    ValueError
        If the header is not one of comma-separated, distinct names, or differs from that of ``like``.
    """
    names = csv_header(file)
    if names != csv_header(like):
        raise ValueError(f"the headers of {like.path} and {file.path} differ; all files need the same one")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"the header names {', '.join(map(repr, repeated))} twice")
    if len(names) < 2:
        raise ValueError("the first line has no commas; a header with comma-separated names is expected")
    if any(_VALUE.match(name) for name in names):
        raise ValueError("the first line has numbers or times, like a row; add a header with the names of the columns")
    rejected: list[object] = []

    def skip(row: object) -> str:
        rejected.append(row)
        return "skip"

    text, num_bytes, is_whole, sees_end = _lines(file, max_bytes)
    rows = pyarrow.csv.read_csv(
        pa.py_buffer(text),
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=skip),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )
    return Part(rows, len(rejected), num_bytes, is_whole, sees_end)


def csv_header(file: DataFile) -> list[str]:
    """Return the column names in the first line of a CSV file."""
    with file.store.open_input_stream(file.path) as stream:
        first_line = stream.read(_HEADER_BYTES).partition(b"\n")[0]
    line = first_line.decode("utf-8-sig", errors="replace").rstrip("\r")
    return next(csv.reader([line]), [])


def read_json(file: DataFile, max_bytes: int, *, like: DataFile) -> Part:  # noqa: ARG001  # as read_csv
    """Read rows of a file with one JSON object per line. Nested fields are named by dotted path.

    Raises
    ------
    ValueError
        If no line is a JSON object.
    """
    rows: list[dict[str, str | None]] = []
    num_unparsable = 0
    text, num_bytes, is_whole, sees_end = _lines(file, max_bytes)
    for line in text.decode("utf-8-sig", errors="replace").split("\n"):
        if line.strip():
            row = _json_object(line)
            num_unparsable += row is None
            rows += [row] if row is not None else []
    if not rows:
        raise ValueError("no line is a JSON object; one object per line is expected")
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    return Part(pa.table(columns), num_unparsable, num_bytes, is_whole, sees_end)


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


def _lines(file: DataFile, max_bytes: int) -> tuple[bytes, int, bool, bool]:
    """Return whole lines of a file, their number of bytes as stored, and whether they are all and include the last."""
    with file.store.open_input_file(file.path) as raw:
        if COMPRESSED.search(file.path):
            stream = pa.CompressedInputStream(raw, pa.Codec.detect(file.path).name)
            text = stream.read(max_bytes + 1)
            if len(text) <= max_bytes:
                return text, file.size, True, True
            return text[: text.rfind(b"\n") + 1], raw.tell(), False, False
        if file.size <= max_bytes:
            return raw.read(), file.size, True, True
        size = max_bytes // 3
        first, middle = raw.read_at(size, 0), raw.read_at(size, (file.size - size) // 2).partition(b"\n")[2]
        last = raw.read_at(size, file.size - size).partition(b"\n")[2]
        text = first[: first.rfind(b"\n") + 1] + middle[: middle.rfind(b"\n") + 1] + last
        return text, len(text), False, True
