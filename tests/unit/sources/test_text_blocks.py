"""Whole lines of text files, also of parts of a file."""

import bz2
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from userrep.sources import text_blocks
from userrep.sources.text_blocks import TextBlock, blocks_of, is_splittable

pytestmark = pytest.mark.fast


def read(
    path: Path, content: bytes, *, start: int = 0, stop: int | None = None, has_header: bool = False
) -> list[bytes | None]:
    path.write_bytes(content)
    return lines_of(blocks_of(str(path), has_header=has_header, start=start, stop=stop))


def lines_of(blocks: Iterator[TextBlock | None]) -> list[bytes | None]:
    found = list(blocks)
    assert all(list(block.ends) == [k for k, byte in enumerate(block.lines) if byte == 10] for block in found if block)
    return [block and block.lines for block in found]


def test_lines_end_in_a_line_feed_and_blank_ones_are_left_out(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", b"\xef\xbb\xbfa\r\n\n  \t\nb\r\n c") == [b"a\nb\n c\n"]
    assert read(tmp_path / "a.json", b"\n\n") == read(tmp_path / "a.json", b"") == []


def test_the_first_line_that_is_not_blank_is_the_header(tmp_path: Path) -> None:
    for content in (b"h,i\na,b\n", b"\n \nh,i\r\na,b", b"\xef\xbb\xbfh,i\na,b\n"):
        assert read(tmp_path / "a.csv", content, has_header=True) == [b"a,b\n"]
    assert read(tmp_path / "a.csv", b"h,i\n", has_header=True) == []


@pytest.mark.parametrize("content", [b"a\rb\n", b"a\0b\n", b"\xff\xfe\n", b"ok\n\xc3\n"])
def test_bytes_that_are_no_plain_lines_are_left_to_spark(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path / "a.json", content) == [None]


@pytest.mark.parametrize("block_bytes", [1, 3, 1 << 22])
@pytest.mark.parametrize("has_header", [False, True])
def test_parts_of_a_file_have_each_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, has_header: bool
) -> None:
    monkeypatch.setattr(text_blocks, "_BLOCK_BYTES", block_bytes)
    content = b"head\nb\nlonger line\nd\n\ne\nlast"
    lines = [line for line in content.split(b"\n")[has_header:] if line]
    for width in range(1, len(content) + 1):
        starts = list(range(0, len(content), width))
        parts = [
            block
            for start, stop in zip(starts, [*starts[1:], None], strict=True)
            for block in read(tmp_path / "a.csv", content, start=start, stop=stop, has_header=has_header)
        ]
        assert b"".join(block or b"?" for block in parts) == b"".join(line + b"\n" for line in lines)


def test_compressed_files_are_read_as_a_whole(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json.gz", gzip.compress(b"a\nb")) == [b"a\nb\n"]
    assert read(tmp_path / "a.json.bz2", bz2.compress(b"a\nb")) == [b"a\nb\n"]
    assert [is_splittable(name) for name in ("a.json", "a.json.gz", "a.zst")] == [True, False, False]


def test_a_name_with_percent_signs_is_read_in_both_notations(tmp_path: Path) -> None:
    (tmp_path / "a%20b.json").write_bytes(b"a\n")
    for path in (tmp_path / "a%20b.json", f"file:{tmp_path}/a%20b.json"):
        assert lines_of(blocks_of(str(path), has_header=False)) == [b"a\n"]
