"""The smallest world that passes every stage and gate, so that its commands can be killed often."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import SparkSession

from tests.support.builders import SPARK
from userrep.config import load_config
from userrep.events.generator import LogSpec
from userrep.pipeline import Pipeline

LOG = LogSpec(num_users=120, num_items=40, first_day=date(2024, 1, 1), num_days=40, events_per_user_day=1.0, seed=5)
AS_OF = date(2024, 2, 5)  # of the pipeline; the log holds the days of later daily runs too
NIGHT = date(2024, 2, 6)  # as-of date of the first daily run
PATIENCE = 400.0  # seconds, for a command on a busy machine


def write_configuration(path: Path, *, log: Path, root: Path, events_format: str = "parquet") -> Path:
    """Write the configuration of a world; events in another format than Parquet are in ``log/events-FORMAT``."""
    folder = "events" if events_format == "parquet" else f"events-{events_format}"
    columns = ("user_id", "item_id", "event_at", "event_id", "event_type", "weight")
    values: dict[str, Any] = {
        "root": str(root),
        "events": {
            "path": str(log / folder), "format": events_format, "columns": {name: name for name in columns}
        },
        "items": {"path": str(log / "items"), "columns": {"item_id": "item_id", "text": "title"}},
        "users": {
            "path": str(log / "users"),
            "columns": {"user_id": "user_id", "registered_at": "registered_at"},
            "attributes": ["country"],
        },
        "windows_days": [3, 7],
        "history_days": 0,
        "item_vectors": {
            "behaviour": {"kind": "als", "dim": 4, "iterations": 1, "refit_days": 12},
            "content": {"kind": "text", "dim": 4},
        },
        "model": {"latent_dim": 8, "hidden_dim": 16, "decoder_dim": 16},
        "training": {
            "as_ofs": {"until": "2024-01-27", "every_days": 7}, "future_days": [7], "num_shards": 2, "batch_size": 64,
            "max_epochs": 3,
        },
        "downstream": {"num_dates": 1, "horizon_days": 3},
        "tracking": {"mlflow": False},
        "spark": {"master": "local[2]", "conf": SPARK},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


class World:
    """A root with its configuration, and commands on it: in processes of their own, or in this one."""

    def __init__(self, folder: Path, log: Path, *, events_format: str = "parquet") -> None:
        self.folder, self.log, self.events_format, self.root = folder, log, events_format, folder / "root"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "userrep.yaml"
        self.file = write_configuration(file, log=log, root=self.root, events_format=events_format)
        self.config = load_config(self.file, [])

    def copy(self, folder: Path) -> "World":
        """Copy the root to another folder."""
        if self.root.exists():
            shutil.copytree(self.root, folder / "root")
        return World(folder, self.log, events_format=self.events_format)

    def start(self, command: str, *, within: Sequence[str] = (), **environment: str) -> "subprocess.Popen[str]":
        """Start a command as the leader of a process group, as schedulers do; ``within`` are words before it."""
        words = [*within, sys.executable, "-m", "userrep.cli", *command.split(), "--config", str(self.file)]
        return subprocess.Popen(
            words,
            env=os.environ | {"SPARK_LOCAL_DIRS": str(self.folder / "spark")} | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ends(self, command: str, *, within: Sequence[str] = (), **environment: str) -> tuple[int, str]:
        """Run a command to its end; return its exit code and its output."""
        process = self.start(command, within=within, **environment)
        try:
            output = process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, output

    def killed_after(self, command: str, seconds: float) -> tuple[int, str]:
        """Run a command for some seconds, then kill its process group; return its exit code (0: it ended before)."""
        process = self.start(command)
        try:
            output = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = process.communicate(timeout=PATIENCE)[1]
        return process.returncode, output

    def pipeline(self, spark: SparkSession, as_of: date = AS_OF) -> Pipeline:
        """Open the batch stages in this process, whose session is warm."""
        return Pipeline(self.config, spark, as_of, report=lambda _: None)
