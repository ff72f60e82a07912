"""Tiles in a catalog, where Spark alone commits: a build that is killed and run again makes each tile once."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.support.builders import event, write_rows
from tests.support.points import run_until_killed
from tests.system.faults.catalog_writer import SCHEMA

pytestmark = pytest.mark.full


def rows(folder: Path, table: str) -> list[dict[str, object]]:
    found = DeltaTable(str(folder / "warehouse" / f"{SCHEMA}.db" / table))
    return found.to_pyarrow_table().to_pylist()  # type: ignore[no-any-return]


def test_tiles_of_a_build_killed_before_its_ledger_are_made_once(tmp_path: Path) -> None:
    events = [event(f"u{k % 5}", f"i{k % 3}", f"2024-05-0{1 + k % 4} 12:00:{k:02d}") for k in range(60)]
    write_rows(tmp_path / "log" / "events.parquet", events)
    build = ("-m", "tests.system.faults.catalog_writer", str(tmp_path))
    run_until_killed("commit:tile_days:before", *build)
    assert len(rows(tmp_path, "user_item_days")) == 60  # each event is a tile of its own
    assert rows(tmp_path, "tile_days") == []

    subprocess.run([sys.executable, *build], check=True, timeout=400)
    revision = {row["event_date"]: row["revision"] for row in rows(tmp_path, "tile_days")}
    tiles = [row for row in rows(tmp_path, "user_item_days") if row["revision"] == revision[row["event_date"]]]
    found = Counter[tuple[object, ...]]()
    for tile in tiles:
        found[tile["event_date"], tile["user_id"], tile["item_id"]] += int(str(tile["num_events"]))
    assert found == Counter((row["event_at"].date(), row["user_id"], row["item_id"]) for row in events)
