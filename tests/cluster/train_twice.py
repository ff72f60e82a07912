"""A driver: trains on two ranks and in this process, and writes the losses and what GPU each rank was given."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import horovod.spark
from horovod.spark.task import get_available_devices

from tests.test_training import losses_of, task_on
from userrep.session import get_session
from userrep.training.backends import run_training


def main(folder: Path) -> None:
    spark = get_session()
    spark.range(1).count()  # no task starts before both executors are there
    task = task_on(folder / "rows")
    local = run_training(task)
    on_spark = replace(task, training=task.training.model_copy(update={"backend": "horovod", "num_workers": 2}))
    answer = {
        "local": losses_of(local),
        "horovod": losses_of(run_training(on_spark, spark=spark)),
        "gpus": horovod.spark.run(get_available_devices, num_proc=2, use_gloo=True, verbose=0),
    }
    (folder / "answer.json").write_text(json.dumps(answer))
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
