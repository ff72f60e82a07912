"""Updates ledgers and pinned versions after users were erased from tables. Every step is safe to repeat."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

from pyspark.sql import Row

from userrep.features.ledger import features_tables
from userrep.features.sums.stream_base import base_files, base_rows
from userrep.spaces.registry import read_registry
from userrep.spaces.snapshots import PUBLISHED, STAGED
from userrep.store import schemas
from userrep.store.file_tables import FileTables
from userrep.store.schemas import TableSchema
from userrep.store.sql import sql_key
from userrep.store.tables import Tables
from userrep.utc import utc_now


def recount(tables: Tables) -> None:
    """Update the number of users of features and snapshots in their ledgers. The gates compare with these numbers.

    Cost: milliseconds, and one entry per file in the driver's memory; in a catalog, a count of each table of
    features and, for each space, of all snapshots.
    """
    for table in features_tables(tables):
        key = {"lineage_id": table.name.removeprefix(schemas.USER_FEATURES)}
        _recount_rows(tables, schemas.FEATURE_SETS, key, table, lambda row: row["begun_by"] is None)
    for space in read_registry(tables).spaces:
        key, table = {"space_id": space.space_id}, schemas.USER_EMBEDDINGS
        _recount_rows(tables, schemas.SNAPSHOTS, key, table, lambda row: row["state"] in (STAGED, PUBLISHED))


def _recount_rows(
    tables: Tables,
    ledger: TableSchema,
    key: dict[str, str],
    table: TableSchema,
    is_counted: Callable[[dict[str, Any]], bool],
) -> None:
    """Set the number of users in a ledger's rows with a key to that of their partition of a table.

    Rows that are not ``is_counted`` do not change. Partitions are counted after the ledger was read. Rows are committed
    before the ledger names them, so none are missed.
    """

    def recounted(rows: list[Row]) -> list[dict[str, Any]] | None:
        counts = {partition: part.num_rows for partition, part in tables.partitions(table).items()}
        old = [row.asDict() for row in rows]
        new = [
            row | {"num_users": counts.get(tuple(row[name] for name in table.partition_by), 0)}
            if is_counted(row)
            else row
            for row in old
        ]
        return None if new == old else new

    tables.change(ledger, recounted, replacing=sql_key(key), **key)


@contextmanager
def moved_pins(tables: Tables) -> Iterator[None]:
    """Pin each stream base to the version of ``user_openings`` after the block, which erases users from the table.

    Bases that were not the newest are removed from the ledger, and so are those that another run has recorded during
    the block, if the block has changed their rows. A base is not the newest if a run that rebuilds it was cut off. A
    stream waits for a base that is not in the ledger until `userrep daily` has built it again.
    """
    rows = base_rows(tables)  # none in a catalog, which streams do not read from
    newest = {key for key, row in rows.items() if _is_newest(tables, key, row, tables.version(schemas.USER_OPENINGS))}
    yield

    def moved(_: list[Row]) -> list[dict[str, Any]]:
        version, current = tables.version(schemas.USER_OPENINGS), []
        for key, row in base_rows(tables).items():
            if _is_newest(tables, key, row, version):
                current.append(row.asDict())
            elif key in newest and row == rows[key]:
                current.append(row.asDict() | {"table_version": version, "built_at": utc_now()})
        return current

    if tables.exists(schemas.OPENINGS):
        tables.change(schemas.OPENINGS, moved)


def _is_newest(tables: Tables, key: tuple[str, date], row: Row, version: int) -> bool:
    """Return whether the version that a base is pinned to has the same files of it as another ``version``."""
    assert isinstance(tables, FileTables)
    return base_files(tables, key, row.table_version) == base_files(tables, key, version)


def drop_training_rows(tables: Tables) -> None:
    """Drop all training rows. They have no user ids, but they are derived from users.

    A running training can read its files until VACUUM. A training that is resumed builds its rows again.
    """
    tables.drop_partitions(
        schemas.TRAINING_ROWS, list(map(schemas.TRAINING_ROWS.partition, tables.partitions(schemas.TRAINING_ROWS)))
    )
