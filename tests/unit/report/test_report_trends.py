"""Charts of the last runs and snapshots, next to what is expected of them."""

import re
from datetime import timedelta

import pytest

from tests.support.report_facts import LAST, NOW, a_snapshot, facts
from userrep.report.facts import BAD, WARN, Run
from userrep.report.file import page
from userrep.report.summary import summarised
from userrep.report.trends import ages, daily_runs, daily_times, freshness, snapshot_users

pytestmark = pytest.mark.fast


def titles(drawn: str) -> list[str]:
    return re.findall("<title>(.*?)</title>", drawn)


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
