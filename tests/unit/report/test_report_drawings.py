"""The charts about a root: how data is grouped into marks, and the title of each mark."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.report_facts import LAST, NOW, a_day, a_snapshot, bar_chart, facts, stage
from userrep.report.drawings import (
    ages,
    daily_runs,
    daily_times,
    events_by_day,
    freshness,
    run_times,
    snapshot_users,
)
from userrep.report.facts import BAD, WARN, Run
from userrep.report.file import page
from userrep.report.log_facts import LogFacts
from userrep.report.summary import summarised

pytestmark = pytest.mark.fast


def titles(drawn: str) -> list[str]:
    return re.findall("<title>(.*?)</title>", drawn)


def figures(drawn: str) -> list[str]:
    """Return the texts at the end of rows."""
    return re.findall('<span class="text">(.*?)</span>', drawn)


def heights(drawn: str) -> Sequence[float]:
    """Return how far below the top each point stands."""
    return [float(y) for y in re.findall(r'<circle class="(?:c0|rest|bad)" cx="[^"]+" cy="([\d.]+)"', drawn)]


def test_long_logs_are_drawn_by_week_and_by_four_with_no_event_lost() -> None:
    for num_days, unit, num_columns in ((150, "day", 150), (739, "week", 106), (3000, "4 weeks", 108)):
        drawn, found_unit = events_by_day([a_day(k, num_events=10) for k in range(num_days)])
        totals = [int(num.replace(",", "")) for num in re.findall(r": ([\d,]+) events", drawn)]
        assert (found_unit, len(totals), sum(totals)) == (unit, num_columns, 10 * num_days)


def test_the_first_column_of_a_long_log_is_the_one_that_may_be_short() -> None:
    days = [a_day(k, num_events=10, num_rejected=1, usual=None) for k in range(191)]
    days[-1] = replace(days[-1], num_events=0, is_missing=True, usual=10.0)
    drawn, unit = events_by_day(days)
    columns = titles(drawn)
    assert unit == "week"
    assert columns[0] == "2024-01-01 to 2024-01-02: 20 events, 2 rows rejected"
    assert columns[-1] == (
        "2024-07-03 to 2024-07-09: 60 events, 7 rows rejected; 1 day missing; 1 far smaller than usual"
    )
    assert drawn.count('<circle class="warn"') == 1
    assert events_by_day(days[1:])[1] == "day"


def test_reasons_are_shares_of_all_rows_and_not_only_of_those_rejected() -> None:
    log = LogFacts([a_day(0, num_events=90)], {"missing_user_id": 8, "bad_time": 2}, 0.05)
    (drawn,) = bar_chart("Rejected rows by reason", facts(log=log))
    assert figures(drawn) == ["8%", "2%"]
    assert titles(drawn) == ["missing_user_id: 8 of 100 rows", "bad_time: 2 of 100 rows"]


def test_a_bar_of_rejected_rows_is_as_long_as_its_part_of_the_limit_and_red_above_it() -> None:
    log = LogFacts([a_day(0, num_events=90)], {"missing_user_id": 8, "bad_time": 2}, 0.05)
    bar = r'<rect class="(c1|bad)" width="([\d.]+)%"'
    (limited,) = bar_chart("Rejected rows by reason", facts(log=log))
    assert re.findall(bar, limited) == [("bad", "100"), ("c1", "40.0")]
    (unlimited,) = bar_chart("Rejected rows by reason", facts(log=replace(log, max_rejected_share=0.0)))
    assert [width for _, width in re.findall(bar, unlimited)] == ["100.0", "25.0"]


def test_runs_are_placed_by_the_logarithm_of_their_time() -> None:
    runs = [
        Run("r1", NOW, 1.0, "done", ["a", "b"]), Run("r2", NOW, 60.0, "skipped", []),
        Run("r3", NOW, 3600.0, "failed", ["a"]), Run("r4", NOW, 0.01, "done", ["a"]),
    ]  # fmt: skip
    drawn = run_times(facts(runs=runs))
    one, minute, hour, less = heights(drawn)
    assert one - minute == pytest.approx(minute - hour, abs=0.11)
    assert less == one  # nothing below a second
    assert re.findall(r'<circle class="(c0|rest|bad)"', drawn) == ["c0", "rest", "bad", "c0"]
    assert titles(drawn)[0] == "r1, 2024-05-31 08:00 UTC: done in 1.0 s; a, b"
    assert titles(drawn)[1].endswith("skipped in 1 min; up to date")
    assert re.findall(r">([\d ]+(?:s|min|h))</text>", drawn) == ["1 s", "10 s", "1 min", "10 min", "1 h"]


def test_stages_of_a_night_have_their_outcome_and_its_reason_as_title() -> None:
    latest_run = [
        stage("embed_users"),
        replace(stage("train_item_vectors", outcome="skipped", reason="same"), seconds=0.0),
    ]
    (drawn,) = bar_chart("Seconds by stage", facts(latest_run=latest_run))
    assert figures(drawn) == ["12 s", "0.0 s"]
    assert titles(drawn) == ["embed_users: done. ", "train_item_vectors: skipped. same"]
    assert re.findall(r'<rect class="(c0|rest)"', drawn) == ["c0", "rest"]


def test_costs_are_those_of_the_night_or_of_the_training() -> None:
    latest_run = [stage("embed_users", hours=0.5), stage("skipped_one", hours=None), stage("idle", hours=0.0)]
    known = facts(latest_run=latest_run, training_stages=[stage("train_autoencoder", hours=0.02)])
    drawn, trained = bar_chart("Core hours by stage", known)
    assert figures(drawn) == ["0.50 core h"]
    assert titles(drawn) == ["embed_users: 5.0 kB shuffled, 12 s elapsed"]
    assert figures(trained) == ["72.0 core s"]


def test_only_the_ten_largest_tables_are_drawn() -> None:
    (drawn,) = bar_chart("Bytes by table", facts(storage={f"t{k}": 1000 * (20 - k) for k in range(12)}))
    assert re.findall('<span class="name">(.*?)</span>', drawn) == [f"t{k}" for k in range(10)]
    assert figures(drawn)[0] == "20.0 kB"


# -- the last runs and snapshots, next to what is expected of them -------------------------------------------------


def a_daily_run(k: int, expected: float | None = None, outcome: str = "done") -> Run:
    return Run(f"r{k}", NOW + timedelta(days=k), 60.0 + k, outcome, ["embed_users"], True, expected)


def test_the_last_thirty_daily_runs_are_drawn_with_their_expectations() -> None:
    other = Run("p1", NOW, 700.0, "done", ["train_autoencoder"])
    runs = [other, *(a_daily_run(k) for k in range(30)), a_daily_run(30, 80.0), a_daily_run(31, 75.0, "failed")]
    shown = facts(runs=runs)
    assert [run.run_id for run in daily_runs(shown)] == [f"r{k}" for k in range(2, 32)]
    drawn = titles(daily_times(shown))
    assert drawn[:2] == ["r30: 1 min 20 s expected", "r31: 1 min 15 s expected"]
    assert (len(drawn), drawn[-1]) == (2 + 30, "r31: failed in 1 min 31 s")
    assert titles(daily_times(facts(runs=[a_daily_run(0)]))) == ["r0: done in 1 min"]


def test_users_are_drawn_next_to_the_median_of_the_eight_dates_before() -> None:
    numbers = [100, 300, 200, 400, 1000]
    snapshots = [
        a_snapshot(LAST + timedelta(days=k), num_users=num, snapshot_id=f"s{k}") for k, num in enumerate(numbers)
    ]
    refused = a_snapshot(LAST + timedelta(days=9), state="refused")
    drawn = titles(snapshot_users(facts(snapshots=[*snapshots, refused])))
    assert drawn == [
        "s3: 200 users usual", "s4: 250 users usual",
        "s0: 100 users", "s1: 300 users", "s2: 200 users", "s3: 400 users", "s4: 1,000 users",
    ]  # fmt: skip


def test_each_date_has_the_users_of_its_newest_published_revision() -> None:
    day = LAST - timedelta(days=1)
    snapshots = [
        a_snapshot(day, num_users=10), a_snapshot(day, revision=2, num_users=20),
        a_snapshot(day, revision=3, num_users=30, state="refused"), a_snapshot(LAST, num_users=40),
        a_snapshot(LAST + timedelta(days=1), num_users=50, state="expired"),
    ]  # fmt: skip
    assert [title.rpartition(": ")[2] for title in titles(snapshot_users(facts(snapshots=snapshots)))] == [
        "20 users",
        "40 users",
    ]


def test_at_most_thirty_dates_are_drawn() -> None:
    many = [a_snapshot(LAST - timedelta(days=k), num_users=k) for k in range(40)]
    drawn = titles(snapshot_users(facts(snapshots=many)))
    assert len([title for title in drawn if title.endswith("usual")]) == 30
    assert len(drawn) == 60


def test_the_age_of_a_snapshot_is_that_which_each_run_found() -> None:
    six = timedelta(hours=6)
    snapshots = [a_snapshot((NOW + timedelta(days=k)).date(), available_at=NOW + timedelta(days=k)) for k in (0, 1)]
    runs = [
        Run(f"r{k}", NOW + timedelta(days=k) + hours, 1.0, "done", []) for k, hours in ((0, -six), (0, six), (2, six))
    ]
    limits = {WARN: timedelta(hours=26), BAD: timedelta(hours=50)}
    shown = facts(runs=runs, snapshots=snapshots, max_age=limits)
    assert [(run.run_id, age) for run, age in ages(shown)] == [
        ("r0", timedelta(hours=8 + 6)), ("r2", timedelta(hours=24 + 8 + 6)),
    ]  # fmt: skip
    drawn = freshness(shown)
    assert [title.rpartition(": ")[2] for title in titles(drawn)] == ["14.0 h", "38.0 h"]
    assert re.findall('class="limit (\\w+)"', drawn) == ["warn", "bad"]


def test_axes_have_round_numbers_of_one_unit() -> None:
    drawn = daily_times(facts(runs=[a_daily_run(0), a_daily_run(1, 1500.0)]))
    assert re.findall(r">([\d.]+ (?:s|min|h|d))<", drawn) == ["0 min", "10 min", "20 min"]
    early = [Run("r0", NOW + timedelta(days=20), 1.0, "done", [])]
    drawn = freshness(facts(runs=early, snapshots=[a_snapshot(NOW.date(), available_at=NOW)], max_age={}))
    assert re.findall(r">([\d.]+ (?:s|min|h|d))<", drawn) == ["0 d", "10 d", "20 d"]
    assert titles(drawn)[0].endswith(" UTC: 20.3 d")


def test_the_page_has_the_trends_only_if_there_is_something_to_draw() -> None:
    without = facts(runs=[Run("p1", NOW, 700.0, "done", ["train_autoencoder"])], snapshots=[])
    text = page(without, summarised(without))
    assert "Age of the newest" not in text
    assert "time expected at the start" not in text
    shown = facts(runs=[a_daily_run(0, 50.0)], snapshots=[a_snapshot(LAST, available_at=NOW - timedelta(days=1))])
    text = page(shown, summarised(shown))
    assert "Age of the newest available snapshot" in text
    assert "r0: 50 s expected" in text
