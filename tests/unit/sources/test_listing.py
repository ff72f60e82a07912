"""Which files a path, a folder or a pattern names, and in which format they are."""

import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from tests.support.builders import event, write_rows
from userrep.config import Source
from userrep.errors import UsageError
from userrep.sources import listing
from userrep.sources.listing import Listings, detect_format, list_files, spread

pytestmark = pytest.mark.fast


def names(path: Path | str) -> list[str]:
    return [Path(file.path).name for file in list_files(str(path), None, "events")]


def test_a_folder_is_read_with_its_folders_but_without_hidden_and_empty_files(tmp_path: Path) -> None:
    for name in ("a.csv", "b/c.csv", "_SUCCESS", ".a.csv.crc", "_tmp/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x,y\n")
    (tmp_path / "e.csv").touch()
    assert names(tmp_path) == ["a.csv", "c.csv"]


def test_a_star_of_a_pattern_matches_within_a_folder_and_a_matching_folder_is_read_whole(tmp_path: Path) -> None:
    for name in ("2023.csv", "2024/a.csv", "2024/b/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x,y\n")
    assert names(f"{tmp_path}/*.csv") == ["2023.csv"]
    assert names(f"{tmp_path}/2024*") == ["a.csv", "c.csv"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*-?.csv", "ab"),
        ("*-[a-b].csv", "ab"),
        ("*-[^a].csv", "b"),
        ("*-[!a].csv", "b"),
        ("*-{a,cc}.csv", ["a", "cc"]),
        ("x,y-?.csv", "ab"),
        ("x[,]y-a.csv", "a"),
        ("{x,y}*-b.csv", "b"),
        ("x,y-{a,b}.csv", "ab"),
    ],
)
def test_patterns_are_those_of_spark(tmp_path: Path, pattern: str, found: list[str]) -> None:
    for name in ("a", "b", "cc"):
        (tmp_path / f"x,y-{name}.csv").write_text("x,y\n")
    assert names(f"{tmp_path}/{pattern}") == [f"x,y-{name}.csv" for name in found]
    assert names(f"{tmp_path.parent}/{tmp_path.name[:-1]}?/{pattern}") == [f"x,y-{name}.csv" for name in found]
    assert detect_format(f"{tmp_path}/{pattern}", "events", Listings()) == "csv"


@pytest.mark.parametrize(
    "spelling", ["{}/a b%20c/", "{}/a b%20c/../a b%20c", "file:{}/a b%20c", "file://{}/a b%20c/f.csv"]
)
def test_local_paths_are_listed_as_spark_reads_them(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "a b%20c").mkdir()
    (tmp_path / "a b%20c" / "f.csv").write_text("x,y\n")
    path = spelling.format(tmp_path)
    assert [file.path for file in list_files(path, None, "events")] == [f"{tmp_path}/a b%20c/f.csv"]
    assert detect_format(path, "events", Listings()) == "csv"


def test_a_delta_table_of_too_many_files_has_no_footers_and_its_files_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write_deltalake(str(tmp_path), pa.table({"number": [number]}), mode="append")
    source, looked_at = Source(path=str(tmp_path), format="delta"), []
    monkeypatch.setattr(listing, "list_files", lambda *of: looked_at.append(of) or list_files(*of))
    monkeypatch.setattr(listing, "_MAX_FOOTERS", 2)
    assert (Listings().footers(source, "events"), looked_at) == ([], [])
    monkeypatch.setattr(listing, "_MAX_FOOTERS", 3)
    assert len(Listings().footers(source, "events")) == 3


def test_partition_folders_become_values(tmp_path: Path) -> None:
    write_rows(tmp_path / "dt=2024-05-01" / "shop=a" / "1.parquet", [event("u", "i", "2024-05-01")])
    assert list_files(str(tmp_path), None, "events")[0].partitions == {"dt": "2024-05-01", "shop": "a"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", r"events.path .*: no data files. Name a file, a folder or a pattern"),
        ("nowhere", r"events.path .*nowhere: does not exist"),
        ("*.csv", r"events.path .*\*.csv: no data files"),
    ],
)
def test_a_path_without_files_is_refused(tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        names(f"{tmp_path}/{path}")


def test_a_store_that_pyarrow_does_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match=r"events.path nosuch://b/x: cannot be listed without Spark \(Unrecognized"):
        names("nosuch://b/x")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.parquet", b"PAR1", "parquet"), ("a.jsonl", b"{}", "json"), ("a.csv.gz", b"\x1f\x8b", "csv"),
        ("a", b"PAR1...", "parquet"), ("a", b' {"x": 1}', "json"), ("a.txt", b"x,y", "csv"),
    ],
)  # fmt: skip
def test_the_format_comes_from_the_name_or_else_the_first_bytes(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert detect_format(str(tmp_path), "events", Listings()) == expected
    assert detect_format(str(tmp_path / name), "events", Listings()) == expected


def test_files_of_several_formats_are_refused_with_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n")
    (tmp_path / "b.json").write_text("{}\n")
    with pytest.raises(UsageError, match=r"several formats \(csv, json\). Name a pattern such as .*/\*.csv\."):
        detect_format(str(tmp_path), "events", Listings())


def test_parts_are_spread_evenly() -> None:
    assert list(spread(range(10), 10)) == list(range(10))
    assert list(spread(range(10), 4)) == [0, 3, 6, 9]


def test_a_zip_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.csv.zip", "w") as archive:
        archive.writestr("log.csv", "x,y\n")
    with pytest.raises(UsageError, match=r"log.csv.zip: a zip archive, which Spark cannot read. Unzip it; gzip works"):
        detect_format(str(tmp_path / "log.csv.zip"), "events", Listings())
