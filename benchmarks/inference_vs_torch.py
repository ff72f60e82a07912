"""How much does the snapshot job take in addition to the forward pass of a torch loop over arrays in memory?

500k users with 711 inputs are encoded to 120 dimensions. Ours reads features from Delta, scales and encodes them in one
task per core, and commits to Delta. The peer has scaled inputs in memory and keeps the vectors in memory: batches of
1024 through the model, on the same number of torch threads.

    make bench-inference-vs-torch
    python -m benchmarks.inference_vs_torch --small
"""

import os
from pathlib import Path

import numpy as np
import torch
from pyspark.sql import SparkSession

from benchmarks.inference_data import (
    PEER_BATCH,
    SIZE,
    UserSize,
    check_vectors,
    open_users,
    our_vectors,
    run,
    scaled_inputs,
    user_ids,
)
from benchmarks.report import Line, alternating, ratio_line
from userrep.model.artifact import load_artifact


def measure(spark: SparkSession, size: UserSize, root: Path, runs: int) -> Line:
    """Encode with both alternately."""
    with open_users(spark, size, root) as users:
        model, x_BF = load_artifact(users.artifact).encoder(), scaled_inputs(users)
        z_BD = np.empty((size.users, 120), np.float32)
        before = torch.get_num_threads()
        torch.set_num_threads(os.cpu_count() or 1)

        @torch.inference_mode()
        def loop() -> None:
            for start in range(0, len(x_BF), PEER_BATCH):
                part = slice(start, start + PEER_BATCH)
                z_BD[part] = model.encode(torch.from_numpy(x_BF[part])).numpy()

        def check() -> None:
            check_vectors(our_vectors(users), z_BD[np.argsort(user_ids(users))], size)

        users.encode()
        loop()
        taken = alternating(users.encode, loop, check=check, runs=runs)
        torch.set_num_threads(before)
        return ratio_line("inference_vs_torch", users.facts(), taken, peer="torch on arrays")


if __name__ == "__main__":
    run("inference_vs_torch", measure, SIZE, runs=5)
