"""How fast are training rows read in batches, compared with the data loader of PySpark's TorchDistributor?

200k rows of 546 inputs, batches of 512. The peer's loader reads the Arrow file that Spark writes for its task, with
lists of floats, unshuffled. Only its epoch counts; ``peer_start_seconds`` is the rest: Spark's reading, writing that
file, and the start of the process. It only accepts lists, so it gets our rows in another column type.

    make bench-reader-vs-torch-distributor
    python -m benchmarks.reader_vs_torch_distributor --small
"""

import logging
import os
import statistics
import time
from pathlib import Path
from typing import Any

from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import DataFrame, SparkSession

from benchmarks.report import Line, progress, ratio_line, seconds_of
from benchmarks.training_data import BATCH, SIZE, RowSize, check_rows, checksum, our_epoch, run, taken, training_files
from userrep.spark.session import get_session


def measure(size: RowSize, root: Path, runs: int) -> Line:
    """Read an epoch with both alternately."""
    files = training_files(size, root)
    lists = [file for shard in training_files(size, root, lists=True) for file in shard]
    active = SparkSession.getActiveSession()
    conf = {"spark.driver.memory": "4g", "spark.driver.host": "localhost"}
    spark = active or get_session(master=f"local[{os.cpu_count()}]", conf=conf, app_name="reader")
    try:
        rows = spark.read.parquet(*lists).select("row_key", "x").repartition(1)
        checked = checksum(our_epoch(files, size))
        ours, theirs, starts = [], [], []
        for k in range(runs):
            ours.append(seconds_of(lambda k=k: taken(our_epoch(files, size, epoch=2 + k))))
            start = time.perf_counter()
            result = _peer(rows, size)
            check_rows(checked, result["checksum"], size)
            theirs.append(result["seconds"])
            starts.append(time.perf_counter() - start - theirs[-1] - result["check_seconds"])
            progress(f"run {k + 1} of {runs}: ours {ours[-1]:.1f} s, the peer's {theirs[-1]:.1f} s")
    finally:
        if active is None:
            spark.stop()
    return ratio_line(
        "reader_vs_torch_distributor",
        size.facts(),
        list(zip(ours, theirs, strict=True)),
        peer="TorchDistributor",
        peer_start_seconds=round(statistics.median(starts), 3),
    )


def _peer(rows: DataFrame, size: RowSize) -> dict[str, Any]:
    """Read an epoch in a process that TorchDistributor starts, and one more for the checksum; return its result."""
    num_rows, batch = size.rows, BATCH

    def train() -> dict[str, Any]:  # goes there by value: it uses nothing of this module
        import time

        import numpy as np
        from pyspark.ml.torch.distributor import _get_spark_partition_data_loader

        loader = _get_spark_partition_data_loader(num_rows, batch)
        start = time.perf_counter()
        for _ in loader:
            pass
        end = time.perf_counter()
        count = keys = bits = 0
        for row_key_B, x_BF in loader:
            count += len(row_key_B)
            keys += int(row_key_B.sum())
            bits += int(np.ascontiguousarray(x_BF.numpy()).view(np.uint32).sum(dtype=np.uint64))
        seconds = {"seconds": end - start, "check_seconds": time.perf_counter() - end}
        return {**seconds, "checksum": (count, keys, bits)}

    logging.getLogger("TorchDistributor").setLevel(logging.ERROR)
    distributor = TorchDistributor(num_processes=1, local_mode=False, use_gpu=False)
    result: dict[str, Any] = distributor._train_on_dataframe(train, rows)
    return result


if __name__ == "__main__":
    run("reader_vs_torch_distributor", measure, SIZE, runs=3)
