"""Small logs and configurations for tests; a test names only what matters to its claim."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from userrep.config import Config, parse_config

EVENT_COLUMNS = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}


def at(text: str) -> datetime:
    """Read ``2024-05-01`` or ``2024-05-01 23:59:59``."""
    return datetime.fromisoformat(text)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None) -> Path:
    """Write rows as one Parquet file; times are naive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)
    return path


def event(user: str | None, item: str | None, when: str | None, **more: Any) -> dict[str, Any]:
    """Build a row of a log."""
    return {"user_id": user, "item_id": item, "event_at": at(when) if when else None, **more}


def config_of(folder: Path, **sections: Any) -> Config:
    """Build a configuration with tables below ``folder`` and the log in ``folder/events``; sections override."""
    events = {"path": str(folder / "events"), "columns": EVENT_COLUMNS, **sections.pop("events", {})}
    values = {
        "root": str(folder / "root"),
        "events": events,
        "windows_days": [2, 7],
        "item_vectors": {"behaviour": {"kind": "als", "dim": 4, "refit_days": 7}},
        **sections,
    }
    return parse_config(values, "test")
