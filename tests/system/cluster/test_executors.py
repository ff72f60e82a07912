"""Executors killed in mid-shuffle, tasks tried again, tasks run twice by speculation: the same rows, to the bit."""

import json
import os
import re
import time
from collections import Counter
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from pyspark.sql import SparkSession

from deploy.standalone_cluster import Driver, StandaloneCluster
from tests.support.builders import pipeline_config, write_rows
from tests.system.cluster.build import build
from tests.system.cluster.conftest import submit_to
from tests.system.faults.contents import contents
from tests.system.faults.tally import ALL

pytestmark = pytest.mark.full

BUILD = Path(__file__).with_name("build.py")
FIRST, NUM_DAYS, AS_OF = datetime(2024, 1, 1), 5, date(2024, 1, 6)
ATTACKED = {1: "build_activity_tiles", 3: "build_user_features"}  # by the number of stages of ours before them
PATIENCE = 300.0  # seconds, on a machine that does other things too
KILLS_PER_STAGE = 3 if ALL else 1  # each costs the start of a JVM
SETTINGS = {
    "spark.eventLog.enabled": "true",
    "spark.eventLog.compress": "false",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",  # else a task for each file to list
    "spark.speculation": "true",  # as eager as can be
    "spark.speculation.interval": "20ms",
    "spark.speculation.minTaskRuntime": "0ms",
    "spark.speculation.multiplier": "1.0",
    "spark.speculation.quantile": "0.1",
    "spark.speculation.task.duration.threshold": "100ms",
}


def write_log(folder: Path) -> None:
    """Write two logs that count as one, which Spark tiles, and vectors of the owner's: all sums are exact."""
    chance = np.random.default_rng(5)
    for name, num in (("plays", 4000), ("saves", 400)):
        users, items, minutes = (chance.integers(0, most, num).tolist() for most in (150, 40, NUM_DAYS * 24 * 60))
        rows = [
            {"user_id": f"u{u}", "item_id": f"i{i}", "event_at": FIRST + timedelta(minutes=m), "weight": 1.0 + i / 7}
            for u, i, m in zip(users, items, minutes, strict=True)
        ]
        write_rows(folder / f"{name}.parquet", rows)
    vectors = chance.normal(size=(40, 8)).tolist()
    write_rows(folder / "items.parquet", [{"item_id": f"i{i}", "vector": vector} for i, vector in enumerate(vectors)])


def sections(folder: Path) -> dict[str, Any]:
    """Configure a build that shuffles: several logs, and more item vectors than tasks may hold."""
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at", "weight": "weight"}
    logs = [{"path": f"{folder}/{name}.parquet", "columns": columns, "event_type": name} for name in ("plays", "saves")]
    return {
        "events": {"sources": logs},
        "items": {"path": f"{folder}/items.parquet", "columns": {"item_id": "item_id", "vector": "vector"}},
        "users": None,
        "onboarding": None,
        "item_vectors": {"given": {"kind": "vector", "dim": 8}},
        "windows_days": [2, 4],
        "training": {"as_ofs": {"until": "2024-01-05"}},
        "spark": {"item_vectors_bytes": 512},
    }


def shuffles_on(executor: psutil.Process) -> set[int]:
    """Return the shuffles of which an executor holds rows."""
    try:
        folders = executor.environ()["SPARK_EXECUTOR_DIRS"].split(os.pathsep)
        files = [file.name for folder in folders for file in Path(folder).rglob("shuffle_*_0.data")]
    except (psutil.Error, OSError, KeyError):  # gone meanwhile, or not quite there
        return set()
    return {int(name.split("_")[1]) for name in files}


def kill_in_shuffles(cluster: StandaloneCluster, driver: Driver) -> Counter[str]:
    """Kill who first holds rows of a shuffle, some times in each stage of ours, until the driver's end; count them."""
    seen: set[int] = set()
    kills: Counter[str] = Counter()
    until = time.monotonic() + PATIENCE
    while driver.process.poll() is None and time.monotonic() < until:
        for executor in cluster.executors():
            if new := shuffles_on(executor) - seen:
                seen |= new
                stage = ATTACKED.get(len(re.findall(r"^[\d:]{8} (?!warning)[a-z_]+: ", driver.said(), re.MULTILINE)))
                if stage and kills[stage] < KILLS_PER_STAGE:
                    with suppress(psutil.NoSuchProcess):
                        executor.kill()
                        kills[stage] += 1
        time.sleep(0.02)
    return kills


def ends_of_tasks(folder: Path) -> Counter[str]:
    """Count how tasks ended, and those that were speculative."""
    found: Counter[str] = Counter()
    for log in folder.rglob("events_*"):
        for line in log.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event["Event"] == "SparkListenerTaskEnd":
                found[event["Task End Reason"]["Reason"]] += 1
                found["speculative"] += event["Task Info"]["Speculative"]
    return found


def test_executors_killed_in_mid_shuffle_and_tasks_run_twice_leave_the_same_rows(
    spark: SparkSession, tmp_path: Path
) -> None:
    write_log(tmp_path)
    undisturbed = pipeline_config("", tmp_path / "undisturbed", **sections(tmp_path))
    build(spark, undisturbed, AS_OF)
    disturbed, events = tmp_path / "disturbed.yaml", tmp_path / "spark-events"
    config = pipeline_config("", tmp_path / "disturbed", **sections(tmp_path))
    disturbed.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    events.mkdir()
    with StandaloneCluster(tmp_path / "cluster", own_addresses=True) as cluster:
        driver = submit_to(cluster, BUILD, disturbed, AS_OF, **SETTINGS, **{"spark.eventLog.dir": str(events)})
        kills = kill_in_shuffles(cluster, driver)
        assert driver.wait(1) == 0, driver.said()
    ends = ends_of_tasks(events)
    print(f"kills {dict(kills)}, tasks {dict(ends)}")
    assert set(kills) == set(ATTACKED.values())
    assert ends["ExecutorLostFailure"] + ends["FetchFailed"] + ends["Resubmitted"] > 0
    assert ends["speculative"] > 0
    assert contents(tmp_path / "disturbed") == contents(tmp_path / "undisturbed")
