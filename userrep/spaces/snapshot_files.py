"""The vectors of snapshots: encode the features of as-of dates and write them to ``user_embeddings``."""

from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Any

from pyspark.sql import functions as F

from userrep.config import Config
from userrep.features.build import stored_features
from userrep.features.ledger import features_table
from userrep.inference.embed import embed_files, encoded_features
from userrep.inference.encoder import worker_encoder
from userrep.spaces.registry import Space, artifact_folder
from userrep.spark.session import shuffle_partitions, vector_dictionaries
from userrep.store.buckets import user_bucket
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables


def write_vectors(
    tables: Tables, config: Config, space: Space, keys: Mapping[date, Mapping[str, Any]], since: int
) -> None:
    """Encode the features of some as-of dates, and replace the rows of these dates in one commit.

    Below a root, tasks read and write Parquet files directly. In a catalog, Spark reads the features and writes the
    vectors. ``keys``: the values of the partition columns, by as-of date.

    Raises UserrepError if another run has changed these rows since version ``since``.
    """
    storage = config.snapshots.storage
    load_encoder = partial(worker_encoder, artifact_folder(tables, space), space.content_hash, storage)
    if isinstance(tables, FileTables):
        table, target = features_table(config, space.lineage_id), tables.target(USER_EMBEDDINGS)
        files = sorted(tables.files(table, lambda values: values["as_of"] in keys), key=lambda file: file.path)
        min_tasks = shuffle_partitions(tables.spark)
        written = embed_files(tables.spark, files, load_encoder, target=target, values=keys, min_tasks=min_tasks)
        tables.commit(USER_EMBEDDINGS, written, replacing=lambda values: values in keys.values(), since=since)
        return
    rows = encoded_features(stored_features(tables, config, space.lineage_id, list(keys)), load_encoder)
    revision_by_date = F.create_map(*(F.lit(x) for as_of, key in keys.items() for x in (as_of, key["revision"])))
    columns = {"space_id": F.lit(space.space_id), "revision": revision_by_date[F.col("as_of")]}
    rows = rows.withColumns(columns | {"user_bucket": user_bucket()})
    with vector_dictionaries(tables.spark, used=storage != "float32"):
        tables.replace(rows, USER_EMBEDDINGS, list(keys.values()), since=since)
