"""How fast are training rows read from Parquet in shuffled batches, compared with Hugging Face's datasets?

200k rows of 546 inputs in 16 shards, batches of 512. As the peer's documentation recommends for PyTorch, it is a
map-style dataset in torch format, read by a DataLoader with a worker per core, which shuffles all rows and fetches a
batch at a time. Its conversion to Arrow files is not counted, as our dealing of shards is not. It has our rows as lists
of a fixed size, since it formats bytes as Python objects.

    make bench-reader-vs-hf-datasets
    python -m benchmarks.reader_vs_hf_datasets --small
"""

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Line, Skipped
from benchmarks.training_data import BATCH, SIZE, Rows, RowSize, against, run, training_files


def measure(size: RowSize, root: Path, runs: int) -> Line:
    """Read an epoch with both."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is asked of a hub
    os.environ.setdefault("HF_HOME", str(root / "hf"))
    try:
        import datasets
    except ImportError as error:
        raise Skipped(f"datasets does not import ({error})") from None
    import torch
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler

    lists = [file for shard in training_files(size, root, lists=True) for file in shard]
    vector = datasets.List(datasets.Value("float32"), length=size.layout.width)
    columns = datasets.Features({"row_key": datasets.Value("int64"), "x": vector})
    kept = datasets.load_dataset("parquet", data_files=lists, split="train", features=columns).with_format("torch")

    def epoch(_: list[list[str]], number: int) -> Iterator[Rows]:
        rows = RandomSampler(kept, generator=torch.Generator().manual_seed(number))
        batches = BatchSampler(rows, BATCH, drop_last=False)  # so that the dataset formats a batch at once
        for batch in DataLoader(kept, batch_size=None, sampler=batches, num_workers=os.cpu_count() or 1):
            yield batch["row_key"].numpy(), batch["x"].numpy()

    return against("reader_vs_hf_datasets", f"datasets {datasets.__version__}", epoch, size, root=root, runs=runs)


if __name__ == "__main__":
    run("reader_vs_hf_datasets", measure, SIZE, runs=3)
