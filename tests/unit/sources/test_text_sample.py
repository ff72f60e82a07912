"""Rows of CSV and JSON as text, as Spark reads them."""

import gzip
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from userrep.sources.listing import list_files
from userrep.sources.text_blocks import csv_header
from userrep.sources.text_sample import Lines, csv_names, csv_rows, json_rows, read_lines

pytestmark = pytest.mark.fast


class Part(NamedTuple):
    """What was read of a file."""

    rows: pa.Table
    num_unparsable: int
    lines: Lines


def read(path: Path, text: str, max_bytes: int = 1 << 20) -> Part:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    files = list_files(str(path), None, "events")
    lines = read_lines(files[0], max_bytes)
    if ".csv" in path.name:
        return Part(csv_rows(lines.text, csv_names(files)), 0, lines)
    return Part(*json_rows(lines.text), lines)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv_values_are_text_and_empty_ones_are_null(tmp_path: Path, name: str) -> None:
    part = read(tmp_path / name, '\ufeffuser,at\n007,"2024-05-01"\n,x\n')
    assert part.rows.to_pylist() == [{"user": "007", "at": "2024-05-01"}, {"user": None, "at": "x"}]
    assert (part.lines.is_whole, part.num_unparsable) == (True, 0)


def test_a_csv_line_with_a_different_number_of_values_is_filled_or_cut_as_in_a_run(tmp_path: Path) -> None:
    part = read(tmp_path / "a.csv", 'user,at\n1,2\n3\n"4,5",6,7\n')
    assert [tuple(row.values()) for row in part.rows.to_pylist()] == [("1", "2"), ("3", None), ("4,5", "6")]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("user,user", "the header names 'user' twice"),
        ("a\tb", "the first line has no commas"),
        ("u1,2024-05-01 12:00", "the first line has numbers or times, like a row; add a header"),
        ("17,u1", "the first line has numbers or times"),
    ],
)
def test_a_csv_header_without_distinct_names_is_refused(tmp_path: Path, header: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(tmp_path / "a.csv", f"{header}\n1,2\n")


@pytest.mark.parametrize(("text", "names"), [("\n", []), ('\n \r\na,"b,c"\r\n1,2\r\n', ["a", "b,c"])])
def test_a_header_is_the_first_line_that_is_not_blank(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    file = list_files(str(tmp_path / "a.csv"), None, "events")[0]
    assert csv_header(file.store, file.path) == names
    if names:
        assert csv_rows(text.encode(), names).to_pylist() == [dict(zip(names, ["1", "2"], strict=True))]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_json_fields_are_text_under_their_dotted_path(tmp_path: Path, name: str) -> None:
    text = '{"user": {"id": 1.50}, "on": true, "tags": [1]}\n\n{"user": null, "more": "x"}\nnot json\n[1]\n'
    part = read(tmp_path / name, text)
    assert part.rows.to_pylist() == [
        {"user.id": "1.50", "on": "true", "tags": '["1"]', "user": None, "more": None},
        {"user.id": None, "on": None, "tags": None, "user": None, "more": "x"},
    ]
    assert part.num_unparsable == 2


def test_a_file_without_any_json_object_has_no_rows(tmp_path: Path) -> None:
    part = read(tmp_path / "a.json", "[\n]\n")
    assert (part.rows.num_rows, part.num_unparsable) == (0, 2)


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_of_lines_longer_than_the_sample_some_are_read_whole(tmp_path: Path, name: str) -> None:
    part = read(tmp_path / name, "".join(f'{{"k": {k}, "x": "{"x" * 5000}"}}\n' for k in range(20)), max_bytes=99)
    keys = part.rows["k"].to_pylist()
    assert keys[0] == "0"
    assert len(set(keys)) == len(keys)
    assert part.num_unparsable == 0
    if name == "a.json":
        assert keys[-1] == "19"


@pytest.mark.parametrize(("name", "line"), [("a.csv", "1,{k:06}\n"), ("a.json", '{{"k": "{k:06}"}}\n')])
def test_a_large_file_is_read_in_part(tmp_path: Path, name: str, line: str) -> None:
    header = "user,k\n" if name == "a.csv" else ""
    part = read(tmp_path / name, header + "".join(line.format(k=k) for k in range(500_000)), max_bytes=1 << 16)
    assert not part.lines.is_whole
    assert 0 < part.rows.num_rows < 400_000
    assert part.lines.sees_end
    keys = [int(key) for key in part.rows["k"].to_pylist()]
    assert (keys[0], keys[-1], len(set(keys))) == (0, 499_999, len(keys))
    assert any(200_000 < key < 300_000 for key in keys)
    estimate = part.rows.num_rows * (tmp_path / name).stat().st_size / part.lines.num_bytes
    assert estimate == pytest.approx(500_000, rel=0.2)


def test_only_the_first_rows_of_a_large_compressed_file_are_read(tmp_path: Path) -> None:
    part = read(tmp_path / "a.csv.gz", "user,k\n" + "".join(f"1,{k}\n" for k in range(100_000)), max_bytes=1 << 16)
    assert (part.lines.is_whole, part.lines.sees_end) == (False, False)
    assert part.rows["k"].to_pylist() == [str(k) for k in range(part.rows.num_rows)]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv_lines_of_more_than_a_megabyte_are_read(tmp_path: Path, name: str) -> None:
    part = read(tmp_path / name, "user,at\n" + "".join(f"{k},{'x' * 2_000_000}\n" for k in range(4)), max_bytes=99)
    assert part.rows["user"].to_pylist()[0] == "0"


def test_a_file_that_shrank_since_it_was_listed_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"k": 1}\n' * 9)
    file = list_files(str(tmp_path / "a.json"), None, "events")[0]
    assert json_rows(read_lines(file._replace(size=10_000), 99).text)[0].num_rows > 0


def test_a_csv_file_may_lack_the_last_columns_or_all_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,at\n1,2\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "c.csv").write_text("user,at,more\n3,4,5\n")
    files = list_files(str(tmp_path), None, "events")
    names = csv_names(files)
    assert names == ["user", "at", "more"]
    tables = [csv_rows(read_lines(file, 1 << 20).text, names) for file in files]
    assert [[tuple(row.values()) for row in rows.to_pylist()] for rows in tables] == [
        [("1", "2", None)], [], [("3", "4", "5")],
    ]  # fmt: skip


def test_csv_files_with_different_headers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,at\n1,2\n")
    (tmp_path / "b.csv").write_text("at,user\n2,1\n")
    files = list_files(str(tmp_path), None, "events")
    with pytest.raises(
        ValueError, match=r"the headers of .*a.csv and .*b.csv differ; a file may only lack the last columns of another"
    ):
        csv_names(files)
