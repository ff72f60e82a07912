"""Configurations as values: the smallest valid ones, and the faults of invalid ones."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from userrep.config import Config, load_config, parse_config
from userrep.errors import UsageError

EVENTS = {"path": "log", "columns": {"user_id": "user", "item_id": "item", "event_at": "at"}}
ITEMS = {"path": "items", "columns": {"item_id": "item", "text": "title"}}
USERS = {"path": "users", "columns": {"user_id": "user_id"}}
SMALLEST = {"root": "build/here", "events": EVENTS}
CATALOG = {"catalog": "main", "schema": "userrep", "artifacts": "/models", "events": EVENTS}


def parsed(**sections: Any) -> Config:
    """Check the smallest configuration with these sections added or replaced."""
    return parse_config({**SMALLEST, **sections}, "c.yaml")


def loaded(folder: Path, *overrides: str, **sections: Any) -> Config:
    """Write the smallest configuration with these sections added or replaced to a file, and read it."""
    path = folder / "userrep.yaml"
    path.write_text(yaml.safe_dump({**SMALLEST, **sections}))
    return load_config(path, overrides)


def faults_of(values: dict[str, Any]) -> list[str]:
    """Return the faults of an invalid configuration; each is one line."""
    with pytest.raises(UsageError) as caught:
        parse_config(values, "c.yaml")
    assert caught.value.exit_code == 2
    assert all("\n" not in fault and fault.startswith("c.yaml: ") for fault in caught.value.faults)
    return [fault.removeprefix("c.yaml: ") for fault in caught.value.faults]


def fault_of(values: dict[str, Any]) -> str:
    """Return the only fault of an invalid configuration."""
    faults = faults_of(values)
    assert len(faults) == 1, faults
    return faults[0]
