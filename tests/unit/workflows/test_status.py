"""The state of a root: what is gathered of ledgers without Spark, and how it is written."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces, snapshot
from tests.unit.spaces.test_verdicts import PASSED
from userrep.erasure.request_states import ASKED, DELETED
from userrep.spaces.consumers import register_consumer
from userrep.spaces.registry import find_space, mark_ready, promote
from userrep.spaces.snapshots import record_snapshots
from userrep.spaces.verdicts import record_verdict
from userrep.store.file_tables import FileTables
from userrep.store.schemas import ERASURES, JOB_RUNS, REJECTED_EVENTS, TILE_DAYS, user_features
from userrep.store.tables import Tables
from userrep.workflows.status import status, status_lines

pytestmark = pytest.mark.fast

DAY, NOW = date(2024, 5, 1), datetime(2024, 5, 1, 12)


@pytest.fixture
def tables(tmp_path: Path) -> FileTables:
    return FileTables(None, str(tmp_path / "root"))


def found_in(tables: Tables, folder: Path) -> dict[str, Any]:
    return status(tables, config_of(folder))


def a_run(stage: str, at: datetime, outcome: str = "done") -> dict[str, Any]:
    row = {"run_id": "r1", "stage": stage, "outcome": outcome, "reason": "", "started_at": at, "seconds": 2.4}
    return row | {"num_rows": 7, "inputs": "{}", "outputs": "{}", "config_hash": "c", "code_hash": "d"}


def test_tiles_count_the_newest_revision_of_each_day(tables: Tables, tmp_path: Path) -> None:
    row = {"fingerprint": "", "content": "", "num_tiles": 1, "num_rejected": 0}
    days = [(DAY, 1, 100), (DAY, 2, 40), (DAY - timedelta(days=30), 1, 5)]
    tables.add(
        TILE_DAYS,
        [
            row | {"event_date": day, "revision": revision, "num_events": events, "built_at": NOW + timedelta(revision)}
            for day, revision, events in days
        ],
    )
    assert found_in(tables, tmp_path)["tiles"] == {
        "first_day": date(2024, 4, 1),
        "last_day": DAY,
        "num_days": 2,
        "num_events": 45,
        "num_rejected": 0,
    }


def test_rejected_rows_count_by_reason_in_the_newest_revision_of_their_day(tables: Tables, tmp_path: Path) -> None:
    row = {"fingerprint": "", "content": "", "num_tiles": 1, "num_events": 1, "built_at": NOW}
    days = [(DAY, 1, 2), (DAY, 2, 1), (None, 3, 1), (DAY + timedelta(days=1), 1, 0)]
    tables.add(TILE_DAYS, [row | {"event_date": day, "revision": rev, "num_rejected": num} for day, rev, num in days])
    rejected = [
        (DAY, 1, "missing_user_id", 2), (DAY, 2, "missing_user_id", 1), (DAY, 2, "missing_item_id", 2),
        (DAY, 3, "unparsable_row", 4), (DAY, 2, "unparsable_row", 8),  # the latter under the day of their partition
        (DAY + timedelta(days=1), 1, "missing_item_id", 16),
    ]  # fmt: skip
    rows = [{"event_date": day, "revision": rev, "reason": why, "row": "{}"} for day, rev, why, num in rejected
            for _ in range(num)]  # fmt: skip
    tables.add(REJECTED_EVENTS, rows)
    found = found_in(tables, tmp_path)["rejected"]
    assert list(found.items()) == [("unparsable_row", 12), ("missing_item_id", 2), ("missing_user_id", 1)]


def test_of_each_stage_the_newest_run_is_listed_in_the_order_of_their_starts(tables: Tables, tmp_path: Path) -> None:
    hour = timedelta(hours=1)
    tables.add(JOB_RUNS, [a_run("embed_users", NOW + 3 * hour, "failed"), a_run("build_activity_tiles", NOW)])
    tables.add(JOB_RUNS, [a_run("embed_users", NOW + hour), a_run("build_activity_tiles", NOW + 2 * hour)])
    runs = found_in(tables, tmp_path)["runs"]
    assert [(run["stage"], run["outcome"], run["started_at"]) for run in runs] == [
        ("build_activity_tiles", "done", NOW + 2 * hour),
        ("embed_users", "failed", NOW + 3 * hour),
    ]


def test_spaces_have_their_last_five_published_snapshots_and_what_embeds_them_daily(
    tables: Tables, tmp_path: Path
) -> None:
    add_spaces(tables, "s1", "s2")
    mark_ready(tables, find_space(tables, "s1"))
    promote(tables, find_space(tables, "s1"))
    register_consumer(tables, "ads", owner="ada")
    record_snapshots(tables, [snapshot(DAY + timedelta(days=k), space="s1") for k in range(7)])
    record_snapshots(tables, [snapshot(DAY + timedelta(days=9), space="s1", state="staged")])
    found = found_in(tables, tmp_path)
    first, second = found["spaces"]
    assert [of["as_of"] - DAY for of in first["snapshots"]] == [timedelta(days=k) for k in range(2, 7)]
    assert (first["in_use"], second["in_use"], second["snapshots"]) == ("serving", None, [])
    assert [(of["name"], of["owner"]) for of in found["consumers"]] == [("ads", "ada")]


def test_requests_to_forget_are_listed_until_they_are_done(tables: Tables, tmp_path: Path) -> None:
    def state(request_id: str, name: str, minutes: int) -> dict[str, Any]:
        at = NOW + timedelta(minutes=minutes)
        row = {"request_id": request_id, "state": name, "requested_at": NOW, "due_at": None, "num_users": 3}
        return row | {"receipt": "{}", "recorded_at": at}

    tables.add(ERASURES, [state("f1", "done", 2), state("f1", "deleted", 1), state("f2", "begun", 1)])
    assert found_in(tables, tmp_path)["erasures"] == [
        {"request_id": "f2", "state": "begun", "num_users": 3, "requested_at": NOW, "due_at": None}
    ]


def test_the_bytes_of_each_table_are_reported(tables: FileTables, tmp_path: Path) -> None:
    features = user_features("l9", "num_events_7d BIGINT")
    for table in (ERASURES, features):
        tables.add(table, [dict.fromkeys(table.names)])
    (tmp_path / "root" / "tables" / "another").mkdir()
    sizes = {table.name: tables.files(table)[0].size for table in (ERASURES, features)}
    found = found_in(tables, tmp_path)["bytes"]
    assert list(found.items()) == sorted(sizes.items(), key=lambda item: -item[1])


def test_each_consumer_has_its_newest_verdict(tables: Tables, tmp_path: Path) -> None:
    register_consumer(tables, "ads", owner="ada")
    newer = replace(PASSED, new_space_id="s3", compared_at=NOW + timedelta(days=9))
    for verdict in (newer, PASSED):
        record_verdict(tables, verdict)
    assert found_in(tables, tmp_path)["verdicts"] == [newer]


def test_an_empty_root_is_described_in_two_lines(tables: Tables, tmp_path: Path) -> None:
    assert status_lines(found_in(tables, tmp_path)) == ["tiles: none yet", "spaces: none yet"]


def test_a_state_is_written_in_lines_that_a_person_reads() -> None:
    space = {"space_id": "s1", "state": "serving", "trained_until": DAY, "in_use": "serving", "stale": []}
    published = {"snapshot_id": "s1-20240502-r1", "num_users": 1234, "available_at": NOW}
    stale = [DAY + timedelta(days=k) for k in range(12)]
    tiles = {"num_days": 2, "first_day": date(2024, 4, 1), "last_day": DAY, "num_events": 45_000, "num_rejected": 1_000}
    consumer = {"name": "ads", "owner": "ada", "pinned_space_id": None, "ready_for": None}
    request = {"request_id": "f1", "state": DELETED, "num_users": 1_500, "due_at": NOW}
    run = {"stage": "embed_users", "outcome": "failed", "started_at": NOW, "seconds": 2.6, "reason": "gates: too few"}
    found = {
        "tiles": tiles,
        "rejected": {"missing_user_id": 1_000},
        "bytes": {"user_item_days": 2_500_000, "registry": 1_000},
        "spaces": [
            {**space, "snapshots": [published]},
            {**space, "space_id": "s2", "state": "ready", "in_use": None, "stale": stale, "snapshots": []},
        ],
        "consumers": [consumer, {**consumer, "name": "mail", "pinned_space_id": "s2", "ready_for": "s1"}],
        "verdicts": [PASSED],
        "erasures": [request, {**request, "request_id": "f2", "state": ASKED, "due_at": None}],
        "runs": [run, {**run, "outcome": "done", "reason": ""}],
    }
    assert status_lines(found) == [
        "tiles: 2 days, 2024-04-01 to 2024-05-01, 45,000 events, 1,000 rows rejected",
        "  rejected, missing_user_id: 1,000",
        "stored: 2.5 MB, most of it in user_item_days 2.5 MB, registry 1.0 kB",
        "space s1: serving, trained on data until 2024-05-01; embedded daily: serving",
        "  snapshot s1-20240502-r1: 1,234 users, available at 2024-05-01 12:00 UTC",
        "space s2: ready, trained on data until 2024-05-01",
        "  stale after changes in the log: 2024-05-01, 2024-05-02, 2024-05-03, 2024-05-04, 2024-05-05, "
        "2024-05-06, 2024-05-07, 2024-05-08, 2024-05-09, 2024-05-10 and 2 more; run `userrep backfill --stale` "
        "to rebuild them",
        "consumer ads of ada: uses the serving space, ready for none",
        "consumer mail of ada: uses s2, ready for s1",
        "verdict of ads on s2 next to s1: pass, auc +0.0123 [-0.0010, +0.0200] on 12,345 labels, compared "
        "2024-05-01 12:00 UTC",
        "erasure request f1 for 1,500 users: older table versions still contain rows; run `userrep forget` after "
        "2024-05-01 12:00 UTC to remove them",
        "erasure request f2 for 1,500 users: interrupted; run `userrep forget` again with its file of users",
        "last embed_users: failed at 2024-05-01 12:00 UTC in 3 s (gates: too few)",
        "last embed_users: done at 2024-05-01 12:00 UTC in 3 s",
    ]
