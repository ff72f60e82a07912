"""Executors killed in the middle of their tasks, with tasks that run twice by speculation: the same bytes."""

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.faults.attack import Attack
from tests.faults.contents import contents
from tests.faults.fault_world import NIGHT, World
from tests.faults.tally import ALL, Faults

KILLED_DURING = ("build_activity_tiles", "build_user_features")
STAGE_BEFORE = {"build_activity_tiles": "take_inventory: ", "build_user_features": "train_item_vectors: "}
SHUFFLE_SECONDS = 2.0  # for which a shuffle is waited for; a stage may do without
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "10ms",
    "spark.speculation.multiplier": "1.01",
    "spark.speculation.quantile": "0.1",
    "spark.speculation.minTaskRuntime": "0ms",
}


@pytest.mark.skipif(not ALL, reason="make fault-test starts executors")
def test_features_made_while_executors_are_killed_are_the_same_to_the_bit(
    trained: World, nightly: tuple[Attack, World], faults: Faults, tmp_path: Path
) -> None:
    world = trained.copy(tmp_path / "world")
    spark_files = tmp_path / "spark"
    values: dict[str, Any] = yaml.safe_load(world.file.read_text(encoding="utf-8"))
    more = SPECULATION | {"spark.local.dir": str(spark_files), "spark.executor.memory": "1g"}
    values["spark"] = {"master": "local-cluster[2,1,1024]", "conf": values["spark"]["conf"] | more}
    world.file.write_text(yaml.safe_dump(values), encoding="utf-8")

    process = world.start(f"export features --as-of {NIGHT} --out {tmp_path / 'out'}")
    assert process.stderr is not None
    lines, killed = [], 0
    for line in process.stderr:
        lines.append(line)
        if any(before in line for before in STAGE_BEFORE.values()):
            killed += kill_an_executor(process.pid, spark_files)
    assert process.wait() == 0, lines

    wanted, found = nightly[0].wanted, contents(world.root)
    differ = [
        name
        for name in found
        if (name.startswith("user_features_") or name == "user_item_days") and found[name] != wanted[name]
    ]
    faults.tell("executors killed, speculation on", f"{killed} of {len(KILLED_DURING)} executors", differ)
    assert killed == len(KILLED_DURING)
    assert not faults.failed


def kill_an_executor(driver: int, spark_files: Path) -> int:
    """Kill one once there is a shuffle's file that was not there before; return how many were killed."""
    before, until = shuffle_files(spark_files), time.monotonic() + SHUFFLE_SECONDS
    while shuffle_files(spark_files) == before and time.monotonic() < until:
        time.sleep(0.01)
    for child in psutil.Process(driver).children(recursive=True):
        if any("CoarseGrainedExecutorBackend" in word for word in child.cmdline()):
            child.kill()
            return 1
    return 0


def shuffle_files(folder: Path) -> set[str]:
    names = (name for _, _, found in os.walk(folder) for name in found)  # folders come and go meanwhile
    return {name for name in names if name.startswith("shuffle_") and name.endswith(".data")}
