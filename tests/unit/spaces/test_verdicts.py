"""Recorded verdicts: one row per comparison, the newest of which is shown for each follower."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from userrep.errors import UsageError
from userrep.spaces.consumers import register_consumer
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote
from userrep.spaces.verdicts import (
    LabelTable,
    Verdict,
    follower_verdicts,
    newest_verdicts,
    record_verdict,
    verdict_lines,
)
from userrep.store.file_tables import FileTables
from userrep.store.schemas import CONSUMER_VERDICTS

pytestmark = pytest.mark.fast

NOON = datetime(2024, 5, 1, 12)
LABELS = LabelTable("/labels.parquet", "who", "when", "/model.json")
PASSED = Verdict("ads", "s1", "s2", "pass", "auc", 0.0123, -0.001, 0.02, 12_345, LABELS, NOON)


@pytest.fixture
def tables(tmp_path: Path) -> FileTables:
    """Tables with a serving space, another one, two consumers that follow and one that is pinned."""
    tables = FileTables(None, str(tmp_path))
    for space_id in ("s1", "s2"):
        add_candidate(tables, space_id=space_id, lineage_id="l", trained_until=date(2024, 5, 1), content_hash="x")
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, "s1"))
    for name in ("ads", "search", "mail"):
        register_consumer(tables, name, owner="team", pin="s1" if name == "mail" else None)
    return tables


def test_a_verdict_is_kept_whole_and_only_once_if_it_is_repeated(tables: FileTables) -> None:
    for minutes in (0, 5):
        record_verdict(tables, replace(PASSED, compared_at=NOON + timedelta(minutes=minutes)))
    assert newest_verdicts(tables) == [PASSED]
    failed = replace(PASSED, verdict="fail", compared_at=NOON + timedelta(hours=1))
    again = replace(PASSED, compared_at=NOON + timedelta(hours=2))
    for verdict in (failed, again):
        record_verdict(tables, verdict)
    assert [row.verdict for row in tables.ledger(CONSUMER_VERDICTS)].count("pass") == 2
    assert newest_verdicts(tables) == [again]


def test_a_verdict_of_a_consumer_that_is_not_registered_is_refused(tables: FileTables) -> None:
    with pytest.raises(UsageError, match=r"consumer other: not registered\. Known consumers: ads, mail, search"):
        record_verdict(tables, replace(PASSED, consumer="other"))
    assert newest_verdicts(tables) == []


def test_the_newest_verdict_of_each_follower_on_this_pair_of_spaces_is_shown(tables: FileTables) -> None:
    assert follower_verdicts(tables, "s2") == {"ads": None, "search": None}
    for k, changed in enumerate([{}, {"verdict": "fail"}, {"old_space_id": "s0"}, {"consumer": "mail"}]):
        record_verdict(tables, replace(PASSED, compared_at=NOON + timedelta(hours=k), **changed))
    found = follower_verdicts(tables, "s2")
    assert found == {"ads": replace(PASSED, verdict="fail", compared_at=NOON + timedelta(hours=1)), "search": None}
    assert verdict_lines(found) == [
        "verdict of ads: fail, auc +0.0123 [-0.0010, +0.0200] on 12,345 labels, compared 2024-05-01 13:00 UTC",
        "consumers that follow and have no verdict: search",
    ]
    assert follower_verdicts(tables, "s1") == {}
    assert verdict_lines({}) == []
