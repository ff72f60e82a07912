"""Ledgers and pins brought into line with tables that have lost users; what is done already is not done again."""

from collections import Counter
from dataclasses import replace
from datetime import date
from typing import Any

from userrep.features.build import features_tables
from userrep.features.openings import newest_openings
from userrep.schemas import (
    FEATURE_SETS,
    OPENINGS,
    TRAINING_ROWS,
    USER_EMBEDDINGS,
    USER_FEATURES,
    USER_OPENINGS,
    TableSchema,
)
from userrep.spaces.registry import read_registry
from userrep.spaces.snapshots import PUBLISHED, STAGED, list_snapshots, record_snapshots
from userrep.sql import sql_date, sql_in
from userrep.table_upkeep import has_version
from userrep.tables import Tables
from userrep.utc import utc_now


def recount(tables: Tables) -> None:
    """Let ledgers say how many users features and snapshots have now, which gates compare with.

    Cost: milliseconds and an entry a file in the driver; in a catalog, a count of these tables.
    """
    for table in features_tables(tables):
        lineage_id, counts = table.name.removeprefix(USER_FEATURES), _num_rows(tables, table)
        changed = [
            row.asDict() | {"num_users": counts[row.as_of,]}
            for row in tables.ledger(FEATURE_SETS, lineage_id=lineage_id)
            if row.begun_by is None and counts.get((row.as_of,), row.num_users) != row.num_users
        ]
        if changed:
            dates = [row["as_of"] for row in changed]
            tables.add(FEATURE_SETS, changed, replacing=f"lineage_id = '{lineage_id}' AND {sql_in('as_of', dates)}")
    counts = _num_rows(tables, USER_EMBEDDINGS)
    for space in read_registry(tables).spaces:
        snapshots = list_snapshots(tables, space.space_id, states=(STAGED, PUBLISHED))
        now = [replace(s, num_users=counts.get((s.space_id, s.as_of, s.revision), 0)) for s in snapshots]
        if fewer := [snapshot for snapshot in now if snapshot not in snapshots]:
            record_snapshots(tables, fewer)


def _num_rows(tables: Tables, table: TableSchema) -> Counter[tuple[Any, ...]]:
    """Count the rows of each partition."""
    counts: Counter[tuple[Any, ...]] = Counter()
    if tables.has_files:
        for file in tables.files(table, lambda _: True):
            counts[tuple(file.values[name] for name in table.partition_by)] += file.num_rows
    else:
        for row in tables.read(table).groupBy(*table.partition_by).count().collect():
            counts[tuple(row[name] for name in table.partition_by)] = row["count"]
    return counts


class Pins:
    """The openings that streams read at versions of ``user_openings``, as they were before users were erased."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._rows = newest_openings(tables) if tables.has_files else {}  # nothing streams from a catalog
        self._pinned = {key: self._files(key, row.table_version) for key, row in self._rows.items()}
        self._were_newest = {key: files == self._files(key, None) for key, files in self._pinned.items()}

    def move(self) -> None:
        """Pin what was the newest at what is it now; of others, which a run has cut off, let go.

        A stream waits for an opening that is not in the ledger until `userrep daily` has made it again.
        """
        now = {"table_version": self._tables.version(USER_OPENINGS), "built_at": utc_now()}
        for key, row in self._rows.items():
            mine = f"lineage_id = '{row.lineage_id}' AND as_of = {sql_date(row.as_of)}"
            if not self._were_newest[key]:
                self._tables.add(OPENINGS, [], replacing=mine)
            elif self._files(key, None) != self._pinned[key]:
                self._tables.add(OPENINGS, [row.asDict() | now], replacing=mine)

    def _files(self, key: tuple[str, date], version: int | None) -> set[str] | None:
        """Name the files of an opening; None at a version that cannot be read any more."""
        if version is not None and not has_version(self._tables, USER_OPENINGS, version):
            return None
        files = self._tables.files(USER_OPENINGS, lambda of: (of["lineage_id"], of["as_of"]) == key, version=version)
        return {file.path for file in files}


def drop_training_rows(tables: Tables) -> None:
    """Drop the rows that spaces were, or are, trained on: they name nobody, but are of users.

    A training that is under way has its files until VACUUM; one that is taken up again makes rows anew.
    """
    partitions = _num_rows(tables, TRAINING_ROWS)
    tables.drop_partitions(TRAINING_ROWS, [dict(zip(TRAINING_ROWS.partition_by, of, strict=True)) for of in partitions])
