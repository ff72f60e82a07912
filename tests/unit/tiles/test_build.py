"""Which days of tiles are built, and what a build refuses before it writes anything."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from userrep.config import Config
from userrep.errors import RejectedShareError, UsageError
from userrep.store.open import open_tables
from userrep.store.schemas import REJECTED_EVENTS, TILE_DAYS
from userrep.store.tables import Tables
from userrep.tiles.arrow_tasks import NO_TILES, BuiltDay
from userrep.tiles.build import TileBuild, _Build, build_tiles, stale_days
from userrep.tiles.inventory.inventory import Inventory, mapping_of
from userrep.tiles.inventory.log_days import LogDay
from userrep.tiles.ledger import NO_ROWS, TileDay, TileLedger, tile_ledger

pytestmark = pytest.mark.fast

D1, D2, D3, D4 = (date(2024, 5, day) for day in (1, 2, 3, 4))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path, events={"min_day_share": 0.01})


@pytest.fixture
def tables(config: Config) -> Tables:
    """Tables without a Spark session: a build that gets as far as reading the log fails."""
    return open_tables(config, None)


def known(day: date | None, fingerprint: str, content: str = "c") -> dict[str, Any]:
    counts = {"num_events": 10, "num_tiles": 10, "num_rejected": 0}
    built_at = datetime(2024, 5, 9, 12)
    return {
        "event_date": day,
        "revision": 1,
        "fingerprint": fingerprint,
        "content": content,
        "built_at": built_at,
        **counts,
    }


def ledger_of(**fingerprints: str) -> TileLedger:
    days = {date(2024, 5, int(name[1:])): TileDay(value, "c", 1, 10, 0) for name, value in fingerprints.items()}
    return TileLedger(1, days, TileDay("", "", 0, 0, 0), {})


def days_of(**fingerprints: str) -> dict[date, LogDay]:
    dates = {date(2024, 5, int(name[1:])): value for name, value in fingerprints.items()}
    return {day: LogDay(day, 10, 0, value) for day, value in dates.items()}


def test_days_are_stale_if_they_are_new_or_their_rows_changed() -> None:
    stale, gone = stale_days(days_of(d1="a", d2="x", d3="c"), ledger_of(d1="a:m", d2="b:m"), D4, "m")
    assert stale == {D2: "x:m", D3: "c:m"}
    assert gone == []


def test_every_day_is_stale_if_the_meaning_of_the_columns_changed() -> None:
    stale, _ = stale_days(days_of(d1="a", d2="b"), ledger_of(d1="a:m", d2="b:m"), D4, "other")
    assert stale == {D1: "a:other", D2: "b:other"}


def test_a_day_that_left_the_log_is_emptied_once_and_only_before_the_date() -> None:
    ledger = ledger_of(d1="none", d2="b:m", d3="c:m")
    assert stale_days({}, ledger, D3, "m") == ({}, [D2])
    assert stale_days({}, ledger, D4, "m") == ({}, [D2, D3])


def test_a_build_names_the_days_that_left_the_log(
    tables: Tables, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Build, "run", lambda *_, **__: {})
    mapping = mapping_of(config.events)
    tables.add(TILE_DAYS, [known(D1, f"a:{mapping}"), known(D2, f"b:{mapping}"), known(None, "u", "none")])
    left = Inventory([*days_of(d2="b").values()], 0, 0, undated_fingerprint="u")
    assert build_tiles(tables, config, left, before=D3).vanished == [D1]
    assert tile_ledger(tables).days[D1].content == NO_ROWS
    assert build_tiles(tables, config, left, before=D3) == TileBuild([], 1, 0, 0, 0)


def test_days_that_are_up_to_date_are_neither_read_nor_written(tables: Tables, config: Config) -> None:
    mapping = mapping_of(config.events)
    tables.add(TILE_DAYS, [known(D1, f"a:{mapping}"), known(D2, f"b:{mapping}"), known(None, "u", "none")])
    inventory = Inventory([*days_of(d1="a", d2="b", d3="new").values()], 1, 0, undated_fingerprint="u")
    before = tables.version(TILE_DAYS)
    assert build_tiles(tables, config, inventory, before=D3) == TileBuild([], 2, 0, 0, 0)
    assert tables.version(TILE_DAYS) == before


def test_undated_rows_are_checked_again_once_they_changed(tables: Tables, config: Config) -> None:
    mapping = mapping_of(config.events)
    tables.add(TILE_DAYS, [known(D1, f"a:{mapping}"), known(None, "u", "none")])
    day = days_of(d1="a")[D1]
    same = Inventory([day], 2, 0, undated_fingerprint="u")
    assert build_tiles(tables, config, same, before=D2) == TileBuild([], 1, 0, 0, 0)
    with pytest.raises(RejectedShareError, match="2 of 12 rows have no readable time"):
        build_tiles(tables, config, Inventory([day], 2, 0, undated_fingerprint="other"), before=D2)


@pytest.mark.parametrize(
    ("day", "error", "reason"),
    [
        (LogDay(D2, 100, 6, "b"), RejectedShareError, "2024-05-02: 6 of 100 rows are malformed"),
        (LogDay(D2, 0, 0, "b"), UsageError, "2024-05-02 has 0 rows; the log's median day has 50"),
    ],
    ids=["rejects", "size"],
)
def test_a_day_that_is_refused_stops_the_build_before_anything_is_read_or_written(
    tables: Tables, config: Config, day: LogDay, error: type[Exception], reason: str
) -> None:
    inventory = Inventory([LogDay(D1, 100, 0, "a"), day], 0, 0)
    with pytest.raises(error, match=reason):
        build_tiles(tables, config, inventory, before=D3)
    assert tile_ledger(tables).days == {}


def test_undated_rows_that_the_owner_has_repaired_leave_the_ledger(
    tables: Tables, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Build, "run", lambda *_, **__: {})
    tables.add(TILE_DAYS, [known(D1, f"a:{mapping_of(config.events)}"), known(None, "u", "none") | {"num_rejected": 7}])
    build_tiles(tables, config, Inventory([*days_of(d1="a").values()], 0, 0), before=D2)
    assert tile_ledger(tables).undated.num_rejected == 0


def test_a_build_that_fails_removes_its_rows(tables: Tables, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(build: _Build, **_: object) -> None:
        tables.add(REJECTED_EVENTS, [{"event_date": D1, "revision": build.revision, "reason": "r", "row": "{}"}])
        raise RejectedShareError("2024-05-01: 9 of 10 rows are malformed")

    monkeypatch.setattr(_Build, "run", fail)
    with pytest.raises(RejectedShareError):
        build_tiles(tables, config, Inventory([*days_of(d1="a").values()], 0, 0), before=D2)
    assert tables.ledger(REJECTED_EVENTS) == []


def test_a_ledger_that_was_only_compacted_meanwhile_does_not_restart_a_build(
    tables: Tables, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    def compacted_meanwhile(build: _Build, **_: object) -> dict[date, BuiltDay]:
        runs.append(build.revision)
        assert tables.compact(TILE_DAYS, at_least=2)
        return dict.fromkeys((day.day for day in build.days), NO_TILES)

    for day in (D1, D2):
        tables.add(TILE_DAYS, [known(day, f"a:{mapping_of(config.events)}")])
    monkeypatch.setattr(_Build, "run", compacted_meanwhile)
    inventory = Inventory([*days_of(d1="a", d2="a", d3="new").values()], 0, 0)
    assert build_tiles(tables, config, inventory, before=D4).days == [D3]
    assert runs == [2]


def test_a_bad_day_does_not_block_the_days_before_it(tables: Tables, config: Config) -> None:
    tables.add(TILE_DAYS, [known(D1, f"a:{mapping_of(config.events)}")])
    inventory = Inventory([LogDay(D1, 10, 0, "a"), LogDay(D2, 10, 9, "b")], 0, 0)
    assert build_tiles(tables, config, inventory, before=D2) == TileBuild([], 1, 0, 0, 0)
