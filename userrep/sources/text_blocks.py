"""Whole lines of text files, in blocks."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.fs
from numpy.typing import NDArray

from userrep.sources.listing import COMPRESSED, listed_uri
from userrep.store.filesystem import file_system

_BLOCK_BYTES = 1 << 21
_HEADER_BYTES = 1 << 16  # more than a header has
_BOM = b"\xef\xbb\xbf"
csv.field_size_limit(2**31 - 1)  # no limit: by default, values above 128 kB are an error
_BLANK = re.compile(rb"^[^\S\n]*\n", re.MULTILINE)


class TextBlock(NamedTuple):
    """Whole lines, each with its line feed. ``ends``: positions of the line feeds."""

    lines: bytes
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, lines: bytes) -> "TextBlock":
        """Find the ends of lines. Cost: 0.3 ms per MB."""
        return cls(lines, np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n")))

    def first_bytes(self) -> NDArray[np.uint8]:
        """Return the first byte of each line."""
        starts = np.append(0, self.ends[:-1] + 1)
        return np.frombuffer(self.lines, np.uint8).take(starts)


def is_splittable(path: str) -> bool:
    """Return whether parts of a file can be read without what is before them."""
    return COMPRESSED.search(path) is None


def blocks_of(path: str, *, has_header: bool, start: int = 0, stop: int | None = None) -> Iterator[TextBlock | None]:
    """Yield the lines of a file in blocks of some MB, or those that begin in the bytes ``[start, stop)``.

    Each line ends in a line feed. Blank lines and, with ``has_header``, the first line of the file are left out. Yields
    None for bytes that are not UTF-8 text, or that Spark splits into other lines. Cost: one read; memory for one block.
    """
    ahead = _BLOCK_BYTES if stop is None else min(_BLOCK_BYTES, max(stop - start, io.DEFAULT_BUFFER_SIZE))
    with _opened(path, ahead) as stream:
        at = start
        if start:
            stream.seek(start - 1)
            at += len(stream.readline()) - 1  # of the line of the byte before, which begins before this range
        elif stream.peek(len(_BOM)).startswith(_BOM):
            at += len(stream.read(len(_BOM)))
        if has_header and not start:
            while line := stream.readline():
                at += len(line)
                if line.strip():
                    break
        while stop is None or at < stop:
            block = stream.read(_BLOCK_BYTES if stop is None else min(_BLOCK_BYTES, stop - at))
            if not block:
                return
            block += b"" if block.endswith(b"\n") else stream.readline()
            at += len(block)
            plain = _plain(block)
            if plain is None or plain.lines:
                yield plain


def csv_header(files: pyarrow.fs.FileSystem, path: str) -> list[str]:
    """Return the names in the first line of a CSV file that is not blank, as Spark does; none if there is no such line.

    The name of a compressed file shows its compression.
    """
    with io.BufferedReader(files.open_input_stream(path), _HEADER_BYTES) as stream:
        while (line := stream.readline(_HEADER_BYTES)) and not line.strip():
            pass
    try:
        return csv_values(line.decode("utf-8-sig", errors="replace").rstrip("\r\n"))
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error


def csv_values(line: str) -> list[str]:
    """Split a line of CSV; none of an empty line."""
    return next(csv.reader([line]), [])


def csv_table(
    lines: bytes,
    names: Sequence[str],
    wanted: Sequence[str],
    handle_odd: Callable[[Any], str] | None = None,
) -> pa.Table:
    """Parse lines of CSV without a header by Arrow. ``names``: of their values; ``wanted``: of the columns to return.

    All values are text; empty ones, and those that the first line lacks, are null. ``handle_odd`` skips lines of
    another number of values than the first; by default, they raise ArrowInvalid.
    """
    first = lines[: lines.find(b"\n") % (len(lines) + 1)]  # partition would copy all lines
    width = len(csv_values(first.decode(errors="replace")))
    read = [*names, *(f"\n{k}" for k in range(width - len(names)))][:width]  # no column has a name with a line feed
    return pyarrow.csv.read_csv(
        pa.BufferReader(lines),
        pyarrow.csv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=read),
        pyarrow.csv.ParseOptions(invalid_row_handler=handle_odd),
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted, include_missing_columns=True,
            strings_can_be_null=True, null_values=[""],
        ),
    )  # fmt: skip


def json_object(line: str | bytes, number: Callable[[str], Any] | None = None) -> dict[str, Any] | None:
    """Parse a line of JSON; None if it is not an object. ``number`` converts numbers from text."""
    try:
        value = json.loads(line, parse_int=number, parse_float=number, parse_constant=number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _opened(path: str, ahead: int) -> io.BufferedReader:
    """Open a file, decompressed, for reads of ``ahead`` bytes."""
    files, target = file_system(listed_uri(path))
    return io.BufferedReader(
        files.open_input_file(target) if is_splittable(path) else files.open_input_stream(target), ahead
    )


def _plain(lines: bytes) -> TextBlock | None:
    """Normalize ends of lines and remove blank lines; None if the bytes are not text or have other ends of lines."""
    lines = lines.replace(b"\r\n", b"\n") if b"\r" in lines else lines
    if b"\r" in lines or b"\0" in lines or not is_utf8(lines):
        return None
    lines += b"" if lines.endswith(b"\n") else b"\n"
    block = TextBlock.of(lines)
    if np.any(block.first_bytes() <= ord(" ")):  # the pattern alone takes longer
        return TextBlock.of(_BLANK.sub(b"", lines))
    return block


def is_utf8(text: bytes) -> bool:
    """Return whether bytes are UTF-8 text."""
    if text.isascii():  # faster than to decode
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
