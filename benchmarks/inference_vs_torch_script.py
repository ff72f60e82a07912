"""How fast is the snapshot job, compared with a script of pyarrow, torch and delta-rs, without Spark?

500k users with 711 inputs are encoded to 120 dimensions. Both sides read the same Parquet files and write Delta. The
script uses all cores: pyarrow reads the next batch in the background, and torch and the writer use a thread per core.
``inference_vs_torch`` compares the same job with the matrix products alone.

    make bench-inference-vs-torch-script
    python -m benchmarks.inference_vs_torch_script --small
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import torch
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from benchmarks.inference_data import SIZE, Users, UserSize, against, open_users, run
from benchmarks.report import Line
from userrep.model.artifact import load_artifact
from userrep.store.arrow import listed

_SCHEMA = pa.schema({"user_id": pa.string(), "embedding": pa.list_(pa.float32())})


def measure(spark: SparkSession, size: UserSize, root: Path, runs: int) -> Line:
    """Encode with both alternately."""
    with open_users(spark, size, root) as users:
        return against("inference_vs_torch_script", "pyarrow, torch and delta-rs", encode, users, runs=runs)


def encode(users: Users) -> None:
    """Encode all users in this process."""
    artifact, features = load_artifact(users.artifact), users.dataset()
    model = artifact.encoder()

    @torch.inference_mode()
    def embeddings() -> Iterator[pa.RecordBatch]:
        for batch in features.to_batches():
            x_BF = artifact.scaler.apply(artifact.layout, artifact.layout.raw(batch))
            z_BD = model.encode(torch.from_numpy(x_BF)).numpy()
            yield pa.RecordBatch.from_arrays([batch.column("user_id"), listed(z_BD)], schema=_SCHEMA)

    write_deltalake(users.peers, pa.RecordBatchReader.from_batches(_SCHEMA, embeddings()), mode="overwrite")


if __name__ == "__main__":
    run("inference_vs_torch_script", measure, SIZE, runs=5)
