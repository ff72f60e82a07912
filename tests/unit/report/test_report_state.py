"""The state of a root as typed values. test_status.py covers its figures in ``userrep status``."""

from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces, snapshot
from userrep.report.state import read_state
from userrep.spaces.snapshots import record_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ERASURES, JOB_RUNS

pytestmark = pytest.mark.fast

NOW = datetime(2024, 5, 1, 12)


def test_runs_and_snapshots_are_in_order_and_finished_requests_left_out(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path / "root"))
    run = {"run_id": "r1", "outcome": "done", "reason": "", "seconds": 1.0, "num_rows": 1, "inputs": "{}"}
    run |= {"outputs": "{}", "config_hash": "c", "code_hash": "d"}
    tables.add(JOB_RUNS, [run | {"stage": f"s{k}", "started_at": NOW - timedelta(hours=k)} for k in range(3)])
    request = {"num_users": 3, "requested_at": NOW, "due_at": None, "receipt": "{}", "recorded_at": NOW}
    tables.add(ERASURES, [request | {"request_id": name, "state": name} for name in ("begun", "done")])
    add_spaces(tables, "s1", "s2")
    days = [date(2024, 5, 2), date(2024, 5, 1)]
    record_snapshots(
        tables, [*(snapshot(day, space="s1") for day in days), snapshot(days[0], space="s2", state="staged")]
    )
    state = read_state(tables, config_of(tmp_path))
    assert [row.stage for row in state.runs] == ["s2", "s1", "s0"]
    assert [row.request_id for row in state.requests] == ["begun"]
    assert {space_id: [each.as_of for each in found] for space_id, found in state.snapshots.items()} == {
        "s1": days[::-1],
        "s2": [],
    }
    assert (state.rejected, state.ledger.days, state.registry.consumers) == ({}, {}, ())
    assert state.num_bytes["job_runs"] > 0
    assert state.successes == {}


def test_a_command_has_succeeded_only_if_it_recorded_its_end(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path / "root"))
    same = {"reason": "", "num_rows": 1, "inputs": "{}", "config_hash": "c", "code_hash": "d", "run_id": "r"}
    daily = '{"command": "daily"}'
    rows = [
        ("publish_snapshot", "done", 0, daily), ("end", "done", 0, daily), ("end", "done", 5, daily),
        ("publish_snapshot", "done", 9, daily),  # of the first of two spaces; then killed
        ("maintain_tables", "done", 3, "{}"), ("maintain_tables", "failed", 4, "{}"),
    ]  # fmt: skip
    tables.add(JOB_RUNS, [
        same | {"stage": stage, "outcome": outcome, "started_at": NOW + timedelta(hours=hour),
                "seconds": 60.0 * (stage != "end"), "outputs": outputs}
        for stage, outcome, hour, outputs in rows
    ])  # fmt: skip
    state = read_state(tables, config_of(tmp_path))
    assert state.successes == {
        "daily": NOW + timedelta(hours=5), "maintain_tables": NOW + timedelta(hours=3, minutes=1)
    }  # fmt: skip
    assert "end" not in {row.stage for row in state.runs}
