"""A space's encoder as a pandas UDF, for DataFrames and SQL in notebooks."""

from collections.abc import Callable, Iterator

import pandas as pd

from userrep.inference.encoder import worker_encoder
from userrep.inference.model import EmbeddingModel
from userrep.model.artifact import load_artifact


def embedding_udf(space: str) -> Callable[..., object]:
    """Return a pandas UDF from a struct of feature columns to the embedding, array<float>: the snapshots' to the bit.

    ``space``: the folder of the space's artifact, a path or a URI that workers can read too. In a notebook::

        embedding = embedding_udf(artifact_folder(config, find_space(tables, space_id)))
        features.select("user_id", embedding(F.struct("*")).alias("embedding"))

        spark.udf.register("embedding", embedding)
        spark.sql("SELECT user_id, embedding(struct(*)) AS embedding FROM features")

    The struct has all feature columns of the space, by name; others that it has are not looked at. Nulls are encoded
    as absent: a user whom a left join has not found is one of whom nothing is known. Weights are read once per worker,
    and must be those that were there when the UDF was made. Cost: rows go through Spark and pandas;
    for everyone of a date there is the snapshot job, ``userrep run embed_users``.

    Raises
    ------
    ArtifactError
        Here if the artifact is not whole; in the workers if it has been changed since.
    UsageError
        In the workers, if the struct lacks a column.
    """
    from pyspark.sql.pandas.functions import pandas_udf

    content_hash = load_artifact(space).manifest.content_hash

    def embedding(batches: Iterator[pd.DataFrame]) -> Iterator[pd.Series]:
        model = EmbeddingModel(worker_encoder(space, content_hash))
        for users in batches:
            yield pd.Series(list(model.predict(users)))

    return pandas_udf(embedding, "array<float>")  # type: ignore[call-overload, no-any-return]
