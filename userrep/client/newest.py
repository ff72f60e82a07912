"""The newest snapshot of a space as a table: with Spark, or as Arrow from its files."""

from datetime import datetime, time

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.joins.snapshot_at import Step
from userrep.joins.sources import Sources, check_usable, files_by_step, sources_of
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import PUBLISHED, Snapshot
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import open_parquet
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.store.tables import Tables

_SCHEMA = pa.schema(
    {"user_id": pa.string(), "snapshot_id": pa.string(), "as_of": pa.date32(), "embedding": pa.list_(pa.float32())}
)


def newest_frame(tables: Tables, space: str) -> DataFrame:
    """Return one row per user of a space's newest snapshot: user_id, snapshot_id, as_of, embedding. Lazy."""
    sources, snapshot = _newest(tables, space)
    rows = tables.read(USER_EMBEDDINGS, version=sources.version).where(snapshot.where)
    return rows.select("user_id", F.lit(snapshot.snapshot_id).alias("snapshot_id"), "as_of", "embedding")


def newest_table(tables: Tables, space: str) -> pa.Table:
    """Return the rows of ``newest_frame`` as Arrow, for a root of files without Spark. Memory: all vectors."""
    if not isinstance(tables, FileTables):
        return newest_frame(tables, space).toArrow().cast(_SCHEMA)
    sources, snapshot = _newest(tables, space)
    since = datetime.combine(snapshot.as_of, time())
    (files,) = files_by_step(tables, sources, [Step(since, snapshot)])
    parts = [_read(f"{tables.uri(USER_EMBEDDINGS)}/{file.path}", snapshot) for file in files]
    return pa.concat_tables([_SCHEMA.empty_table(), *parts])


def _newest(tables: Tables, space: str) -> tuple[Sources, Snapshot]:
    """Return a space's newest published snapshot, and a version of the table that contains it."""
    source = find_space(tables, space)
    check_usable(tables, source)
    sources = sources_of(tables, source)
    return sources, [snapshot for snapshot in sources.snapshots if snapshot.state == PUBLISHED][-1]


def _read(uri: str, snapshot: Snapshot) -> pa.Table:
    with open_parquet(uri) as file:
        rows = file.read(columns=["user_id", "embedding"])
    constants = (pa.repeat(value, len(rows)) for value in (snapshot.snapshot_id, pa.scalar(snapshot.as_of)))
    return pa.table([rows["user_id"], *constants, rows["embedding"]], names=_SCHEMA.names).cast(_SCHEMA)
