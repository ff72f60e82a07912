"""Rows of CSV and JSON files as text, as Spark reads them."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from userrep.sources.listing import COMPRESSED, DataFile
from userrep.sources.text_blocks import csv_header, csv_table, csv_values, json_object

_LONGEST_LINE = 1 << 24
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
    """Return the column names of CSV files. A file may lack the last ones, or have no line at all, as in a run.

    Raises
    ------
    ValueError
        If the header is not one of comma-separated, distinct names, or two files have other columns in the same place.
    """
    headers = [(file, header) for file in files if (header := csv_header(file.store, file.path))]
    if not headers:
        raise ValueError("no file has a line; a header with comma-separated names is expected")
    longest, names = max(headers, key=lambda each: len(each[1]))
    lowered = [name.lower() for name in names]
    other = next((file for file, header in headers if [n.lower() for n in header] != lowered[: len(header)]), None)
    if other is not None:
        raise ValueError(
            f"the headers of {longest.path} and {other.path} differ; a file may only lack the last columns of another"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"the header names {', '.join(map(repr, repeated))} twice")
    if len(names) < 2:
        raise ValueError("the first line has no commas; a header with comma-separated names is expected")
    if any(_VALUE.match(name) for name in names):
        raise ValueError("the first line has numbers or times, like a row; add a header with the names of the columns")
    return names


def csv_rows(text: bytes, names: list[str]) -> pa.Table:
    """Parse lines of a CSV file, the header first.

    As in a run, values that a line lacks are null, and those that it has too many are ignored.
    """
    schema, odd = pa.schema([(name, pa.string()) for name in names]), list[str]()

    def skip(row: Any) -> str:
        if row.text.strip():
            odd.append(row.text)
        return "skip"

    lines = text.lstrip().partition(b"\n")[2].lstrip(b"\r\n")  # without blank lines above and below the header
    if not lines:
        return schema.empty_table()
    rows = csv_table(lines, names, names, skip)
    values = [dict(zip(names, (value or None for value in row), strict=False)) for row in map(csv_values, odd)]
    return pa.concat_tables([rows, pa.Table.from_pylist(values, schema)])


def json_rows(text: bytes) -> tuple[pa.Table, int]:
    """Parse lines with one JSON object each; return the rows and the number of lines that are not rows.

    Nested fields are named by dotted path.
    """
    lines = [line for line in text.decode("utf-8-sig", errors="replace").split("\n") if line.strip()]
    objects = [row for line in lines if (row := json_object(line, str)) is not None]
    rows = [dict(_leaves("", row)) for row in objects]
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
    """Read lines of a file: about ``max_bytes``, uncompressed, or more if a single line is longer."""
    with file.store.open_input_file(file.path) as raw:
        if COMPRESSED.search(file.path):
            stream = pa.CompressedInputStream(raw, pa.Codec.detect(file.path).name)
            text = block = stream.read(max_bytes + 1)
            while len(text) > max_bytes and text.count(b"\n") < 2 and len(text) < _LONGEST_LINE and block:
                block = stream.read(len(text))  # a header has one line
                text += block
            if len(text) <= max_bytes or not block:
                return Lines(text, file.size, is_whole=True, sees_end=True)
            return Lines(text[: text.rfind(b"\n") + 1], raw.tell(), is_whole=False, sees_end=False)
        if file.size <= max_bytes:
            return Lines(raw.read(), file.size, is_whole=True, sees_end=True)
        text, end = _lines_from(raw, 0, max_bytes // 3, file.size)
        size = max(max_bytes // 3, 2 * max(map(len, text.split(b"\n"))))  # two lines, so that one of them is whole
        for start in ((file.size - size) // 2, file.size - size):
            part, end = _lines_from(raw, max(start, end), size, file.size)
            text += part
        return Lines(text, len(text), is_whole=False, sees_end=True)


def _lines_from(raw: pa.NativeFile, start: int, num_bytes: int, size: int) -> tuple[bytes, int]:
    """Return the whole lines of some bytes of a file, or of more if they have few, and where these bytes end."""
    text = raw.read_at(num_bytes, start)
    while text.count(b"\n") < 2 and start + len(text) < size and len(text) < _LONGEST_LINE:
        block = raw.read_at(len(text) or num_bytes, start + len(text))
        if not block:
            break  # the file is shorter than it was listed
        text += block
    end = start + len(text)
    text = text.partition(b"\n")[2] if start else text  # a file's first line is complete
    return text if end == size else text[: text.rfind(b"\n") + 1], end
