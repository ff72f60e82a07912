"""Updates ledgers and pinned versions after users were erased from tables. Every step is safe to repeat."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

from pyspark.sql import Row

from userrep.features.build import features_tables
from userrep.features.sums.stream_base import base_rows
from userrep.spaces.registry import read_registry
from userrep.spaces.snapshots import PUBLISHED, STAGED
from userrep.store.file_tables import FileTables
from userrep.store.schemas import (
    FEATURE_SETS,
    OPENINGS,
    SNAPSHOTS,
    TRAINING_ROWS,
    USER_EMBEDDINGS,
    USER_FEATURES,
    USER_OPENINGS,
)
from userrep.store.sql import sql_date, sql_in
from userrep.store.tables import Tables
from userrep.utc import utc_now


def recount(tables: Tables) -> None:
    """Update the number of users of features and snapshots in their ledgers. The gates compare with these numbers.

    Cost: milliseconds, and one entry per file in the driver's memory; in a catalog, a count of these tables.
    """
    for table in features_tables(tables):
        lineage_id, partitions = table.name.removeprefix(USER_FEATURES), tables.partitions(table)
        changed = [
            row.asDict() | {"num_users": partitions[row.as_of,].num_rows}
            for row in tables.ledger(FEATURE_SETS, lineage_id=lineage_id)
            if row.begun_by is None
            if (row.as_of,) in partitions and partitions[row.as_of,].num_rows != row.num_users
        ]
        if changed:
            dates = [row["as_of"] for row in changed]
            tables.add(FEATURE_SETS, changed, replacing=f"lineage_id = '{lineage_id}' AND {sql_in('as_of', dates)}")
    num_users = {key: partition.num_rows for key, partition in tables.partitions(USER_EMBEDDINGS).items()}
    for space in read_registry(tables).spaces:

        def recounted(rows: list[Row]) -> list[dict[str, Any]] | None:
            counts = [num_users.get((row.space_id, row.as_of, row.revision), 0) for row in rows]
            new = [
                row.asDict() | ({"num_users": num} if row.state in (STAGED, PUBLISHED) else {})
                for row, num in zip(rows, counts, strict=True)
            ]
            return None if new == [row.asDict() for row in rows] else new

        of_space = f"space_id = '{space.space_id}'"
        tables.change(SNAPSHOTS, recounted, replacing=of_space, space_id=space.space_id)


@contextmanager
def moved_pins(tables: Tables) -> Iterator[None]:
    """Pin each stream base to the version of ``user_openings`` after the block, which erases users from the table.

    Bases that were not the newest are removed from the ledger. A base is not the newest if a run that rebuilds it was
    cut off. A stream waits for a base that is not in the ledger until `userrep daily` has built it again.
    """
    rows = base_rows(tables)  # none in a catalog, which streams do not read from
    pinned = {key: _base_files(tables, key, row.table_version) for key, row in rows.items()}
    newest = {key: files for key, files in pinned.items() if files == _base_files(tables, key)}
    yield
    current = {"table_version": tables.version(USER_OPENINGS), "built_at": utc_now()}
    for key, row in rows.items():
        predicate = f"lineage_id = '{row.lineage_id}' AND as_of = {sql_date(row.as_of)}"
        if key not in newest:
            tables.add(OPENINGS, [], replacing=predicate)
        elif _base_files(tables, key) != newest[key]:
            tables.add(OPENINGS, [row.asDict() | current], replacing=predicate)


def _base_files(tables: Tables, key: tuple[str, date], version: int | None = None) -> set[str] | None:
    """Return the paths of a stream base's files at a table version; None if that version is no longer readable."""
    assert isinstance(tables, FileTables)
    if version is not None and not tables.has_version(USER_OPENINGS, version):
        return None
    files = tables.files(USER_OPENINGS, lambda values: (values["lineage_id"], values["as_of"]) == key, version=version)
    return {file.path for file in files}


def drop_training_rows(tables: Tables) -> None:
    """Drop all training rows. They have no user ids, but they are derived from users.

    A running training can read its files until VACUUM. A training that is resumed builds its rows again.
    """
    keys = [dict(zip(TRAINING_ROWS.partition_by, key, strict=True)) for key in tables.partitions(TRAINING_ROWS)]
    tables.drop_partitions(TRAINING_ROWS, keys)
