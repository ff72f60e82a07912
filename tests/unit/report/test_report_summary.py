"""The top of a report: headline, sentences, tiles and their levels."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.report_facts import LAST, NOW, SPACE, a_day, a_space, a_task, drift, facts, nothing, stage
from userrep.report.facts import BAD, NOTE, OK, WARN
from userrep.report.formats import NONE
from userrep.report.log_facts import LogFacts
from userrep.report.space_facts import DriftFacts, DriftPoint, EvaluationFacts
from userrep.report.summary import Tile, summarised

pytestmark = pytest.mark.fast


def tiles(**more: Any) -> dict[str, Tile]:
    return {of.label: of for of in summarised(facts(**more)).tiles}


def test_a_root_without_findings_is_well() -> None:
    summary = summarised(facts())
    assert (summary.level, summary.headline, summary.findings) == (OK, "No problems found", [])
    assert {of.level for of in summary.tiles} == {OK}
    assert "Space s001-4f09a1 serves 950 users as of 2024-05-31." in summary.sentences


def test_a_root_without_anything_has_a_summary_too() -> None:
    summary = summarised(nothing())
    assert summary.headline == "Action required: 2 problems"
    assert {of.label: of.value for of in summary.tiles}["Users embedded"] == NONE


def test_sentences_describe_the_log_the_space_the_night_and_the_evaluation() -> None:
    days = [a_day(0, num_events=1000), a_day(1, num_events=0, is_missing=True), a_day(2, num_events=234)]
    latest_run = [replace(stage("refresh_user_features"), seconds=100.0), stage("embed_users")]
    known = facts(
        log=LogFacts(days, {}, 0.05), spaces=[a_space(state="ready")], latest_run=latest_run, latest_run_is_daily=False
    )
    assert summarised(known).sentences == [
        "The log has 1,234 events from 2024-01-01 to 2024-01-03, with 1 day missing.",
        f"Space {SPACE} is ready and has 950 users as of 2024-05-31.",
        "The latest pipeline run started 2024-05-31 08:00 UTC and took 1 min 52 s.",
        "On 1 of 2 tasks, the embedding is ahead of every other representation.",
    ]


def test_a_log_without_gaps_has_every_day() -> None:
    assert (
        summarised(facts(log=LogFacts([a_day(0), a_day(1)], {}, 0.05)))
        .sentences[0]
        .endswith("2024-01-02, with no day missing.")
    )


@pytest.mark.parametrize(
    ("newest", "in_use", "level"),
    [(LAST + timedelta(days=1), "serving", OK), (LAST, "serving", WARN), (LAST, None, OK)],
)
def test_users_are_late_if_tiles_reach_past_the_snapshot_of_a_space_in_use(
    newest: object, in_use: str | None, level: str
) -> None:
    tile = tiles(spaces=[a_space(newest_as_of=newest, in_use=in_use)])["Users embedded"]
    assert (tile.value, tile.note, tile.level) == ("950", f"as of {newest}", level)


@pytest.mark.parametrize(("num_rejected", "level"), [(25, OK), (26, WARN)])
def test_rejected_rows_warn_above_half_of_what_fails_a_day(num_rejected: int, level: str) -> None:
    log = LogFacts([a_day(0, num_events=1000 - num_rejected)], {"bad_time": num_rejected}, 0.05)
    tile = tiles(log=log)["Rows rejected"]
    assert (tile.value, tile.level) == (f"{num_rejected / 10:.2g}%", level)


@pytest.mark.parametrize(
    ("outcome", "value", "level"), [("ok", "0 of 2", OK), ("warn", "1 of 2", WARN), ("fail", "1 of 2", BAD)]
)
def test_the_worst_metric_decides_on_drift(outcome: str, value: str, level: str) -> None:
    tile = tiles(drift=drift(0.4, outcome))["Drift"]
    assert (tile.value, tile.level) == (value, level)


def test_drift_counts_metrics_of_the_newest_date_only() -> None:
    old, new = DriftPoint(LAST - timedelta(days=1), "x", 9.0, "fail"), DriftPoint(LAST, "y", 0.1, "ok")
    found = DriftFacts({"psi": [old, new], "error_growth": [old]}, {}, {}, {})
    assert tiles(drift=found)["Drift"].value == "0 of 1"
    assert tiles(drift=None)["Drift"] == Tile("Drift", NONE, "not measured yet", NOTE)


def test_tasks_are_counted_by_their_verdict() -> None:
    tasks = [a_task("a", (0.1, 0.05, 0.2)), a_task("b", (0.1, 0.05, 0.2)), a_task("c", (-0.1, -0.2, -0.05))]
    tasks.append(a_task("d", (0.0, -0.1, 0.1)))
    tile = tiles(evaluation=EvaluationFacts("e", NOW, tasks))["Ahead of baselines"]
    assert (tile.value, tile.note) == ("2 of 4", "1 tied, 1 behind")
    assert tiles(evaluation=None)["Ahead of baselines"].level == NOTE


def test_a_failed_stage_takes_precedence_over_the_cost_of_the_night() -> None:
    well = tiles(latest_run=[stage("embed_users", hours=0.2), stage("s", hours=None)])["Latest daily run"]
    assert (well.value, well.note, well.level) == ("25 s", "0.20 core h", OK)
    failed = tiles(newest=[stage("a", outcome="failed"), stage("b")], latest_run_is_daily=False)["Latest pipeline run"]
    assert (failed.note, failed.level) == ("1 stage failed", BAD)


def test_all_tables_are_summed_up() -> None:
    tile = tiles(storage={"a": 1_500_000, "b": 500_000})["Storage"]
    assert (tile.value, tile.note) == ("2.0 MB", "2 tables")
