"""What a run resolves once: the listing of the log, its profiles and its dates."""

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.builders import config_of
from userrep.errors import LogIncompleteError, UsageError
from userrep.store.leases import LEASES
from userrep.store.schemas import JOB_RUNS
from userrep.tiles.inventory.inventory import Inventory
from userrep.tiles.inventory.log_days import LogDay
from userrep.workflows import run_context
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.fast

FIRST, LAST = date(2024, 1, 1), date(2024, 12, 31)
Open = Callable[..., RunContext]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Return a function that opens a run on a log of a year, whose inventory needs no Spark."""
    inventory = Inventory([LogDay(day, 10, 0, "f") for day in (FIRST, LAST)], 0, 3)
    monkeypatch.setattr(run_context, "take_inventory", lambda *_: inventory)
    monkeypatch.setattr("userrep.workflows.runs.SparkWork", lambda _: cast(Any, type("Work", (), {"found": dict}))())

    def open_run(as_of: date | None, *, listings: list[str] | None = None, **sections: Any) -> RunContext:
        calls = [] if listings is None else listings
        monkeypatch.setattr(run_context, "check_sources", lambda *_: calls.append("log") or [])
        return RunContext(config_of(tmp_path, **sections), cast(Any, object()), as_of)

    return open_run


def test_the_as_of_date_is_the_requested_one_or_the_day_after_the_log(opened: Open) -> None:
    assert opened(date(2024, 1, 3)).schedule.as_of == date(2024, 1, 3)
    work = opened(None)
    assert work.schedule.as_of == LAST + timedelta(days=1)
    (stage,) = work.runs.stages
    assert (stage.stage, stage.num_rows) == ("take_inventory", 20)
    assert stage.outputs["as_of"] == LAST + timedelta(days=1)


def test_a_date_outside_the_log_is_refused_and_one_close_to_its_end_is_to_be_retried(opened: Open) -> None:
    with pytest.raises(UsageError, match="outside the log"):
        _ = opened(LAST + timedelta(days=4)).schedule
    with pytest.raises(LogIncompleteError, match="not complete yet"):
        _ = opened(LAST + timedelta(days=3)).schedule
    with pytest.raises(LogIncompleteError, match="not complete yet"):
        _ = opened(LAST + timedelta(days=4), freshness={"error_after": "72h"}).schedule


def test_a_refused_date_is_no_failure_of_the_inventory(opened: Open) -> None:
    work = opened(LAST + timedelta(days=9))
    with pytest.raises(UsageError, match="outside the log"):
        _ = work.schedule
    assert [(row.stage, row.outcome) for row in work.tables.ledger(JOB_RUNS)] == [("take_inventory", "done")]


def test_the_log_is_listed_once_and_checked_before_a_lease_is_taken(opened: Open) -> None:
    listings: list[str] = []
    work = opened(None, listings=listings)
    with work.lease("daily"):
        assert [row.job for row in work.tables.ledger(LEASES)] == ["daily"]
        _ = work.schedule, work.logs
    assert listings == ["log"]


def test_a_run_records_its_command_and_what_was_expected_of_its_stages(opened: Open) -> None:
    work = opened(LAST + timedelta(days=1))
    with work.lease("pipeline"):
        work.predict(lambda plan: plan.pipeline())
        with work.runs.stage("embed_users"):
            pass
    outputs = {row.stage: json.loads(row.outputs) for row in work.tables.ledger(JOB_RUNS)}
    assert outputs["take_inventory"]["command"] == outputs["embed_users"]["command"] == "pipeline"
    assert outputs["embed_users"]["predicted"] == {"outcome": "done", "seconds": None, "core_seconds": None}


def test_alerts_are_checked_before_a_run_and_sent_after_it(opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "u.prom"
    work = opened(None, alerts={"prometheus_file": str(file)})
    with pytest.raises(ValueError, match="boom"), work.lease("daily"):
        raise ValueError("boom")
    assert "userrep_findings" in file.read_text()
    elsewhere = opened(None, alerts={"prometheus_file": "/none/u.prom"})
    with pytest.raises(UsageError, match="there is no folder"), elsewhere.lease("daily"):
        pass
