"""A space's encoder as a pandas UDF, for DataFrames and SQL in notebooks."""

from collections.abc import Callable, Iterator

import pandas as pd

from userrep.config import Storage
from userrep.inference.encoder import worker_encoder
from userrep.inference.model import EmbeddingModel
from userrep.model.artifact import load_artifact


def embedding_udf(space: str, storage: Storage = "float32") -> Callable[..., object]:
    """Return a pandas UDF that encodes a struct of feature columns as an array<float>.

    The embeddings equal those of snapshots with the same ``storage`` to the bit. ``space`` is the folder of the space's
    artifact, a path or a URI that workers can also read. In a notebook::

        embedding = embedding_udf(artifact_folder(config, find_space(tables, space_id)))
        features.select("user_id", embedding(F.struct("*")).alias("embedding"))

        spark.udf.register("embedding", embedding)
        spark.sql("SELECT user_id, embedding(struct(*)) AS embedding FROM features")

    The struct must contain all feature columns of the space, by name; other columns are ignored. Nulls are encoded as
    absent, so a user without a match in a left join is a user without any data. Each worker reads the weights once.
    Cost: all rows pass through Spark and pandas. To encode all users of a date, use the snapshot job,
    ``userrep run embed_users``.

    Raises
    ------
    ArtifactError
        If the artifact is missing or damaged; in the workers, if it has changed since this call.
    UsageError
        In the workers, if the struct lacks a column.
    """
    from pyspark.sql.pandas.functions import pandas_udf

    content_hash = load_artifact(space).manifest.content_hash

    def embedding(batches: Iterator[pd.DataFrame]) -> Iterator[pd.Series]:
        model = EmbeddingModel(worker_encoder(space, content_hash, storage))
        for users in batches:
            yield pd.Series(list(model.predict(users)))

    return pandas_udf(embedding, "array<float>")  # type: ignore[call-overload, no-any-return]
