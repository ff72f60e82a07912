"""Events of several sources are counted together, and copies are found within each source."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import event, write_rows
from userrep.sources.tombstones import NO_TOMBSTONES
from userrep.tiles.by_arrow import tiles_of_files
from userrep.tiles.column_paths import LogColumns
from userrep.tiles.day_events import SourceFiles, can_open, events_of_files

pytestmark = pytest.mark.fast

D1, D2, D3 = (date(2024, 5, day) for day in (1, 2, 3))
IDS = {name: (name,) for name in ("user_id", "item_id", "event_at", "event_id")}
TEXTS = dict.fromkeys(("user_id", "item_id", "event_at", "event_id", "event_type", "weight", "context_0"), "text")
PLAYS = LogColumns(IDS | {"context_0": ("device",)}, TEXTS | {"event_at": "time"}, ("device",), "play", ())
LIKES = LogColumns(
    {"user_id": ("who",), "item_id": ("what",), "event_at": ("at",), "event_type": ("kind",), "weight": ("points",),
     "context_0": ("page",), "context_1": ("device",)},
    TEXTS, ("page", "device"), "", ("who", "what", "at", "kind", "points", "page", "device"), format="json",
)  # fmt: skip


def plays(path: Path, *rows: dict[str, Any]) -> SourceFiles:
    return SourceFiles({str(write_rows(path, rows)): [D1, D2]}, PLAYS)


def likes(path: Path, *rows: dict[str, Any]) -> SourceFiles:
    path.write_text("\n".join(map(json.dumps, rows)))
    return SourceFiles({str(path): [D1, D3]}, LIKES)


def test_tiles_count_the_events_of_all_sources(tmp_path: Path) -> None:
    play = event("u1", "i1", "2024-05-01 07:00:00", event_id="e1", device="tv")
    like = {"who": "u1", "what": "i1", "at": "2024-05-01T13:00:00Z", "kind": "play", "points": 2.5, "page": "home"}
    sources = [
        plays(tmp_path / "a.parquet", play, play, play | {"event_id": "e2", "device": None}),
        likes(tmp_path / "b.json", like, like, like | {"kind": "like"}, like | {"at": "2024-05-03", "points": -1}),
    ]
    found = {day.day: day for day in tiles_of_files(sources)}
    assert {day: of.num_rejected for day, of in found.items()} == {D1: 0, D2: 0, D3: 1}
    assert found[D2].tiles is not None
    assert found[D3].tiles is not None
    assert found[D2].tiles.num_rows == found[D3].tiles.num_rows == 0
    assert found[D1].tiles is not None
    rows = {row["event_type"]: row for row in found[D1].tiles.to_pylist()}
    names = ("user_id", "item_id", "num_events", "weight", "num_morning", "num_afternoon", "num_by_context")
    assert {kind: tuple(row[name] for name in names) for kind, row in rows.items()} == {
        "play": ("u1", "i1", 3, 4.5, 2, 1, [("device=(null)", 2), ("device=tv", 1), ("page=home", 1)]),
        "like": ("u1", "i1", 1, 2.5, 0, 1, [("device=(null)", 1), ("page=home", 1)]),
    }


def test_a_day_that_one_source_leaves_to_spark_has_no_tiles(tmp_path: Path) -> None:
    row = event("u1", "i1", "2024-05-01", event_id="e1", device="tv")
    differ = plays(
        tmp_path / "a.parquet", row, row | {"item_id": "i2"}, row | {"event_at": row["event_at"].replace(day=2)}
    )
    other = likes(tmp_path / "b.json", {"who": "u", "what": "i", "at": "2024-05-01", "kind": "like", "points": 1})
    found = {day.day: day for day in tiles_of_files([differ, other])}
    assert {day: of.tiles is None for day, of in found.items()} == {D1: True, D2: False, D3: False}


def test_a_source_without_files_of_a_day_has_no_events_of_it(tmp_path: Path) -> None:
    source = likes(tmp_path / "b.json", {"who": "u", "what": "i", "at": "2024-05-01", "kind": "like", "points": 1})
    days = list(events_of_files(source, [D1, D2, D3], ["device", "page", "more"], NO_TOMBSTONES))
    assert [day.events.num_rows for day in days if day is not None] == [1, 0, 0]
    assert days[0] is not None
    assert days[0].events["context_2"].to_pylist() == [None]


def test_only_files_that_exist_can_be_opened_and_parquet_only_with_a_footer(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", [event("u", "i", "2024-05-01")])
    (tmp_path / "b.parquet").write_text("user_id,item_id\n")
    assert can_open(str(path), PLAYS)
    assert not can_open(str(tmp_path / "b.parquet"), PLAYS)
    assert can_open(str(tmp_path / "b.parquet"), LIKES)
    assert not can_open(str(tmp_path / "none"), PLAYS)
    assert not can_open(str(tmp_path / "none"), LIKES)
