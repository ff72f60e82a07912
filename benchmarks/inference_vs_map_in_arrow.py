"""How fast is the snapshot job, compared with ``mapInArrow`` on the same model, as an expert would write it?

500k users with 711 inputs are encoded to 120 dimensions. Both sides read the same Delta table, with packed vectors, and
write Delta. The peer loads the artifact once per task. Its layout and scaler turn Arrow batches into inputs without an
object per row, and vectors become a list column without one.

    make bench-inference-vs-map-in-arrow
    python -m benchmarks.inference_vs_map_in_arrow --small
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import torch
from pyspark.sql import SparkSession

from benchmarks.inference_data import SIZE, Users, UserSize, against, open_users, run
from benchmarks.report import Line
from userrep.model.artifact import load_artifact
from userrep.store.arrow import listed


def measure(spark: SparkSession, size: UserSize, root: Path, runs: int) -> Line:
    """Encode with both alternately."""
    with open_users(spark, size, root) as users:
        return against("inference_vs_map_in_arrow", "mapInArrow", encode, users, runs=runs)


def encode(users: Users) -> None:
    """Encode all users with ``mapInArrow``."""
    folder = users.artifact

    def embeddings(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        torch.set_num_threads(1)  # a task a core
        artifact = load_artifact(folder)
        model = artifact.encoder()
        for batch in batches:
            x_BF = artifact.scaler.apply(artifact.layout, artifact.layout.raw(batch))
            with torch.inference_mode():
                z_BD = model.encode(torch.from_numpy(x_BF)).numpy()
            yield pa.RecordBatch.from_pydict({"user_id": batch.column("user_id"), "embedding": listed(z_BD)})

    rows = users.stored.mapInArrow(embeddings, "user_id STRING, embedding ARRAY<FLOAT>")
    rows.write.format("delta").mode("overwrite").save(users.peers)


if __name__ == "__main__":
    run("inference_vs_map_in_arrow", measure, SIZE)
