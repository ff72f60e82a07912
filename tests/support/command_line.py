"""The command line in this process: its output, configuration files, and the configuration from arguments."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from userrep.cli import forget as cli_forget
from userrep.cli import main as cli
from userrep.cli import pipeline as cli_pipeline
from userrep.cli import report as cli_report
from userrep.config import Config, load_config
from userrep.store.open import open_tables
from userrep.store.schemas import JOB_RUNS


class Answer(NamedTuple):
    """The output of a command. ``faults``: its lines on stderr, without the program's name and progress."""

    code: int
    out: str
    err: str

    @property
    def faults(self) -> list[str]:
        return [line.removeprefix("userrep: ") for line in self.err.splitlines() if line.startswith("userrep: ")]


Userrep = Callable[..., Answer]


def config_file(folder: Path, **sections: Any) -> Path:
    """Write a configuration with the root and the log below ``folder``."""
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}
    values: dict[str, Any] = {
        "root": str(folder / "root"),
        "events": {"path": str(folder / "events"), "columns": columns},
        "item_vectors": {"behaviour": {"kind": "als", "dim": 4}},
        **sections,
    }
    path = folder / "userrep.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def with_tables(config: Path) -> Path:
    """Create a table below the root of a configuration, as any run does."""
    open_tables(load_config(config), None).create(JOB_RUNS)
    return config


class Begun(BaseException):
    """Raised where everything is read and checked, and Spark would start."""


def configuration_of(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Config, list[str | None]]:
    """Run ``userrep`` until Spark would start; return the configuration and the requested run ids.

    Wrong usage raises SystemExit, as in a shell.
    """
    read: list[Config] = []
    run_ids: list[str | None] = []

    def begin(config: Config, *_: object, **__: object) -> None:
        read.append(config)
        raise Begun

    monkeypatch.setattr(cli_pipeline, "session_of", begin)
    monkeypatch.setattr(cli_pipeline, "context_for_run", begin)
    for module in (cli_forget, cli_pipeline, cli_report):
        monkeypatch.setattr(module, "tables_of", begin)
    monkeypatch.setattr(cli, "begin_run", lambda run_id=None: run_ids.append(run_id))
    monkeypatch.setattr(sys, "argv", ["userrep", *arguments])
    with pytest.raises(Begun):
        cli.main()
    return read[0], run_ids


def file_of(config: Config, folder: Path) -> Path:
    """Write a configuration file."""
    file = folder / "userrep.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True, by_alias=True)))
    return file
