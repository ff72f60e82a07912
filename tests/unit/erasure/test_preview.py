"""``userrep forget --dry-run``: what would be erased, found without Spark, without a request and without ids."""

import json
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command_line import Userrep, config_file
from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ERASURES, EXPORTS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

FIRST, LAST = date(2024, 1, 1), date(2024, 5, 31)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return config_file(tmp_path)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Tables with two snapshots."""
    tables = FileTables(None, str(tmp_path / "root"))
    add_spaces(tables, "s001-a")
    publish(tables, {snapshot(LAST): {"u1": [1.0], "u2": [2.0]}, snapshot(FIRST): {"u1": [3.0]}})
    return tables


def tree(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def ids_file(folder: Path, *ids: str) -> Path:
    path = folder / "ids.txt"
    path.write_text("\n".join(ids))
    return path


def test_a_dry_run_of_forget_finds_rows_and_writes_no_request_or_key(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables, tmp_path: Path
) -> None:
    ids = ids_file(tmp_path, "u1", "u3")
    before = tree(tmp_path)
    command = ("forget", "--users", ids, "--config", config, "--dry-run")
    answer = userrep(*command, "--json")
    assert (answer.code, answer.err, tree(tmp_path)) == (0, "", before)
    found = json.loads(answer.out)
    assert (found["num_users"], found["num_with_rows"]) == (2, 1)
    assert {name: (part["rows"], part["files"]) for name, part in found["tables"].items()} == {
        "user_embeddings": (2, 2)
    }
    assert found["tables"]["user_embeddings"]["bytes"] > 0
    lines = userrep(*command).out.splitlines()
    assert lines[:2] == ["dry run of forget; nothing was written", "2 users, 1 of them with rows"]
    assert lines[2].startswith("user_embeddings: 2 rows; 2 files would be rewritten (")
    assert not [text for text in (answer.out, *lines) if "u1" in text]


def test_a_dry_run_without_users_counts_open_requests(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables
) -> None:
    at = datetime(2024, 5, 1)
    row = {"num_users": 3, "receipt": "{}", "requested_at": at, "recorded_at": at, "state": "deleted"}
    tables.add(
        ERASURES,
        [row | {"request_id": "f1", "due_at": at}, row | {"request_id": "f2", "due_at": at + timedelta(36500)}],
    )
    lines = userrep("forget", "--config", config, "--dry-run").out.splitlines()
    assert lines == ["dry run of forget; nothing was written", "2 open requests, 1 of them would be finished"]


def test_exports_checkpoints_and_running_jobs_are_named(
    userrep: Userrep, no_spark: None, config: Path, tables: Tables, tmp_path: Path
) -> None:
    complete, cut_off, damaged, gone = (tmp_path / name for name in ("complete", "cut-off", "damaged", "gone"))
    for folder, state in ((complete, "complete"), (cut_off, "begun")):
        folder.mkdir()
        for k, user in enumerate(("u1", "u2")):
            pq.write_table(pa.table({"user_id": [user, "u9"]}), folder / f"part-0000{k}.parquet")
        (folder / "_manifest.json").write_text(json.dumps({"state": state}))
    damaged.mkdir()
    (damaged / "_manifest.json").write_text("{")
    at = datetime(2024, 5, 1)
    row = {"what": "embeddings", "as_of": LAST, "exported_at": at}
    tables.add(EXPORTS, [row | {"path": str(path)} for path in (complete, cut_off, damaged, gone)])
    (tmp_path / "root" / "streams" / "plays").mkdir(parents=True)
    (tmp_path / "root" / "streams" / "plays" / "stream.json").touch()
    command = ("forget", "--users", ids_file(tmp_path, "u1"), "--config", config, "--dry-run", "--json")
    found = json.loads(userrep(*command).out)
    assert found["exports"].pop(str(damaged)).startswith("not readable (JSONDecodeError: ")
    assert found["exports"] == {str(complete): "1 rows in 1 files", str(cut_off): "0 rows in 2 files"}
    assert found["checkpoints_removed"] == []
    assert json.loads(userrep(*command, "--now").out)["checkpoints_removed"] == ["plays"]
