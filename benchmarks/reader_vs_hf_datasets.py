"""How fast are training rows read from Parquet in shuffled batches, compared with streaming by Hugging Face's datasets?

200k rows of 546 inputs in 16 shards, batches of 512. The peer streams the files in random order through a shuffle
buffer of 20,000 rows. It returns batches of bytes, which are concatenated and read as floats.

    make bench-reader-vs-hf-datasets
    python -m benchmarks.reader_vs_hf_datasets --small
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.report import Line, Skipped
from benchmarks.training_data import BATCH, SHUFFLED_ROWS, SIZE, Rows, RowSize, against, run


def measure(size: RowSize, root: Path, runs: int) -> Line:
    """Read an epoch with both."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is asked of a hub
    os.environ.setdefault("HF_HOME", str(root / "hf"))
    try:
        import datasets
    except ImportError as error:
        raise Skipped(f"datasets does not import ({error})") from None

    def epoch(files: list[list[str]], number: int) -> Iterator[Rows]:
        paths = [file for shard in files for file in shard]
        stream = datasets.load_dataset("parquet", data_files=paths, split="train", streaming=True)
        for batch in stream.shuffle(seed=number, buffer_size=SHUFFLED_ROWS).iter(batch_size=BATCH):
            x_BF = np.frombuffer(b"".join(batch["x"]), "<f4").reshape(-1, size.layout.width)
            yield np.array(batch["row_key"]), x_BF

    return against("reader_vs_hf_datasets", f"datasets {datasets.__version__}", epoch, size, root=root, runs=runs)


if __name__ == "__main__":
    run("reader_vs_hf_datasets", measure, SIZE, runs=3)
