"""The parts of `nightly`: each runs even if an earlier one failed, and is skipped if it has nothing to do."""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.unit.report.test_report_gather import a_run
from userrep.errors import GateRefusedError, LogIncompleteError, UsageError, UserrepError
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ERASURES, JOB_RUNS
from userrep.store.tables import Tables
from userrep.utc import utc_now
from userrep.workflows import nightly
from userrep.workflows.nightly import NightlyPart, exit_code, last_maintenance, nightly_parts

pytestmark = pytest.mark.fast

NOW = utc_now()


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Tables whose last maintenance was a day ago."""
    tables = FileTables(None, str(tmp_path / "root"))
    tables.add(JOB_RUNS, [a_run("maintain_tables", "r1", NOW - timedelta(days=1))])
    return tables


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the parts by stubs. Returns what each part returns or raises, by its name."""
    results: dict[str, Any] = {"daily": [SimpleNamespace(space_id="s1")], "maintenance": {}}
    results["forget"] = {"num_done": 1, "rows": {"user_embeddings": 1200}, "exports": {}}

    def part(name: str) -> Callable[..., Any]:
        def run(*_: object, **__: object) -> Any:
            if isinstance(results[name], Exception):
                raise results[name]
            return results[name]

        return run

    monkeypatch.setattr(nightly, "daily", part("daily"))
    monkeypatch.setattr(nightly, "Erasure", lambda *_: SimpleNamespace(run=part("forget")))
    monkeypatch.setattr(nightly, "maintain_tables", part("maintenance"))
    monkeypatch.setattr("userrep.workflows.runs.SparkWork", lambda _: SimpleNamespace(found=dict))
    monkeypatch.setattr("userrep.cli.pipeline.context_for_run", lambda *_: None)
    monkeypatch.setattr(FileTables, "spark", None)
    return results


def request(state: str) -> dict[str, Any]:
    row = {"request_id": "f1", "state": state, "num_users": 3, "receipt": "{}", "due_at": NOW}
    return row | {"requested_at": NOW, "recorded_at": NOW}


def run_parts(tables: Tables, folder: Path, **sections: Any) -> dict[str, NightlyPart]:
    def context() -> Any:
        return None

    run = nightly_parts(tables, config_of(folder, **sections), NOW.date(), context, lambda _: None)
    return {part.part: part for part in run}


def test_parts_without_work_are_skipped(tables: Tables, results: dict[str, Any], tmp_path: Path) -> None:
    tables.add(ERASURES, [request("done")])
    results["forget"] = {"is_idle": True}
    found = run_parts(tables, tmp_path)
    assert [(part.part, part.outcome, part.exit_code, part.reason) for part in found.values()] == [
        ("daily", "done", 0, f"snapshots of {NOW.date()} for s1"),
        ("forget", "skipped", 0, "no request is waiting"),
        ("maintenance", "skipped", 0, f"due on {NOW.date() + timedelta(days=6)}"),
    ]


def test_a_waiting_request_is_continued(tables: Tables, results: dict[str, Any], tmp_path: Path) -> None:
    tables.add(ERASURES, [request("deleted")])
    assert run_parts(tables, tmp_path)["forget"].reason == "1 request finished, 1,200 rows erased"
    results["forget"]["exports"] = {"/mnt/a": "0 rows", "s3://b/c": "not readable (denied): erase the users by hand"}
    assert run_parts(tables, tmp_path)["forget"].reason.endswith("in exports that were not reached: s3://b/c")
    results["forget"] = {"is_idle": True}
    assert run_parts(tables, tmp_path)["forget"].outcome == "skipped"


@pytest.mark.parametrize(("days", "outcome"), [(None, "done"), (8, "done"), (7, "done"), (6, "skipped")])
def test_maintenance_runs_once_a_week_and_is_recorded(
    results: dict[str, Any], tmp_path: Path, days: int | None, outcome: str
) -> None:
    tables = FileTables(None, str(tmp_path / "root"))
    tables.add(JOB_RUNS, [a_run("maintain_tables", "r0", NOW, "failed"), a_run("embed_users", "r0", NOW)])
    last = None if days is None else NOW - timedelta(days=days)
    if last:
        tables.add(JOB_RUNS, [a_run("maintain_tables", "r1", last)])
    assert last_maintenance(tables) == last
    assert run_parts(tables, tmp_path)["maintenance"].outcome == outcome
    found = last_maintenance(tables)
    assert found == last if outcome == "skipped" else found is not None and found >= NOW
    assert run_parts(tables, tmp_path)["maintenance"].outcome == "skipped"


def test_retraining_is_the_last_part_and_only_with_its_section(
    tables: Tables, results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(run_parts(tables, tmp_path)) == ["daily", "forget", "maintenance"]
    found = run_parts(tables, tmp_path, retraining={"every": "7d"})
    assert list(found) == ["daily", "forget", "maintenance", "retraining"]
    assert (found["retraining"].outcome, found["retraining"].reason) == ("skipped", "no space is serving")

    def refuse(*_: object) -> tuple[str, str]:
        raise GateRefusedError("retraining: space s2 fails for ads.")

    monkeypatch.setattr("userrep.workflows.retraining.retrain_if_due", refuse)
    results["daily"] = LogIncompleteError("not complete yet.")
    parts = run_parts(tables, tmp_path, retraining={})
    assert (parts["retraining"].outcome, parts["retraining"].exit_code) == ("refused", 3)
    assert exit_code(list(parts.values())) == 4


def test_each_failure_is_alerted(
    tables: Tables, results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(nightly, "alert", lambda _, __, name, error: sent.append((name, str(error))))
    tables.add(ERASURES, [request("deleted")])
    results["forget"] = UserrepError("redis: no answer.")
    run_parts(tables, tmp_path)
    assert sent == [("forget", "redis: no answer.")]

    def context() -> Any:
        raise UsageError("events.path: does not exist.")

    list(nightly_parts(tables, config_of(tmp_path), NOW.date(), context, lambda _: None))
    assert sent[1:] == [("daily", "events.path: does not exist."), sent[0]]
    monkeypatch.setitem(sys.modules, "userrep.workflows.retraining", None)  # as if a package that it needs was missing
    run_parts(tables, tmp_path, retraining={})
    assert sent[-1][0] == "retraining"


def test_the_exit_code_is_one_after_which_a_retry_may_help_if_a_part_has_one() -> None:
    def code(*codes: int) -> int:
        return exit_code([NightlyPart("x", "", of, 0.0, "") for of in codes])

    assert [code(), code(0, 0), code(4, 3), code(3, 0, 1), code(0, 4), code(3, 2)] == [0, 0, 4, 1, 4, 2]
