"""The inputs of a pooling job: tiles, window sums and profiles, as files for tasks or as rows for a shuffle."""

from datetime import date
from functools import reduce
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.features.sums.bucket_files import BucketedFile
from userrep.features.sums.generations import Generation, TileDays
from userrep.features.sums.shuffled import in_common_schema
from userrep.store.buckets import BucketRange, range_of_slice
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_ITEM_DAYS, USER_PROFILES, USER_WINDOW_SUMS
from userrep.store.tables import Keys, Tables
from userrep.tiles.ledger import revision_keys
from userrep.utc import day_number


class PoolingInputs(NamedTuple):
    """The inputs of a pooling job.

    profiles_version : the version of ``user_profiles``; None without profiles.
    sums_version : the version of ``user_window_sums``; None for the newest.
    """

    tables: Tables
    tiles: TileDays
    sums: Generation | None
    profiles_version: int | None
    sums_version: int | None = None

    def profile_rows(self) -> DataFrame:
        """Read the pinned version of the profiles."""
        return self.tables.read(USER_PROFILES, version=self.profiles_version)


def listed_files(tables: FileTables, inputs: PoolingInputs) -> list[BucketedFile]:
    """List the files of all inputs. Driver memory: one entry per file."""
    tiles, sums, listed = inputs.tiles, inputs.sums, list[BucketedFile]()

    def buckets_of(file: TableFile) -> BucketRange:
        return range_of_slice(file.values["user_slice"])

    if tiles:
        for file in tables.files(USER_ITEM_DAYS, lambda v: (v["event_date"], v["revision"]) in tiles):
            day, revision = file.values["event_date"], file.values["revision"]
            before, after = tiles[day, revision]
            listed.append(BucketedFile("tiles", file.uri, buckets_of(file), day_number(day), before, after))
    if sums is not None:
        key = sums.lineage_id, sums.generation
        for file in tables.files(
            USER_WINDOW_SUMS, lambda v: (v["lineage_id"], v["generation"]) == key, version=inputs.sums_version
        ):
            listed.append(BucketedFile("sums", file.uri, buckets_of(file), day_number(sums.as_of)))
    if inputs.profiles_version is not None:
        for file in tables.files(USER_PROFILES, version=inputs.profiles_version):
            listed.append(BucketedFile("profiles", file.uri, buckets_of(file)))
    return listed


def rows_of_inputs(inputs: PoolingInputs) -> DataFrame:
    """Return the rows of all inputs in one schema."""
    tables, sums, frames = inputs.tables, inputs.sums, []
    days_by_counts: dict[tuple[bool, bool], dict[date, int]] = {(False, True): {}}  # a frame even without tiles
    for (day, revision), counts in inputs.tiles.items():
        days_by_counts.setdefault(counts, {})[day] = revision
    for (before, after), days in days_by_counts.items():
        constants = {"day": F.unix_date("event_date"), "before": F.lit(before), "after": F.lit(after)}
        tiles = tables.read(USER_ITEM_DAYS, revision_keys(days)).withColumns(constants)
        frames.append(in_common_schema(tiles, "tiles"))
    if sums is not None:
        keys: Keys = [{"lineage_id": sums.lineage_id, "generation": sums.generation}]
        rows = tables.read(USER_WINDOW_SUMS, keys, version=inputs.sums_version).withColumn(
            "day", F.lit(day_number(sums.as_of))
        )
        frames.append(in_common_schema(rows, "sums"))
    if inputs.profiles_version is not None:
        frames.append(in_common_schema(inputs.profile_rows(), "profiles"))
    return reduce(DataFrame.unionByName, frames)
