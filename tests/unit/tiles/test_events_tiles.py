"""The ledger of days decides which tiles are read: only the newest revision of each day."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from userrep.store.file_tables import FileTables
from userrep.store.schemas import TILE_DAYS
from userrep.store.tables import Tables
from userrep.tiles import ledger
from userrep.tiles.ledger import (
    days_fingerprint,
    tile_ledger,
    tiles_by_cell,
)

pytestmark = pytest.mark.fast

D1, D2, D3, D4 = (date(2024, 5, day) for day in (1, 2, 3, 4))
NOON = datetime(2024, 5, 9, 12)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path / "root"))


def ledger_row(day: date | None, revision: int, content: str, **more: Any) -> dict[str, Any]:
    row = {"event_date": day, "revision": revision, "content": content, "fingerprint": f"of {content}"}
    return row | {"num_events": 0, "num_tiles": 0, "num_rejected": 0, "built_at": NOON, **more}


# Which revision is read


def test_the_highest_revision_of_a_day_takes_precedence_in_any_order_of_rows(tables: Tables) -> None:
    later = NOON + timedelta(hours=1)
    tables.add(TILE_DAYS, [ledger_row(D1, 10, "new"), ledger_row(D1, 9, "old", built_at=later)])
    tables.add(TILE_DAYS, [ledger_row(D1, 2, "first"), ledger_row(D2, 1, "only")])
    assert tile_ledger(tables).latest == {D1: ("new", 10), D2: ("only", 1)}


def test_undated_rows_have_a_fingerprint_but_no_day(tables: Tables) -> None:
    assert (tile_ledger(tables).undated.fingerprint, tile_ledger(tables).undated.revision) == ("", 0)
    tables.add(TILE_DAYS, [ledger_row(None, 3, "none", num_rejected=4), ledger_row(D1, 2, "a", num_events=5)])
    ledger = tile_ledger(tables)
    assert (ledger.undated.fingerprint, ledger.undated.revision) == ("of none", 3)
    assert ledger.latest == {D1: ("a", 2)}
    counts = [(entry.num_events, entry.num_rejected) for entry in (ledger.undated, ledger.days[D1])]
    assert counts == [(0, 4), (5, 0)]


# Fingerprints


def test_the_fingerprint_of_a_range_follows_the_content_of_its_days_but_not_their_revisions(tables: Tables) -> None:
    days = {D1: ("a", 1), D2: ("b", 1), D3: ("c", 1)}
    of_two = days_fingerprint(days, start=D2, end=D4)
    assert of_two == days_fingerprint({**days, D1: ("x", 2), D4: ("y", 2)}, start=D2, end=D4)
    assert of_two == days_fingerprint({**days, D3: ("c", 7)}, start=D2, end=D4)
    changed = [{**days, D2: ("x", 1)}, {**days, D3: ("x", 1)}, {D2: ("c", 1), D3: ("b", 1)}, {D2: ("b", 1)}]
    assert of_two not in {days_fingerprint(other, start=D2, end=D4) for other in changed}
    assert days_fingerprint(days, start=None, end=D4) == days_fingerprint(days, start=D1, end=D4)
    tables.add(TILE_DAYS, [ledger_row(day, revision, content) for day, (content, revision) in days.items()])
    assert days_fingerprint(tile_ledger(tables).latest, start=D2, end=D4) == of_two


# Counting tiles


def test_tiles_are_counted_for_the_revisions_that_are_asked_for(tables: Tables) -> None:
    rows = [ledger_row(D1, 1, "a", num_tiles=3), ledger_row(D1, 2, "b", num_tiles=5), ledger_row(D2, 2, "c")]
    tables.add(TILE_DAYS, rows)
    ledger = tile_ledger(tables)
    assert [ledger.num_tiles([(D1, 1)]), ledger.num_tiles([(D1, 1), (D1, 2), (D2, 2), (D3, 1)])] == [3, 8]


def test_many_tiles_are_counted_by_cell_and_few_are_spread_evenly(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.add(
        TILE_DAYS,
        [
            ledger_row(D1, 1, "a", num_tiles=600, num_tiles_by_cell={0: 500, 255: 100}),
            ledger_row(D1, 2, "b", num_tiles=700, num_tiles_by_cell={0: 700}),
            ledger_row(D2, 1, "c", num_tiles=424, num_tiles_by_cell={255: 424}),
        ],
    )
    days = [(D1, 1), (D2, 1)]
    monkeypatch.setattr(ledger, "_WORTH_COUNTING", 1024)
    counted = tiles_by_cell(tables, tile_ledger(tables), days)
    assert (counted[0], counted[255], counted.sum(), len(counted)) == (500, 524, 1024, 256)
    monkeypatch.setattr(ledger, "_WORTH_COUNTING", 1025)
    assert np.array_equal(tiles_by_cell(tables, tile_ledger(tables), days), np.full(256, 4))
