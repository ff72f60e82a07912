"""The inputs of a pooling job: tiles, window sums and profiles, as files for tasks or as rows for a shuffle."""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.features.sums.bucket_files import BucketedFile
from userrep.features.sums.generations import Generation, TileDays
from userrep.features.sums.shuffled import in_common_schema
from userrep.store.buckets import range_of_slice
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_ITEM_DAYS, USER_PROFILES, USER_WINDOW_SUMS
from userrep.store.sql import sql_key
from userrep.store.tables import Tables
from userrep.tiles.ledger import rows_of_revisions
from userrep.utc import day_number

_LISTED = pa.schema(
    [("kind", pa.string()), ("path", pa.string()), ("day", pa.int32()), ("before", pa.bool_()), ("after", pa.bool_()),
     ("start", pa.int32()), ("stop", pa.int32())]
)  # fmt: skip


class PoolingInputs(NamedTuple):
    """The inputs of a pooling job. ``profiles_version``: the version of ``user_profiles``, None without profiles."""

    tables: Tables
    tiles: Sequence[TileDays]
    sums: Generation | None
    profiles_version: int | None

    def profile_rows(self) -> DataFrame:
        """Read the pinned version of the profiles."""
        return self.tables.read(USER_PROFILES, version=self.profiles_version)


def listed_files(tables: FileTables, inputs: PoolingInputs) -> pa.Table:
    """List all files with the bucket range ``[start, stop)`` that each can contain. Driver memory: one row per file."""
    rows = [file._asdict() | range_of_slice(user_slice)._asdict() for file, user_slice in _files(tables, inputs)]
    return pa.Table.from_pylist(rows, _LISTED)


def _files(tables: FileTables, inputs: PoolingInputs) -> Iterator[tuple[BucketedFile, str]]:
    """Yield the files of all inputs, each with its slice of users."""
    sums = inputs.sums
    tiles_by_key = {key: tiles for tiles in inputs.tiles for key in tiles.revision_by_day.items()}
    if tiles_by_key:
        for file in tables.files(USER_ITEM_DAYS, lambda v: (v["event_date"], v["revision"]) in tiles_by_key):
            tiles = tiles_by_key[file.values["event_date"], file.values["revision"]]
            day = day_number(file.values["event_date"])
            yield BucketedFile("tiles", file.uri, day, tiles.before, tiles.after), file.values["user_slice"]
    if sums is not None:
        key = sums.lineage_id, sums.generation
        for file in tables.files(USER_WINDOW_SUMS, lambda v: (v["lineage_id"], v["generation"]) == key):
            yield BucketedFile("sums", file.uri, day_number(sums.as_of), True, False), file.values["user_slice"]
    if inputs.profiles_version is not None:
        for file in tables.files(USER_PROFILES, version=inputs.profiles_version):
            yield BucketedFile("profiles", file.uri, 0, True, True), file.values["user_slice"]


def rows_of_inputs(inputs: PoolingInputs) -> DataFrame:
    """Return the rows of all inputs in one schema."""
    tables, sums = inputs.tables, inputs.sums
    frames = []
    for tiles in inputs.tiles:
        constants = {"day": F.unix_date("event_date"), "before": F.lit(tiles.before), "after": F.lit(tiles.after)}
        rows = rows_of_revisions(tables, tiles.revision_by_day).withColumns(constants)
        frames.append(in_common_schema(rows, "tiles"))
    if sums is not None:
        keys = sql_key({"lineage_id": sums.lineage_id, "generation": sums.generation})
        rows = tables.read(USER_WINDOW_SUMS).where(keys).withColumn("day", F.lit(day_number(sums.as_of)))
        frames.append(in_common_schema(rows, "sums"))
    if inputs.profiles_version is not None:
        frames.append(in_common_schema(inputs.profile_rows(), "profiles"))
    return reduce(DataFrame.unionByName, frames)
