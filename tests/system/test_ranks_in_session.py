"""Two Horovod ranks on two slots of a local session: the same losses as one process, also after a rank was killed."""

import re
from pathlib import Path

import psutil
import pytest
from pyspark.sql import SparkSession

from tests.support.log_lines import messages_to
from tests.unit.training.test_training import losses_of, task_on
from userrep.training.launch.backends import run_training

pytestmark = pytest.mark.default

EPOCHS = 16  # long enough to be killed on the way


def rank_processes() -> list[psutil.Process]:
    """Return the Python processes that train; each runs below a shell of Horovod's."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:  # it has ended
            continue
        if "horovod.spark.task.gloo_exec_fn" in words and not words[0].endswith("sh"):
            found.append(process)
    return found


def test_two_ranks_of_which_one_is_killed_end_with_the_losses_of_one_process(
    spark: SparkSession, tmp_path: Path
) -> None:
    settings = {"max_epochs": EPOCHS, "patience": EPOCHS}
    undisturbed = losses_of(run_training(task_on(tmp_path / "one", **settings)))
    lines: list[str] = []
    killed: list[int] = []

    def kill_a_rank(line: str) -> None:
        lines.append(line)
        if re.match(r"epoch ([3-9]|\d\d)/", line) and not killed:
            victim = rank_processes()[0]
            killed.append(victim.pid)
            victim.kill()

    task = task_on(tmp_path / "two", backend="horovod", num_workers=2, checkpoint_every="0s", **settings)
    with messages_to(kill_a_rank):
        losses = losses_of(run_training(task, spark=spark))
    assert losses == pytest.approx(undisturbed, rel=1e-4)
    assert len(killed) == 1
    assert any("Restart 1 of 2" in line for line in lines)
    resumptions = [line for line in lines if line.startswith("training resumes from its checkpoint in epoch")]
    assert len(resumptions) == 1
    assert not rank_processes()
