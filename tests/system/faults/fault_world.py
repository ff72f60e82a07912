"""The smallest world that passes every stage and gate: what is killed here is killed often."""

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
AS_OF = date(2024, 2, 5)  # of the pipeline; the nights after it lie in the log, too
NIGHT = date(2024, 2, 6)
PATIENCE = 400.0  # seconds, for a command on a machine that does other things too


def write_configuration(path: Path, *, log: Path, root: Path) -> Path:
    """Write the configuration of a world."""
    columns = ("user_id", "item_id", "event_at", "event_id", "event_type", "weight")
    values: dict[str, Any] = {
        "root": str(root),
        "events": {"path": str(log / "events"), "columns": {name: name for name in columns}},
        "items": {"path": str(log / "items"), "columns": {"item_id": "item_id", "text": "title"}},
        "users": {
            "path": str(log / "users"),
            "columns": {"user_id": "user_id", "registered_at": "registered_at"},
            "attributes": ["country"],
        },
        "windows_days": [3, 7],
        "history_days": 0,
        "item_vectors": {
            "behaviour": {"kind": "als", "dim": 4, "iterations": 2, "refit_days": 7},
            "content": {"kind": "text", "dim": 4},
        },
        "model": {"latent_dim": 8, "hidden_dim": 16, "decoder_dim": 16},
        "training": {
            "as_ofs": {"until": "2024-01-26", "every_days": 7}, "future_days": [7], "num_shards": 2, "batch_size": 64,
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

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log, self.root = folder, log, folder / "root"
        folder.mkdir(parents=True, exist_ok=True)
        self.file = write_configuration(folder / "userrep.yaml", log=log, root=self.root)
        self.config = load_config(self.file, [])

    def copy(self, folder: Path) -> "World":
        """Copy the root, to be destroyed elsewhere."""
        if self.root.exists():
            shutil.copytree(self.root, folder / "root")
        return World(folder, self.log)

    def start(self, command: str, *, within: Sequence[str] = (), **environment: str) -> "subprocess.Popen[str]":
        """Begin a command, the leader of a process group as a scheduler's task is; ``within``: words before it."""
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
        """Run a command to its end; return its exit code and what it said."""
        process = self.start(command, within=within, **environment)
        said = process.communicate(timeout=PATIENCE)[1]
        return process.returncode, said

    def killed_after(self, command: str, seconds: float) -> tuple[int, str]:
        """Run a command for so many seconds, then kill its process group; return how it ended (0: it was faster)."""
        process = self.start(command)
        try:
            said = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said = process.communicate(timeout=PATIENCE)[1]
        return process.returncode, said

    def pipeline(self, spark: SparkSession, as_of: date = AS_OF) -> Pipeline:
        """Open the batch stages in this process, where Spark is warm."""
        return Pipeline(self.config, spark, as_of, report=lambda _: None)
