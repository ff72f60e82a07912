"""Tables as files: these are joined without losing a row, and only unneeded ones are deleted; no Spark."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from userrep.store.file_tables import FileTables
from userrep.store.schemas import EXPORTS, JOB_RUNS

pytestmark = pytest.mark.fast


@pytest.fixture
def tables(tmp_path: Path) -> FileTables:
    return FileTables(None, str(tmp_path / "root"))


def add(tables: FileTables, *runs: str) -> None:
    for run in runs:
        tables.add(JOB_RUNS, [{"run_id": run}])


def runs(tables: FileTables) -> list[str]:
    return sorted(row.run_id for row in tables.ledger(JOB_RUNS))


def runs_at(tables: FileTables, version: int) -> list[str]:
    return sorted(DeltaTable(tables.uri(JOB_RUNS), version=version).to_pyarrow_table()["run_id"].to_pylist())


def data_files(tables: FileTables) -> list[Path]:
    return list(Path(tables.uri(JOB_RUNS)).glob("*.parquet"))


def test_a_ledger_is_joined_once_it_has_as_many_files_as_stated(tables: FileTables) -> None:
    add(tables, "a", "b", "c")
    assert tables.compact(JOB_RUNS, at_least=4) == 0
    assert len(tables.files(JOB_RUNS)) == 3
    assert tables.compact(JOB_RUNS, at_least=3) == 3
    assert len(tables.files(JOB_RUNS)) == 1
    assert runs(tables) == ["a", "b", "c"]
    assert tables.compact(EXPORTS, at_least=1) == 0  # a table that did not exist yet


def test_vacuum_deletes_files_that_only_older_versions_have_except_of_versions_to_keep(tables: FileTables) -> None:
    add(tables, "a")  # version 1
    tables.add(JOB_RUNS, [{"run_id": "b"}], replacing="true")
    tables.add(JOB_RUNS, [{"run_id": "c"}], replacing="true")
    assert len(data_files(tables)) == 3
    tables.vacuum(JOB_RUNS, timedelta(hours=2))
    assert len(data_files(tables)) == 3
    tables.vacuum(JOB_RUNS, timedelta(0), keep=[1, 77])  # of which the latter never was
    assert len(data_files(tables)) == 2
    assert runs_at(tables, 1) == ["a"]
    tables.vacuum(JOB_RUNS, timedelta(0))
    assert len(data_files(tables)) == 1
    assert runs(tables) == ["c"]


def test_vacuum_deletes_files_that_no_commit_names(tables: FileTables) -> None:
    add(tables, "a")
    (Path(tables.uri(JOB_RUNS)) / "part-of-a-killed-task.parquet").write_bytes(b"x")
    tables.vacuum(JOB_RUNS, timedelta(0))
    assert len(data_files(tables)) == 1
    assert runs(tables) == ["a"]


def test_a_version_exists_until_the_log_forgets_it(tables: FileTables) -> None:
    add(tables, "a")
    assert [tables.has_version(JOB_RUNS, version) for version in (0, 1, 2)] == [True, True, False]


def test_a_restore_is_noticed_only_from_the_moment_it_happened(tables: FileTables) -> None:
    add(tables, "a", "b")
    start = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=1)
    assert not tables.was_restored(JOB_RUNS, start)
    DeltaTable(tables.uri(JOB_RUNS)).restore(1)
    assert runs(tables) == ["a"]
    assert tables.was_restored(JOB_RUNS, start)
    assert not tables.was_restored(JOB_RUNS, datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=1))


def test_a_restore_is_found_behind_many_later_commits(tables: FileTables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("userrep.store.file_tables._RESTORE_SEARCH", 2)
    add(tables, "a", "b")
    start = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=1)
    DeltaTable(tables.uri(JOB_RUNS)).restore(1)
    add(tables, *"cdefg")
    assert tables.was_restored(JOB_RUNS, start)
