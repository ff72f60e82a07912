"""How fast is the snapshot job, compared with an iterator pandas UDF on the same model, written as documented?

500k users with 711 inputs are encoded to 120 dimensions. Both sides read the same Delta table, with packed vectors, and
write Delta. The peer loads the model once per worker, takes the feature columns as a struct, concatenates them with
NumPy, scales them, and calls the model.

    make bench-inference-vs-pandas-udf
    python -m benchmarks.inference_vs_pandas_udf --small
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.functions import pandas_udf

from benchmarks.inference_data import SIZE, Users, UserSize, against, open_users, run, scaled_plainly
from benchmarks.report import Line
from userrep.features.layout import UNKNOWN, InputLayout
from userrep.features.spec import POOLED
from userrep.model.artifact import load_artifact


def measure(spark: SparkSession, size: UserSize, root: Path, runs: int) -> Line:
    """Encode with both alternately."""
    with open_users(spark, size, root) as users:
        return against("inference_vs_pandas_udf", "pandas_udf", encode, users, runs=runs)


def encode(users: Users) -> None:
    """Encode all users with a pandas UDF."""
    folder = users.artifact

    @pandas_udf("array<float>")
    def embedding(batches: Iterator[pd.DataFrame]) -> Iterator[pd.Series]:
        torch.set_num_threads(1)  # a task a core
        artifact = load_artifact(folder)
        model = artifact.encoder()
        for batch in batches:
            raw_BF = inputs(batch, artifact.layout)
            x_BF = scaled_plainly(raw_BF, artifact)
            with torch.inference_mode():
                yield pd.Series(list(model.encode(torch.from_numpy(x_BF)).numpy()))

    stored = users.stored
    columns = [name for name in stored.columns if name not in ("as_of", "user_id", "is_exact")]
    rows = stored.select("user_id", embedding(F.struct(*columns)).alias("embedding"))
    rows.write.format("delta").mode("overwrite").save(users.peers)


def inputs(batch: pd.DataFrame, layout: InputLayout) -> np.ndarray:
    """Concatenate feature columns to one matrix."""
    parts, flags = [np.frombuffer(b"".join(batch[POOLED]), "<f4").reshape(len(batch), -1)], []  # blocks in order
    for block in layout.blocks[:-1]:
        if block.kind == "pooled":
            flags.append(batch[f"has_{block.name}"].to_numpy(np.float32))
            continue
        column = batch[block.name]
        if block.kind == "shares":
            parts.append(np.stack(column.to_numpy()))
        elif block.kind == "scalar":
            parts.append(np.log1p(column.fillna(0).to_numpy(np.float32)))
            if block.flag is not None:
                flags.append(column.notna().to_numpy(np.float32))
        else:
            words = layout.vocabulary[block.name]
            known = pd.Categorical(column.where(column.isin(words), UNKNOWN), categories=words)
            parts.append(np.eye(len(words), dtype=np.float32)[known.codes])
    return np.column_stack([*parts, *flags]).astype(np.float32)


if __name__ == "__main__":
    run("inference_vs_pandas_udf", measure, SIZE)
