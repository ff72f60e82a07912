"""Ledgers and pins brought into line with tables that have lost users; what is done already is not done again."""

from dataclasses import replace
from datetime import date

from userrep.features.build import features_tables
from userrep.features.sums.openings import newest_openings
from userrep.spaces.registry import read_registry
from userrep.spaces.snapshots import PUBLISHED, STAGED, list_snapshots, record_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import (
    FEATURE_SETS,
    OPENINGS,
    TRAINING_ROWS,
    USER_EMBEDDINGS,
    USER_FEATURES,
    USER_OPENINGS,
)
from userrep.store.sql import sql_date, sql_in
from userrep.store.tables import Tables
from userrep.utc import utc_now


def recount(tables: Tables) -> None:
    """Let ledgers say how many users features and snapshots have now, which gates compare with.

    Cost: milliseconds and an entry a file in the driver; in a catalog, a count of these tables.
    """
    for table in features_tables(tables):
        lineage_id, found = table.name.removeprefix(USER_FEATURES), tables.partitions(table)
        changed = [
            row.asDict() | {"num_users": found[row.as_of,].num_rows}
            for row in tables.ledger(FEATURE_SETS, lineage_id=lineage_id)
            if row.begun_by is None
            if (row.as_of,) in found and found[row.as_of,].num_rows != row.num_users
        ]
        if changed:
            dates = [row["as_of"] for row in changed]
            tables.add(FEATURE_SETS, changed, replacing=f"lineage_id = '{lineage_id}' AND {sql_in('as_of', dates)}")
    found = tables.partitions(USER_EMBEDDINGS)
    num_users = {key: partition.num_rows for key, partition in found.items()}
    for space in read_registry(tables).spaces:
        snapshots = list_snapshots(tables, space.space_id, states=(STAGED, PUBLISHED))
        now = [replace(s, num_users=num_users.get((s.space_id, s.as_of, s.revision), 0)) for s in snapshots]
        if fewer := [snapshot for snapshot in now if snapshot not in snapshots]:
            record_snapshots(tables, fewer)


class Pins:
    """The openings that streams read at versions of ``user_openings``, as they were before users were erased."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._rows = newest_openings(tables)  # none in a catalog: nothing streams from there
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
        assert isinstance(self._tables, FileTables)
        if version is not None and not self._tables.has_version(USER_OPENINGS, version):
            return None
        files = self._tables.files(USER_OPENINGS, lambda of: (of["lineage_id"], of["as_of"]) == key, version=version)
        return {file.path for file in files}


def drop_training_rows(tables: Tables) -> None:
    """Drop the rows that spaces were, or are, trained on: they name nobody, but are of users.

    A training that is under way has its files until VACUUM; one that is taken up again makes rows anew.
    """
    partitions = tables.partitions(TRAINING_ROWS)
    tables.drop_partitions(TRAINING_ROWS, [dict(zip(TRAINING_ROWS.partition_by, of, strict=True)) for of in partitions])
