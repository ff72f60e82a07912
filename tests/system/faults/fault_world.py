"""The suite's generated log and configuration with a root of their own, on which commands are killed."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF, SPARK, pipeline_values
from userrep.config import load_config
from userrep.workflows.run_context import RunContext

NIGHT = AS_OF + timedelta(days=1)  # as-of date of the first daily run after the pipeline
PATIENCE = 400.0  # seconds, for a command on a busy machine


def write_configuration(
    path: Path, *, log: Path, root: Path | str, events: Mapping[str, Any], refit_days: int | None,
    conf: Mapping[str, str],
) -> Path:  # fmt: skip
    """Write the configuration of a world; ``events`` takes precedence over the suite's settings of the log."""
    values = pipeline_values(log, root, spark={"master": "local[2]", "conf": SPARK | conf})
    if refit_days:
        values["item_vectors"]["behaviour"]["refit_days"] = refit_days
    values["events"] |= events
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


class World:
    """A root with its configuration, and commands on it: in processes of their own, or in this one.

    ``root``: the root's URI if it is not in ``folder``, with the Spark settings in ``conf`` that it needs.
    ``events``: settings of the log that differ from those of the suite's log. ``refit_days``: days between versions of
    item vectors, if not the default.
    """

    def __init__(
        self,
        folder: Path,
        log: Path,
        *,
        events: Mapping[str, Any] | None = None,
        refit_days: int | None = None,
        root: str | None = None,
        conf: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.log, self.events, self.root = folder, log, events or {}, folder / "root"
        self.refit_days = refit_days
        folder.mkdir(parents=True, exist_ok=True)
        self.file = write_configuration(
            folder / "userrep.yaml", log=log, root=root or self.root, events=self.events,
            refit_days=refit_days, conf=conf or {},
        )  # fmt: skip
        self.config = load_config(self.file, [])

    def copy(self, folder: Path) -> "World":
        """Copy the root to another folder."""
        if self.root.exists():
            shutil.copytree(self.root, folder / "root")
        return World(folder, self.log, events=self.events, refit_days=self.refit_days)

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
        return ended(self.start(command, within=within, **environment))

    def killed_after(self, command: str, seconds: float) -> tuple[int, str]:
        """Run a command for some seconds, then kill its process group; return its exit code (0: it ended before)."""
        process = self.start(command)
        try:
            output = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = process.communicate(timeout=PATIENCE)[1]
        return process.returncode, output

    def pipeline(self, spark: SparkSession, as_of: date = AS_OF) -> RunContext:
        """Open the batch stages in this process, whose session is warm."""
        return RunContext(self.config, spark, as_of)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a command's end; return its exit code and what it wrote to stderr."""
    try:
        output = process.communicate(timeout=PATIENCE)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, output
