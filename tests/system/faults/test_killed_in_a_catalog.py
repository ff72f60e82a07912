"""Tiles in a catalog, where Spark alone commits: a build that is killed and run again makes each tile once."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.support.builders import event, write_rows
from tests.system.faults.catalog_writer import SCHEMA
from userrep import failpoints

pytestmark = pytest.mark.full


def build(folder: Path, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.system.faults.catalog_writer", str(folder)]
    process = subprocess.run(
        command, check=False, env=os.environ | environment, capture_output=True, text=True, timeout=400
    )
    return process.returncode, process.stderr


def rows(folder: Path, table: str) -> list[dict[str, object]]:
    found = DeltaTable(str(folder / "warehouse" / f"{SCHEMA}.db" / table))
    return found.to_pyarrow_table().to_pylist()  # type: ignore[no-any-return]


def test_tiles_of_a_build_killed_before_its_ledger_are_made_once(tmp_path: Path) -> None:
    events = [event(f"u{k % 5}", f"i{k % 3}", f"2024-05-0{1 + k % 4} 12:00:{k:02d}") for k in range(60)]
    write_rows(tmp_path / "log" / "events.parquet", events)
    code, said = build(tmp_path, **{failpoints.ARM: "commit:tile_days:before"})
    assert code == -signal.SIGKILL, said
    assert len(rows(tmp_path, "user_item_days")) == 60  # each event is a tile of its own
    assert rows(tmp_path, "tile_days") == []

    code, said = build(tmp_path)
    assert code == 0, said
    revision = {row["event_date"]: row["revision"] for row in rows(tmp_path, "tile_days")}
    tiles = [row for row in rows(tmp_path, "user_item_days") if row["revision"] == revision[row["event_date"]]]
    found = Counter[tuple[object, ...]]()
    for tile in tiles:
        found[tile["event_date"], tile["user_id"], tile["item_id"]] += int(str(tile["num_events"]))
    assert found == Counter((of["event_at"].date(), of["user_id"], of["item_id"]) for of in events)
