"""What keeps tables small and their older versions few: joining files, and deleting what no version needs."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from userrep.delta_files import DeltaFiles
from userrep.errors import UserrepError
from userrep.failpoints import around
from userrep.schemas import TableSchema
from userrep.spark_writes import was_overtaken
from userrep.sql import sql_any
from userrep.tables import Keys, Tables

RETENTION = timedelta(days=7)  # Delta's own, in which older versions of a table can be read


def join_ledger(tables: Tables, table: TableSchema, *, at_least: int) -> int:
    """Put all files of a ledger into one, if they are so many; return how many they were, 0 if nothing was done.

    Nothing is done either if another run commits at the same time. Cost: one read and write of the ledger.
    """
    if not tables.exists(table):
        return 0
    if tables.has_files:
        with around(f"join:{table.name}"):
            return DeltaFiles(tables.uri(table)).join_files(at_least)
    detail = tables.spark.sql(f"DESCRIBE DETAIL {tables.name(table)}")
    num = int(detail.select("numFiles").first()[0])  # type: ignore[index]
    return num if num >= at_least and join_partitions(tables, table, [{}]) else 0


def join_partitions(tables: Tables, table: TableSchema, keys: Keys) -> bool:
    """Let Spark join the small files of some partitions; say whether it did, or another run came first.

    Cost: one read and write of these partitions, by tasks.
    """
    condition = sql_any(keys)
    try:
        if tables.has_files:
            since = tables.version(table)
            rows = tables.read(table, version=since).where(condition).repartition(*table.partition_by)
            with around(f"join:{table.name}"):
                tables.replace(rows, table, keys, since=since)
        else:
            with around(f"join:{table.name}"):
                tables.spark.sql(f"OPTIMIZE {tables.name(table)} WHERE {condition}")
    except UserrepError:
        return False
    except Exception as error:
        if not was_overtaken(error):
            raise
        return False
    return True


def vacuum(tables: Tables, table: TableSchema, age: timedelta, *, keep: Sequence[int] = ()) -> None:
    """Delete the files that no version of the last ``age`` has. Cost: a listing of the table's folder.

    ``keep``: versions that stay readable. With less than the time that the longest run takes, files go that a run
    is about to commit, or reads.
    """
    if not tables.exists(table):
        return
    hours = int(age.total_seconds() // 3600)
    if tables.has_files:
        with around(f"vacuum:{table.name}"):
            DeltaFiles(tables.uri(table)).vacuum(hours, keep)
        return
    check, conf = "spark.databricks.delta.retentionDurationCheck.enabled", tables.spark.conf
    before = conf.get(check, "true") or "true"
    conf.set(check, "false")
    try:
        tables.spark.sql(f"VACUUM {tables.name(table)} RETAIN {hours} HOURS")
    finally:
        conf.set(check, before)


def has_version(tables: Tables, table: TableSchema, version: int) -> bool:
    """Say whether a version can still be read. Only where the tables have files of their own."""
    return DeltaFiles(tables.uri(table)).has_version(version)


def was_restored(tables: Tables, table: TableSchema, since: datetime) -> bool:
    """Say whether a table was put back to an earlier version since a time (UTC).

    Only where the tables have files of their own. Cost: a look at each of up to 1,000 commits.
    """
    return DeltaFiles(tables.uri(table)).was_restored(int(since.replace(tzinfo=UTC).timestamp() * 1000))
