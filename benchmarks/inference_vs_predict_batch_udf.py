"""How fast is the snapshot job, compared with ``pyspark.ml.functions.predict_batch_udf`` on the same model?

500k users with 711 inputs are encoded to 120 dimensions. Both sides read and write Delta. The peer reads lists, since
it only takes arrays of numbers. As its documentation recommends, Spark combines the columns into one tensor column.
Scaling and the model are in its function, called with 1024 rows at a time.

    make bench-inference-vs-predict-batch-udf
    python -m benchmarks.inference_vs_predict_batch_udf --small
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType

from benchmarks.inference_data import PEER_BATCH, SIZE, Users, UserSize, against, open_users, run, scaled_plainly
from benchmarks.report import Line
from userrep.features.layout import UNKNOWN, InputLayout
from userrep.model.artifact import load_artifact


def measure(spark: SparkSession, size: UserSize, root: Path, runs: int) -> Line:
    """Encode with both alternately."""
    with open_users(spark, size, root) as users:
        return against("inference_vs_predict_batch_udf", "predict_batch_udf", encode, users, runs=runs)


def encode(users: Users) -> None:
    """Encode all users with ``predict_batch_udf``."""
    folder, layout = users.artifact, load_artifact(users.artifact).layout

    def make_predict_fn() -> Callable[[np.ndarray], np.ndarray]:
        torch.set_num_threads(1)  # a task a core
        artifact = load_artifact(folder)
        model = artifact.encoder()

        def predict(raw_BF: np.ndarray) -> np.ndarray:
            x_BF = scaled_plainly(raw_BF, artifact)
            with torch.inference_mode():
                return model.encode(torch.from_numpy(x_BF)).numpy()

        return predict

    embedding = predict_batch_udf(
        make_predict_fn,
        return_type=ArrayType(FloatType()),
        batch_size=PEER_BATCH,
        input_tensor_shapes=[[layout.width]],
    )
    rows = users.features.select("user_id", embedding(tensor(layout)).alias("embedding"))
    rows.write.format("delta").mode("overwrite").save(users.peers)


def tensor(layout: InputLayout) -> Column:
    """Combine the feature columns into one array<float>."""
    parts, flags = [], []
    for block in layout.blocks[:-1]:
        column = F.col(block.name)
        if block.kind in ("pooled", "shares"):
            parts.append(column)
            if block.flag is not None:
                flags.append(F.col(f"has_{block.name}"))
        elif block.kind == "scalar":
            parts.append(F.array(F.log1p(F.coalesce(column, F.lit(0)))))
            if block.flag is not None:
                flags.append(column.isNotNull())
        else:
            words = layout.vocabulary[block.name]
            known = F.when(column.isin(words), column).otherwise(UNKNOWN)
            parts.append(F.array(*(known == word for word in words)).cast("array<float>"))
    return F.concat(*(part.cast("array<float>") for part in parts), F.array(*flags).cast("array<float>"))


if __name__ == "__main__":
    run("inference_vs_predict_batch_udf", measure, SIZE)
