"""Embeddings of a whole feature table, by Arrow batches."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame

from userrep.arrow import listed
from userrep.inference.encoder import worker_encoder


def embedded(features: DataFrame, *, folder: str, content_hash: str) -> DataFrame:
    """Encode user features with a space's artifact.

    Parameters
    ----------
    features : rows of ``user_features`` of the space's lineage. folder, content_hash : the space's artifact.

    Returns
    -------
    One row per row of features: as_of, user_id, embedding array<float>. Narrow: no shuffle; weights are read once
    per worker.
    """

    def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoder = worker_encoder(folder, content_hash)
        for batch in batches:
            vectors = listed(encoder.embed(batch))
            keys = [batch.column("as_of"), batch.column("user_id")]
            yield pa.RecordBatch.from_arrays([*keys, vectors], ["as_of", "user_id", "embedding"])

    return features.mapInArrow(encode, "as_of DATE, user_id STRING, embedding ARRAY<FLOAT>")
