"""Findings of a report: every problem is found with its remedy, and nothing else is."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.report_facts import (
    LAST,
    NOW,
    SPACE,
    a_day,
    a_snapshot,
    a_space,
    a_task,
    drift,
    facts,
    stage,
)
from tests.unit.model.test_self_check import check_of
from userrep.report.facts import BAD, NOTE, WARN, Request
from userrep.report.findings import findings
from userrep.report.log_facts import LogFacts
from userrep.report.space_facts import EvaluationFacts
from userrep.report.summary import summarised

pytestmark = pytest.mark.fast

DAYS = facts().log.days


def log_of(*last: Any, share: float = 0.05) -> LogFacts:
    """Return the log with other last days."""
    return LogFacts([*DAYS[: len(DAYS) - len(last)], *last], {}, share)


K = len(DAYS) - 1
CASES: list[tuple[dict[str, Any], str, str, str]] = [
    (
        {"newest": [stage("embed_users", outcome="failed", reason="disk full")]},
        BAD, "The last run of embed_users failed: disk full", "run the command again",
    ),
    (
        {"newest": [stage("embed_users", outcome="failed", reason="interrupted")]},
        WARN, "The last run of embed_users was interrupted.", "Run the command again",
    ),
    (
        {"spaces": [a_space(state="ready", in_use="waits to serve")]},
        BAD, "No space is serving", f"`userrep spaces promote {SPACE} --config conf/mine.yaml`",
    ),
    ({"artifact_fault": "weights are torn. Restore them."}, BAD, "The artifact of the space can", "Restore them."),
    (
        {"snapshots": [a_snapshot(), a_snapshot(LAST + timedelta(days=1), state="refused", faults=["2 rows"])]},
        BAD, f"The gates refused snapshot {SPACE}-20240531-r1: 2 rows", "The previous snapshot is still served.",
    ),
    (
        {"spaces": [a_space(newest_as_of=LAST)]},
        WARN, "The log has events up to 2024-05-30, but the latest snapshot is as of 2024-05-30.",
        "`userrep daily --config conf/mine.yaml --as-of 2024-05-31`",
    ),
    (
        {"spaces": [a_space(stale=[LAST])]},
        WARN, f"Space {SPACE} has 1 stale date: days of the log changed after publication.",
        "Rebuild with `userrep backfill --config conf/mine.yaml --stale`.",
    ),
    (
        {"log": log_of(a_day(K, num_events=0, num_rejected=0, is_missing=True))},
        WARN, "1 of the latest 28 days is missing or far smaller than usual. The last one, 2024-05-30, has 0 events;",
        "Load the missing data",
    ),
    ({"log": log_of(a_day(K, num_rejected=50))}, WARN, "of the rows of 2024-05-30 were rejected", "rejected_events"),
    ({"drift": drift(0.4, "warn")}, WARN, "moved further than drift.warn allows: psi 0.400.", "docs/how-to/drift.md"),
    ({"drift": drift(0.9, "fail")}, BAD, "moved further than drift.fail allows: psi 0.900.", "docs/how-to/drift.md"),
    ({"drift": None}, NOTE, "Drift has not been measured yet.", "monitor_drift --config conf/mine.yaml --as-of 202"),
    ({"evaluation": None}, NOTE, "has not been evaluated yet.", f"--space {SPACE} --config conf/mine.yaml --out DIR`"),
    (
        {"evaluation": EvaluationFacts("e", NOW, [a_task("next_item", (-0.1, -0.2, -0.05))])},
        NOTE, "On 1 of 1 task, another representation is ahead of the embedding: next_item (counts).",
        "docs/how-to/evaluation.md",
    ),
    (
        {"training": replace(facts().training, self_check=check_of(raw=(-0.01, -0.02, 0.001)))},  # type: ignore[type-var]
        WARN, "Result of the space's self-check: the embedding is 1.0% behind raw [-2.0%, +0.1%].",
        "`userrep evaluate`",
    ),
    (
        {"requests": [Request("q1", 3, NOW - timedelta(days=1), True)]},
        WARN, "A request to forget 3 users is not finished.", "`userrep forget --config conf/mine.yaml`",
    ),
    (
        {"requests": [Request("q1", 3, NOW - timedelta(days=1, seconds=1), True)]},
        BAD, "A request to forget 3 users is not finished.", "`userrep forget --config conf/mine.yaml`",
    ),
    ({"requests": [Request("q1", 3, None, True)]}, WARN, "A request to forget 3 users is not finished.", "forget"),
    ({"requests": [Request("q1", 3, None, False)]}, WARN, "3 users is not finished.", "--users FILE`. FILE: the same"),
    (
        {"requests": [Request("q1", 1, NOW + timedelta(days=1), True)]},
        NOTE, "1 user can be finished after 2024-06", "forget",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "level", "what", "cure"), CASES, ids=[case[2][:40] for case in CASES])
def test_problems_are_reported_with_their_cure(change: dict[str, Any], level: str, what: str, cure: str) -> None:
    (found,) = findings(facts(**change))
    assert found.level == level
    assert what in found.what
    assert cure in found.cure


def aged(hours: float, *, snapshot: bool) -> list[tuple[str, str]]:
    """Return the findings of a snapshot, or of a log, that is some hours old."""
    zero = NOW - timedelta(hours=8)  # 00:00 UTC of the as-of date
    made_at = zero + timedelta(hours=hours)
    late = facts(made_at=made_at)
    if snapshot:
        late = replace(late, log=LogFacts([], {}, 0.05))
    else:
        late = replace(late, spaces=[a_space(available_as_of=made_at.date() + timedelta(days=1))])
    return [(finding.level, finding.what) for finding in findings(late)]


def test_a_snapshot_or_log_is_too_old_once_it_exceeds_a_limit() -> None:
    snapshot = f"The newest available snapshot of the serving space {SPACE} is as of 2024-05-31 (available since "
    snapshot += "2024-05-31 08:00 UTC): {}h old, longer than freshness.{}_after ({}h) allows."
    log = "The log's last day with tiles is 2024-05-30: {}h old, longer than freshness.{}_after ({}h) allows."
    for is_snapshot, what in ((True, snapshot), (False, log)):
        assert aged(26, snapshot=is_snapshot) == []
        assert aged(26.1, snapshot=is_snapshot) == [(WARN, what.format(26, "warn", 26))]
        assert aged(50, snapshot=is_snapshot) == [(WARN, what.format(50, "warn", 26))]
        assert aged(50.1, snapshot=is_snapshot) == [(BAD, what.format(50, "error", 50))]


def test_an_old_snapshot_is_no_problem_without_limits_but_the_check_counts_as_not_run() -> None:
    unchecked = facts(made_at=NOW + timedelta(days=900), max_age={}, drift=None)
    assert summarised(unchecked).headline == "No problems found, 2 checks not run"
    only_error = facts(made_at=NOW + timedelta(days=900), max_age={BAD: timedelta(hours=50)})
    assert summarised(only_error).headline == "Action required: 2 problems"


def test_only_the_age_of_the_serving_space_counts_and_a_future_snapshot_is_not_available() -> None:
    old = a_space(space_id="s2", state="ready", available_as_of=LAST - timedelta(days=90))
    assert findings(facts(spaces=[a_space(), old])) == []
    (found,) = findings(facts(spaces=[a_space(available_as_of=None, available_at=None)]))
    assert (found.level, found.what) == (BAD, f"The serving space {SPACE} has no available snapshot.")
    assert found.cure == "Build today's with `userrep daily --config conf/mine.yaml --as-of today`."


def test_the_worst_comes_first_and_the_headline_counts() -> None:
    several = facts(drift=drift(0.4, "warn"), evaluation=None, newest=[stage("embed_users", outcome="failed")])
    assert [of.level for of in findings(several)] == [BAD, WARN, NOTE]
    assert summarised(several).headline == "Action required: 1 problem, 1 warning, 1 check not run"
    assert summarised(facts(drift=drift(0.4, "warn"))).headline == "Needs attention: 1 warning"


def test_old_days_that_were_small_and_metrics_of_earlier_dates_warn_of_nothing() -> None:
    old = [a_day(k, num_events=1) if k == 60 else of for k, of in enumerate(DAYS)]
    assert findings(facts(log=LogFacts(old, {}, 0.05))) == []


def test_a_configuration_with_a_blank_in_its_name_can_be_pasted() -> None:
    (found,) = findings(facts(config="my conf.yaml", evaluation=None))
    assert "--config 'my conf.yaml'" in found.cure
