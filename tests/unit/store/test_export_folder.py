"""The folder of an export: which folders it may take, and which files in them it deletes."""

import json
from datetime import date
from pathlib import Path

import pytest

from userrep.errors import UsageError, UserrepError
from userrep.store import export_folder
from userrep.store.export_files import MANIFEST, Part
from userrep.store.export_folder import check_out
from userrep.store.file_tables import FileTables
from userrep.store.leases import under_way
from userrep.store.schemas import EXPORTS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

D1 = date(2024, 5, 1)


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path / "root"))


@pytest.mark.parametrize(
    "found",
    [
        [],
        [MANIFEST],
        [MANIFEST, "part-00000.parquet", "part-00001.parquet", ".part-00000.parquet-0f3a"],
        [MANIFEST, ".part-00000.parquet-0f3a"],
        [f".{MANIFEST}-abc123"],  # killed while the first manifest was written
    ],
    ids=["empty", "begun", "whole", "cut off", "killed at once"],
)
def test_an_export_may_take_an_empty_folder_or_that_of_an_earlier_one(tmp_path: Path, found: list[str]) -> None:
    folder = fill(tmp_path / "out", *found)
    check_out(str(folder))
    assert names(folder) == sorted(found)


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (["part-00000.parquet"], ""),  # parts of another program, which writes no manifest
        ([MANIFEST, "part-0.csv", "b.txt", "a.txt", "c.txt"], r" \(a.txt, b.txt, c.txt\)"),
        ([MANIFEST, "mine.parquet"], r" \(mine.parquet\)"),
        ([MANIFEST, "_manifest.json.bak"], r" \(_manifest.json.bak\)"),
    ],
    ids=["no manifest", "many files", "another table", "a copy"],
)
def test_a_folder_with_unrelated_files_is_refused(tmp_path: Path, found: list[str], named: str) -> None:
    folder = fill(tmp_path / "out", *found)
    with pytest.raises(
        UsageError, match=f"--out {folder}: the folder .* is not an earlier export{named}. Choose another"
    ):
        check_out(str(folder))


def test_only_parts_of_an_earlier_export_are_deleted(tmp_path: Path) -> None:
    own = ["part-00000.parquet", "part-00002.parquet", ".part-00000.parquet-0f3a"]
    folder = fill(tmp_path / "out", MANIFEST, "part-00001.parquet", "mine.parquet", ".hidden", *own)
    export_folder._delete_others(str(folder), {"part-00001.parquet"})
    assert names(folder) == [".hidden", MANIFEST, "mine.parquet", "part-00001.parquet"]


def test_the_destination_of_user_rows_is_recorded_only_if_the_folder_may_be_used(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with export_folder.recorded_folder(tables, "out/", "features", D1, recorded=True):
        assert under_way(tables)
    (row,) = tables.ledger(EXPORTS)
    assert (row.path, row.what, row.as_of) == (f"{tmp_path}/out", "features", D1)
    fill(tmp_path / "taken", "mine.txt")
    with (
        pytest.raises(UsageError, match="is not an earlier export"),
        export_folder.recorded_folder(tables, "taken", "features", D1, recorded=True),
    ):
        pass
    assert len(tables.ledger(EXPORTS)) == 1


def test_an_export_whose_parts_were_deleted_meanwhile_is_not_complete(tmp_path: Path) -> None:
    def write(folder: str) -> list[Part]:
        (Path(folder) / "part-00001.parquet").touch()
        return [Part("part-00000.parquet", 1, "hash"), Part("part-00001.parquet", 1, "hash")]

    with pytest.raises(UserrepError, match="another command has deleted parts"):
        export_folder.write_folder_of_parts(str(tmp_path), "embeddings", D1, columns={}, details={}, write=write)
    assert json.loads((tmp_path / MANIFEST).read_text())["state"] == "incomplete"


def test_a_manifest_is_json_with_dates_as_text(tmp_path: Path) -> None:
    export_folder._write_manifest(str(tmp_path), {"state": "incomplete", "as_of": D1})
    assert json.loads((tmp_path / MANIFEST).read_text()) == {"state": "incomplete", "as_of": "2024-05-01"}
    assert names(tmp_path) == [MANIFEST]


def test_a_complete_export_is_kept_on_request_and_an_interrupted_one_is_replaced(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", "part-00000.parquet")
    (folder / MANIFEST).write_text('{"state": "incomplete"}')
    check_out(str(folder), keeps_complete=True)
    (folder / MANIFEST).write_text('{"state": "complete"}')
    check_out(str(folder))
    with pytest.raises(UsageError, match=r"the folder has a complete export\. Choose another folder"):
        check_out(str(folder), keeps_complete=True)
