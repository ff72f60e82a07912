"""``userrep check``: exit codes and lines, from ledgers and without Spark."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import userrep.report.gather  # noqa: F401  # the command imports it when it runs; then torch, when imported, starts a process
from tests.support.command_line import Userrep, config_file
from tests.support.embedding_tables import add_spaces, snapshot
from tests.unit.report.test_report_gather import a_run
from userrep.spaces.registry import find_space, mark_ready, promote
from userrep.spaces.snapshots import record_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ERASURES, JOB_RUNS, TILE_DAYS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast


NOW = datetime(2024, 5, 10, 8)
TODAY = NOW.date()


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """Tables with a serving space, yesterday's log, and snapshots of today and, not available yet, tomorrow."""
    monkeypatch.setattr("userrep.report.gather.utc_now", lambda: NOW)
    monkeypatch.setattr("userrep.report.gather.training_facts", lambda *_: (None, None))  # no artifact
    tables = FileTables(None, str(tmp_path / "root"))
    add_spaces(tables, "s001-a")
    mark_ready(tables, find_space(tables, "s001-a"))
    promote(tables, find_space(tables, "s001-a"))
    days = [TODAY - timedelta(days=3), TODAY, TODAY + timedelta(days=1)]
    record_snapshots(tables, [snapshot(day) for day in days])
    day = {"event_date": TODAY - timedelta(days=1), "revision": 1, "fingerprint": "f", "content": "c"}
    tables.add(TILE_DAYS, [day | {"num_events": 9, "num_tiles": 9, "num_rejected": 0, "built_at": NOW}])
    tables.add(JOB_RUNS, [a_run("embed_users", "r1", NOW)])
    return tables


def check(userrep: Userrep, folder: Path, **freshness: str) -> tuple[int, list[str]]:
    """Return the exit code, and each line up to its first period."""
    answer = userrep("check", "--config", config_file(folder, freshness=freshness))
    assert answer.err == ""
    return answer.code, [line.partition(".")[0] for line in answer.out.splitlines()]


def test_a_fresh_root_has_no_problems_and_names_the_checks_that_did_not_run(
    userrep: Userrep, no_spark: None, tables: Tables, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, lines = check(userrep, tmp_path, warn_after="26h", error_after="50h")
    assert code == 0
    assert lines == [
        "not run: Drift has not been measured yet",
        "not run: The space has not been evaluated yet",
        "No problems found, 2 checks not run",
    ]
    code, lines = check(userrep, tmp_path)
    assert (code, lines[-1]) == (0, "No problems found, 3 checks not run")
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {path for path in after if after[path] != before.get(path)} <= {tmp_path, tmp_path / "userrep.yaml"}


def test_age_is_a_warning_first_and_then_a_problem_with_exit_code_3(
    userrep: Userrep, no_spark: None, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userrep.report.gather.utc_now", lambda: NOW + timedelta(hours=46))
    code, lines = check(userrep, tmp_path, warn_after="26h", error_after="50h")
    assert (code, lines[-1]) == (3, "Action required: 1 problem, 1 warning, 2 checks not run")
    assert lines[0].startswith("problem: The log's last day with tiles is 2024-05-09: 54h old, longer than freshness")
    assert lines[1].startswith("warning: The newest available snapshot of the serving space s001-a is as of 2024-05-11")
    code, lines = check(userrep, tmp_path, warn_after="26h")
    assert (code, lines[-1]) == (0, "Needs attention: 2 warnings, 2 checks not run")


def test_a_failed_run_and_an_overdue_request_are_problems_and_json_has_them(
    userrep: Userrep, no_spark: None, tables: Tables, tmp_path: Path
) -> None:
    tables.add(JOB_RUNS, [a_run("embed_users", "r2", NOW + timedelta(1), "failed") | {"reason": "disk full"}])
    request = {"request_id": "f1", "state": "deleted", "num_users": 3, "receipt": "{}"}
    times = {"requested_at": NOW, "recorded_at": NOW, "due_at": NOW - timedelta(days=2)}
    tables.add(ERASURES, [request | times])
    answer = userrep("check", "--config", config_file(tmp_path), "--json")
    assert (answer.code, answer.err) == (3, "")
    found = json.loads(answer.out)
    assert (found["level"], found["headline"]) == ("bad", "Action required: 2 problems, 3 checks not run")
    assert [finding["what"] for finding in found["findings"] if finding["level"] == "bad"] == [
        "The last run of embed_users failed: disk full", "A request to forget 3 users is not finished.",
    ]  # fmt: skip
