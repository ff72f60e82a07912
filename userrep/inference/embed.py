"""Embeddings of a whole feature table, by Arrow batches."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import pyarrow as pa
import torch
from pyspark.sql import DataFrame

from userrep.arrow import listed
from userrep.inference.encoder import Encoder
from userrep.model.artifact import load_artifact


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
        encoder = _encoder(folder, content_hash)
        for batch in batches:
            vectors = listed(encoder.embed(batch))
            keys = [batch.column("as_of"), batch.column("user_id")]
            yield pa.RecordBatch.from_arrays([*keys, vectors], ["as_of", "user_id", "embedding"])

    return features.mapInArrow(encode, "as_of DATE, user_id STRING, embedding ARRAY<FLOAT>")


@lru_cache(maxsize=4)
def _encoder(folder: str, content_hash: str) -> Encoder:
    torch.set_num_threads(1)  # Spark runs one task a core
    return Encoder(load_artifact(folder, content_hash))
