"""The state of a root as metrics."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from pyspark.sql import Row

from tests.support.report_facts import LAST, NOW, a_snapshot, a_space, drift, facts, nothing
from tests.unit.report.test_report_gather import a_run
from userrep.report.facts import BAD
from userrep.report.findings import Finding
from userrep.report.metrics import metrics_of
from userrep.report.state import RootState

pytestmark = pytest.mark.fast

AT = datetime(2024, 5, 25, 2)


def values(
    runs: Sequence[dict[str, Any]] = (), found: Sequence[Finding] = (), **more: Any
) -> dict[str, dict[str, float]]:
    parts = {"runs": [Row(**run) for run in runs], "successes": more.pop("successes", {})}
    state = cast(RootState, type("State", (), parts)())
    given = more.pop("facts", None) or facts(**more)
    return {metric.name: metric.values for metric in metrics_of(state, given, found)}


def test_ages_count_from_the_as_of_date_and_from_the_end_of_the_log() -> None:
    space = a_space(state="serving", available_as_of=LAST)
    ages = values(spaces=[space])["freshness_seconds"]
    midnight = datetime.combine(LAST, datetime.min.time())
    assert ages["snapshot"] == (NOW - midnight).total_seconds()
    last_day = facts().log.days[-1].day
    assert ages["log"] == (NOW - datetime.combine(last_day, datetime.min.time())).total_seconds() - 86_400


def test_a_refused_snapshot_drift_and_users_are_shown() -> None:
    snapshots = [a_snapshot(), a_snapshot(LAST + timedelta(days=1), state="refused")]
    found = values(snapshots=snapshots, drift=drift(0.3, "warn"), spaces=[a_space(in_use="serving", newest_users=7)])
    assert set(found["gates_passed"].values()) == {0.0}
    assert set(values(snapshots=[a_snapshot()])["gates_passed"].values()) == {1.0}
    assert max(found["drift_level"].values()) == 1.0
    assert 0.3 in found["drift"].values()
    assert set(found["snapshot_users"].values()) == {7.0}


def test_findings_are_counted_and_nothing_has_no_values() -> None:
    empty = values(facts=nothing(), found=[Finding(BAD, "a", "b")])
    assert empty["findings"] == {"problem": 1.0, "warning": 0.0}
    assert (empty["freshness_seconds"], empty["drift"], empty["gates_passed"]) == ({}, {}, {})


def test_a_skipped_or_failed_stage_keeps_the_duration_of_its_last_work() -> None:
    runs = [run("embed_users", "r1", 0), run("embed_users", "r2", 1, "skipped"), run("embed_users", "r3", 2, "failed")]
    runs[1]["seconds"] = runs[2]["seconds"] = 0.1
    assert values(runs)["stage_duration_seconds"] == {"embed_users": 60.0}


def run(stage: str, run_id: str, hour: int, outcome: str = "done") -> dict[str, Any]:
    return a_run(stage, run_id, AT + timedelta(hours=hour), outcome, command="daily") | {"seconds": 60.0}


def test_the_last_success_of_a_command_is_in_seconds_since_1970() -> None:
    assert values(successes={"daily": AT})["last_success_timestamp_seconds"] == {
        "daily": AT.replace(tzinfo=UTC).timestamp()
    }
