"""On a real cluster: ranks on two Workers with a GPU each; ranks, Workers and drivers that are killed."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.standalone_cluster import Driver, StandaloneCluster, command_of
from tests.system.cluster.conftest import Submit
from tests.unit.training.test_training import losses_of, silent, task_on
from userrep.training.launch.comm import LocalComm
from userrep.training.loop import train

pytestmark = pytest.mark.full

TRAIN = Path(__file__).with_name("train.py")
EPOCHS = 150  # enough to be killed twice on the way


def losses(folder: Path, backend: str) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / f"{backend}.json").read_text())
    return found


def soon(condition: Callable[[], object], driver: Driver, seconds: float = 200) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, driver.said()
        time.sleep(0.1)


def ranks(cluster: StandaloneCluster) -> list[psutil.Process]:
    """Return the processes that train."""
    found = []
    for process in cluster.processes():
        words = command_of(process)
        if "horovod.spark.task.gloo_exec_fn" in words and "/bin/sh" not in words[0]:
            found.append(process)
    return found


def epoch_of(driver: Driver) -> int:
    """Return the last epoch that a driver has told of."""
    told = re.findall(r"^[\d:]{8} epoch (\d+)/", driver.said(), re.MULTILINE)
    return int(told[-1]) if told else 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Train in this process, as long as the trainings that are killed."""
    task = task_on(tmp_path_factory.mktemp("undisturbed"), max_epochs=EPOCHS, patience=EPOCHS)
    return losses_of(train(task, LocalComm(), silent))


def test_two_ranks_on_two_workers_by_either_backend_give_the_losses_of_one_process(
    tmp_path: Path, submit: Submit
) -> None:
    driver = submit(TRAIN, tmp_path, 2, "local", "horovod", "torch_distributor")
    assert driver.wait(300) == 0, driver.said()
    local = losses(tmp_path, "local")
    assert losses(tmp_path, "horovod") == pytest.approx(local, rel=1e-4)
    assert losses(tmp_path, "torch_distributor") == pytest.approx(losses(tmp_path, "horovod"), rel=1e-5)
    places = re.findall(r"^[\d:]{8} ranks: (.*)$", driver.said(), re.MULTILINE)
    assert len(places) == 2
    for place in places:  # each rank has the GPU of its own Worker
        assert sorted(re.findall(r"CPU, Spark assigned GPU (\d), but torch finds no CUDA", place)) == ["0", "1"]


def test_a_killed_rank_and_then_a_killed_worker_cost_an_epoch_each(
    tmp_path: Path, submit: Submit, cluster: StandaloneCluster, undisturbed: dict[str, float]
) -> None:
    driver = submit(TRAIN, tmp_path, EPOCHS, "horovod")
    soon(lambda: epoch_of(driver) >= 20, driver)
    ranks(cluster)[0].kill()
    soon(lambda: "Restart 1 of 2" in driver.said(), driver, seconds=60)
    assert re.search(r"rank [01] of 2 on \S+ \(pid \d+\) died without an error message", driver.said())
    soon(lambda: "training resumes from its checkpoint in epoch" in driver.said(), driver)
    before = epoch_of(driver)
    soon(lambda: epoch_of(driver) > before + 20, driver)
    cluster.kill_worker(1)
    soon(lambda: "Restart 2 of 2" in driver.said(), driver, seconds=60)
    cluster.start_worker(1)
    assert driver.wait(300) == 0, driver.said()
    assert losses(tmp_path, "horovod") == pytest.approx(undisturbed, rel=1e-4)
    assert not ranks(cluster)


def test_a_killed_driver_leaves_no_rank_and_running_again_goes_on(
    tmp_path: Path, submit: Submit, cluster: StandaloneCluster, undisturbed: dict[str, float]
) -> None:
    driver = submit(TRAIN, tmp_path, EPOCHS, "horovod")
    soon(lambda: epoch_of(driver) >= 20, driver)
    os.killpg(driver.process.pid, signal.SIGKILL)
    soon(lambda: not ranks(cluster) and not cluster.executors(), driver, seconds=60)
    again = submit(TRAIN, tmp_path, EPOCHS, "horovod")
    assert again.wait(300) == 0, again.said()
    found = re.search(r"training resumes from its checkpoint in epoch (\d+)", again.said())
    assert found is not None
    assert int(found[1]) >= 20
    assert losses(tmp_path, "horovod") == pytest.approx(undisturbed, rel=1e-4)
