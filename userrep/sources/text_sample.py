"""Rows of CSV and JSON files as text, as Spark reads them."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv

from userrep.sources.listing import COMPRESSED, DataFile
from userrep.sources.text_blocks import csv_header, json_object

_VALUE = re.compile(r"\s*([+-]?[0-9]+([.][0-9]*)?\s*$|[0-9]{4}-[0-9])")  # a number or a time


class Lines(NamedTuple):
    """Whole lines of a file: all, or the first, middle and last ones; of a large compressed file, only the first ones.

    num_bytes : of the lines as stored in the file, approximately. sees_end : whether the last lines are included.
    """

    text: bytes
    num_bytes: int
    is_whole: bool
    sees_end: bool


def csv_names(files: Sequence[DataFile]) -> list[str]:
    """Return the column names of CSV files. All need the same header, since Spark names columns by one file's header.

    Raises
    ------
    ValueError
        If the header is not one of comma-separated, distinct names, or differs between files.
    """
    names = csv_header(files[0].store, files[0].path)
    other = next((file for file in files if csv_header(file.store, file.path) != names), None)
    if other is not None:
        raise ValueError(f"the headers of {files[0].path} and {other.path} differ; all files need the same one")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"the header names {', '.join(map(repr, repeated))} twice")
    if len(names) < 2:
        raise ValueError("the first line has no commas; a header with comma-separated names is expected")
    if any(_VALUE.match(name) for name in names):
        raise ValueError("the first line has numbers or times, like a row; add a header with the names of the columns")
    return names


def csv_rows(text: bytes, names: list[str]) -> tuple[pa.Table, int]:
    """Parse lines of a CSV file, the header first; return the rows and the number of lines that are not rows."""
    rejected: list[object] = []

    def skip(row: object) -> str:
        rejected.append(row)
        return "skip"

    rows = pyarrow.csv.read_csv(
        pa.py_buffer(text.lstrip()),  # without blank lines above the header
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=skip),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )
    return rows, len(rejected)


def json_rows(text: bytes) -> tuple[pa.Table, int]:
    """Parse lines with one JSON object each; return the rows and the number of lines that are not rows.

    Nested fields are named by dotted path.

    Raises
    ------
    ValueError
        If no line is a JSON object.
    """
    lines = [line for line in text.decode("utf-8-sig", errors="replace").split("\n") if line.strip()]
    objects = [row for line in lines if (row := json_object(line, str)) is not None]
    rows = [dict(_leaves("", row)) for row in objects]
    if not rows:
        raise ValueError("no line is a JSON object; one object per line is expected")
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    return pa.table(columns), len(lines) - len(rows)


def _leaves(path: str, values: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(f"{path}{name}.", value)
        elif value is None or isinstance(value, str):
            yield f"{path}{name}", value
        else:
            yield f"{path}{name}", json.dumps(value)


def read_lines(file: DataFile, max_bytes: int) -> Lines:
    """Read lines of a file, about ``max_bytes`` at most, uncompressed."""
    with file.store.open_input_file(file.path) as raw:
        if COMPRESSED.search(file.path):
            stream = pa.CompressedInputStream(raw, pa.Codec.detect(file.path).name)
            text = stream.read(max_bytes + 1)
            if len(text) <= max_bytes:
                return Lines(text, file.size, is_whole=True, sees_end=True)
            return Lines(text[: text.rfind(b"\n") + 1], raw.tell(), is_whole=False, sees_end=False)
        if file.size <= max_bytes:
            return Lines(raw.read(), file.size, is_whole=True, sees_end=True)
        size = max_bytes // 3
        first, middle = raw.read_at(size, 0), raw.read_at(size, (file.size - size) // 2).partition(b"\n")[2]
        last = raw.read_at(size, file.size - size).partition(b"\n")[2]
        text = first[: first.rfind(b"\n") + 1] + middle[: middle.rfind(b"\n") + 1] + last
        return Lines(text, len(text), is_whole=False, sees_end=True)
