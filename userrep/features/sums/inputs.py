"""What a pooling job reads: tiles, window sums and profiles, as files for tasks to read, or as rows for a shuffle."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.features.sides import Profiles
from userrep.features.sums.bucketed import BucketedFile
from userrep.features.sums.shuffled import of_kind
from userrep.store.buckets import range_of_slice
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_ITEM_DAYS, USER_PROFILES, USER_WINDOW_SUMS
from userrep.store.tables import Tables
from userrep.tiles.tiles import rows_of_revisions
from userrep.utc import day_number

_LISTED = pa.schema(
    [("kind", pa.string()), ("path", pa.string()), ("day", pa.int32()), ("before", pa.bool_()), ("after", pa.bool_()),
     ("first", pa.int32()), ("end", pa.int32())]
)  # fmt: skip


class TileDays(NamedTuple):
    """Tiles of some days, each in one revision, and whether they count in the sums before and after."""

    revision_by_day: Mapping[date, int]
    before: bool
    after: bool


class SumsOf(NamedTuple):
    """A generation of window sums, of an as-of date."""

    lineage_id: str
    generation: int
    as_of: date


@dataclass(frozen=True)
class Inputs:
    """What a pooling job reads."""

    tables: Tables
    tiles: Sequence[TileDays]
    sums: SumsOf | None
    profiles: Profiles

    @property
    def has_profiles(self) -> bool:
        return self.profiles.version is not None

    def profile_rows(self) -> DataFrame:
        """Return the profiles' rows."""
        return self.tables.read(USER_PROFILES, version=self.profiles.version)

    def without_profiles(self) -> "Inputs":
        """Leave the profiles out."""
        return replace(self, profiles=self.profiles._replace(version=None))


def listed_files(tables: FileTables, inputs: Inputs) -> pa.Table:
    """List all files, and the buckets ``[first, end)`` that each may hold. Driver memory: one row a file."""
    rows = [(*file, *range_of_slice(user_slice)) for file, user_slice in _files(tables, inputs)]
    names = [*BucketedFile._fields, "first", "end"]
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], _LISTED)


def _files(tables: FileTables, inputs: Inputs) -> Iterator[tuple[BucketedFile, str]]:
    """List the files of all inputs, and the slice of users that each is of."""
    sums = inputs.sums
    wanted = {pair: tiles for tiles in inputs.tiles for pair in tiles.revision_by_day.items()}
    if wanted:
        uri = tables.uri(USER_ITEM_DAYS)
        for file in tables.files(USER_ITEM_DAYS, lambda of: (of["event_date"], of["revision"]) in wanted):
            tiles = wanted[file.values["event_date"], file.values["revision"]]
            day = day_number(file.values["event_date"])
            mine = BucketedFile("tiles", f"{uri}/{file.path}", day, tiles.before, tiles.after)
            yield mine, file.values["user_slice"]
    if sums is not None:
        uri, key = tables.uri(USER_WINDOW_SUMS), (sums.lineage_id, sums.generation)
        for file in tables.files(USER_WINDOW_SUMS, lambda of: (of["lineage_id"], of["generation"]) == key):
            mine = BucketedFile("sums", f"{uri}/{file.path}", day_number(sums.as_of), True, False)
            yield mine, file.values["user_slice"]
    if inputs.has_profiles:
        uri = tables.uri(USER_PROFILES)
        for file in tables.files(USER_PROFILES, version=inputs.profiles.version):
            yield BucketedFile("profiles", f"{uri}/{file.path}", 0, True, True), file.values["user_slice"]


def rows_of_inputs(inputs: Inputs) -> DataFrame:
    """Bring all rows to one schema."""
    tables = inputs.tables
    frames = []
    for tiles in inputs.tiles:
        marks = {"day": F.unix_date("event_date"), "before": F.lit(tiles.before), "after": F.lit(tiles.after)}
        frames.append(of_kind(rows_of_revisions(tables, tiles.revision_by_day).withColumns(marks), "tiles"))
    if inputs.sums is not None:
        sums = tables.read(USER_WINDOW_SUMS).where(
            f"lineage_id = '{inputs.sums.lineage_id}' AND generation = {inputs.sums.generation}"
        )
        frames.append(of_kind(sums.withColumn("day", F.lit(day_number(inputs.sums.as_of))), "sums"))
    if inputs.has_profiles:
        frames.append(of_kind(inputs.profile_rows(), "profiles"))
    rows = frames[0]
    for more in frames[1:]:
        rows = rows.unionByName(more)
    return rows
