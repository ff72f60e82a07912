"""How often a run lists the log: once, whatever its stages ask of it."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from pyspark.sql import SparkSession

from tests.support.builders import AS_OF
from userrep.config import Config
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.full

OPENED = re.compile(r'openat\(\w+, "([^"]+)", [A-Z_|]*O_DIRECTORY')


def folders_opened(traced: Path, below: Path) -> Counter[str]:
    """Count how often each folder was opened to be listed."""
    text = traced.read_text(errors="replace")
    return Counter(path for path in OPENED.findall(text) if Path(path) == below or below in Path(path).parents)


def test_a_night_lists_the_log_once(spark: SparkSession, done: tuple[RunContext, Config], tmp_path: Path) -> None:
    """Seen from outside, by the system calls of the command and all its processes."""
    values = done[1].model_dump(mode="json", by_alias=True, exclude_unset=True)
    log = Path(shutil.copytree(values["events"]["path"], tmp_path / "log" / "events"))
    root = shutil.copytree(values["root"], tmp_path / "root")
    config, traced = tmp_path / "userrep.yaml", tmp_path / "traced"
    values |= {"root": str(root), "events": values["events"] | {"path": str(log)}}
    config.write_text(yaml.safe_dump(values))
    as_of = AS_OF - timedelta(days=1)
    command = [sys.executable, "-m", "userrep.cli", "daily", "--config", str(config), "--as-of", str(as_of)]
    trace = ["strace", "-f", "-qq", "-e", "trace=openat", "-o", str(traced)]
    ran = subprocess.run([*trace, *command], capture_output=True, text=True, check=False, timeout=500)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "build_activity_tiles: " in ran.stderr
    opened = folders_opened(traced, log)
    folders = {str(path) for path in (log, *log.rglob("*")) if path.is_dir()}
    assert opened == dict.fromkeys(folders, 1)
