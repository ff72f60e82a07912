"""The vectors of snapshots: encode the features of as-of dates and write them to ``user_embeddings``."""

from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from typing import Any

from pyspark.sql import functions as F

from userrep.config import Config, Storage
from userrep.features.build import stored_features
from userrep.features.ledger import features_table
from userrep.inference.embed import embed_files, encoded_features
from userrep.inference.encoder import Encoder, worker_encoder
from userrep.spaces.registry import Space, artifact_folder
from userrep.spark.session import shuffle_partitions, vector_dictionaries
from userrep.store.buckets import user_bucket
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables

KeysByDate = Mapping[date, Mapping[str, Any]]  # the values of the partition columns of each as-of date's rows


def _encoder_of(tables: Tables, space: Space, storage: Storage) -> Callable[[], Encoder]:
    """Return the function that loads a space's encoder in a task."""
    return partial(worker_encoder, artifact_folder(tables, space), space.content_hash, storage)


def write_vectors_by_tasks(tables: FileTables, config: Config, space: Space, keys: KeysByDate, since: int) -> None:
    """Write vectors from tasks that read and write Parquet files directly; replace the rows of ``keys`` in a commit.

    Raises UserrepError if another run has changed these rows since version ``since``.
    """
    table = features_table(config, space.lineage_id)
    files = sorted(tables.files(table, lambda values: values["as_of"] in keys), key=lambda file: file.path)
    written = embed_files(
        tables.spark,
        files,
        _encoder_of(tables, space, config.snapshots.storage),
        target=tables.target(USER_EMBEDDINGS),
        values=keys,
        min_tasks=shuffle_partitions(tables.spark),
    )
    tables.commit(USER_EMBEDDINGS, written, replacing=lambda values: values in keys.values(), since=since)


def write_vectors_by_spark(tables: Tables, config: Config, space: Space, keys: KeysByDate, since: int) -> None:
    """Write vectors with Spark, from the rows of the features table; replace the rows of ``keys``.

    Raises UserrepError if another run has changed these rows since version ``since``.
    """
    source = stored_features(tables, config, space.lineage_id, list(keys))
    rows = encoded_features(source, _encoder_of(tables, space, config.snapshots.storage))
    revision_by_date = F.create_map(*(F.lit(x) for as_of, key in keys.items() for x in (as_of, key["revision"])))
    columns = {"space_id": F.lit(space.space_id), "revision": revision_by_date[F.col("as_of")]}
    rows = rows.withColumns(columns | {"user_bucket": user_bucket()})
    with vector_dictionaries(tables.spark, used=config.snapshots.storage != "float32"):
        tables.replace(rows, USER_EMBEDDINGS, list(keys.values()), since=since)
