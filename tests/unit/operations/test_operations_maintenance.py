"""Maintenance without Spark: which partitions have too many files, which refused snapshots go."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import Update, add_updates, publish, snapshot
from userrep.operations import maintenance
from userrep.operations.maintenance import _crowded, _drop_superseded_tiles, _drop_unpublished, maintain_tables
from userrep.store.file_tables import FileTables
from userrep.store.schemas import (
    EMBEDDING_UPDATES,
    JOB_RUNS,
    REJECTED_EVENTS,
    SNAPSHOTS,
    SUM_GENERATIONS,
    TILE_DAYS,
    USER_EMBEDDINGS,
)
from userrep.store.tables import RETENTION, Tables
from userrep.utc import utc_now

pytestmark = pytest.mark.fast

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
NOON = datetime(2024, 5, 1, 12)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path))


def test_a_partition_with_sixteen_files_is_crowded_and_one_with_fifteen_is_not(tables: Tables) -> None:
    crowded, other = Update(D1, "u", NOON, [1.0]), Update(D2, "u", NOON, [1.0], space="s002-b")
    for _ in range(15):
        add_updates(tables, [crowded, other])
    add_updates(tables, [crowded])
    assert _crowded(tables, EMBEDDING_UPDATES) == [{"space_id": "s001-a", "as_of": D1}]


def test_rejected_rows_of_batches_are_left_as_they_are(tables: Tables) -> None:
    for k in range(16):
        rows = [{"event_date": D1, "revision": of, "reason": "r", "row": f"{k}"} for of in (0, 1)]
        tables.add(REJECTED_EVENTS, rows)
    assert _crowded(tables, REJECTED_EVENTS) == [{"event_date": D1, "revision": 0}]


def test_rows_of_a_refused_snapshot_go_after_seven_days_and_only_once(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, other = snapshot(D1, 2, NOON, state="refused"), snapshot(D2, 1, NOON, state="refused", space="s002-b")
    other = replace(other, state="staged", gates='{"was_refused": true}')
    publish(tables, {snapshot(D1): {"u": [1.0]}, refused: {"u": [2.0]}, other: {"u": [3.0]}})

    def dropped(now: datetime) -> int:
        monkeypatch.setattr(maintenance, "utc_now", lambda: now)
        return _drop_unpublished(tables)

    week = NOON + timedelta(days=7)
    assert dropped(week) == 0
    assert dropped(week + timedelta(microseconds=1)) == 2
    assert dropped(week + timedelta(days=1)) == 0
    left = [file.values for file in tables.files(USER_EMBEDDINGS, lambda _: True)]
    assert left == [{"space_id": "s001-a", "as_of": D1, "revision": 1}]
    assert sorted(row.state for row in tables.ledger(SNAPSHOTS)) == ["published", "refused", "refused"]


def test_rows_that_a_killed_maintenance_left_without_a_snapshot_go_after_seven_days(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tables, {snapshot(D1): {"u": [1.0]}})
    tables.add(SNAPSHOTS, [], replacing="true")
    assert _drop_unpublished(tables) == 0
    monkeypatch.setattr(maintenance, "utc_now", lambda: utc_now() + RETENTION + timedelta(minutes=1))
    assert _drop_unpublished(tables) == 1
    assert not tables.partitions(USER_EMBEDDINGS)


def test_rejected_rows_of_superseded_and_unknown_revisions_go_after_seven_days(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def revisions() -> set[tuple[date, int]]:
        files = tables.files(REJECTED_EVENTS, lambda _: True)
        return {(file.values["event_date"], file.values["revision"]) for file in files}

    day = {
        "fingerprint": "f",
        "content": "c",
        "num_events": 1,
        "num_tiles": 1,
        "num_rejected": 1,
        "built_at": utc_now(),
    }
    days = ((D1, 1), (D1, 2), (D2, 1), (None, 1), (None, 3))
    tables.add(TILE_DAYS, [day | {"event_date": event_date, "revision": number} for event_date, number in days])
    tables.add(SUM_GENERATIONS, [{"lineage_id": "l1", "generation": 1, "as_of": D2, "revision_by_day": {D1: 1}}])
    kept = {(D1, 2), (D2, 1), (D1, 0), (D2, 3)}  # the newest of their days, of a stream, of rows without a time
    superseded, killed = (D1, 1), (D2, 2)
    for event_date, number in (*kept, superseded, killed):
        row = {"event_date": event_date, "revision": number, "reason": "r", "row": "{}"}
        tables.add(REJECTED_EVENTS, [row])
    _drop_superseded_tiles(tables)
    assert revisions() == {*kept, superseded, killed}  # they were written just now
    monkeypatch.setattr(maintenance, "utc_now", lambda: utc_now() + RETENTION + timedelta(minutes=1))
    _drop_superseded_tiles(tables)
    assert revisions() == kept


def test_ledgers_are_joined_at_sixteen_files_and_what_was_done_is_reported(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.setattr(maintenance.schemas, "ALL", ())  # nothing is old enough to be removed
    for k in range(15):
        tables.add(JOB_RUNS, [{"run_id": f"r{k}", "stage": "s"}])
    assert maintain_tables(tables, config_of(tmp_path))["joined"] == {}
    tables.add(JOB_RUNS, [{"run_id": "r15", "stage": "s"}])
    done = maintain_tables(tables, config_of(tmp_path))
    nothing = dict.fromkeys(
        ("unpublished_snapshots", "superseded_tiles", "features", "updates", "trainings", "orphans"), 0
    )
    assert done == {"joined": {"job_runs": 16}} | nothing
    assert lines[2] == "maintain_tables: compacted the files of 1 table"
    assert len(tables.ledger(JOB_RUNS)) == 16
