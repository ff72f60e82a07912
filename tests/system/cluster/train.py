"""A driver: trains on planted rows by one backend after the other, and writes what each came to."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from tests.unit.training.test_training import losses_of, task_of, write_planted
from userrep.logs import log_to_stderr
from userrep.spark.session import get_session
from userrep.training.launch.backends import run_training


def main(folder: Path, max_epochs: int, *backends: str) -> None:
    rows = folder / "rows"
    if not rows.exists():
        write_planted(rows)
    spark = get_session()
    for backend in backends:
        ranks = 1 if backend == "local" else 2
        task = task_of(rows, max_epochs=max_epochs, patience=max_epochs, backend=backend, num_workers=ranks)
        result = run_training(replace(task, folder=str(folder / backend)), spark=spark)
        (folder / f"{backend}.json").write_text(json.dumps(losses_of(result)))
    spark.stop()


if __name__ == "__main__":
    log_to_stderr()
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
