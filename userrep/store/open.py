"""Choice of the table backend for a configuration or a root."""

import re
from collections.abc import Callable

from pyspark.sql import SparkSession

from userrep.config import Config
from userrep.ids import checked_name
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import artifacts_root
from userrep.store.spark_tables import SparkTables
from userrep.store.tables import Tables, root_path

# Roots with atomic commits that both pyarrow and delta-rs support. DBFS, volumes and HDFS are left to Spark.
_FILE_TABLE_ROOT = re.compile(r"s3a?://|abfss?://|gs://|(?!/dbfs/|/Volumes/|[a-z0-9+.-]+:/)")


def open_tables(
    config: Config,
    spark: SparkSession | None,
    *,
    start: Callable[[], SparkSession] | None = None,
    expected: bool = False,
) -> Tables:
    """Return the tables of a configuration. The options are those of ``Tables``."""
    if config.root is not None:
        return open_root(config.root, spark, start=start, expected=expected)
    schema = schema_name(config.catalog or "", config.schema_ or "")
    return SparkTables(spark, schema=schema, artifacts=artifacts_root(config), start=start, expected=expected)


def open_root(
    root: str, spark: SparkSession | None, *, start: Callable[[], SparkSession] | None = None, expected: bool = False
) -> Tables:
    """Return the tables below a root. The options are those of ``Tables``."""
    if _FILE_TABLE_ROOT.match(root_path(root)):
        return FileTables(spark, root, start=start, expected=expected)
    return SparkTables(spark, artifacts=root, start=start, expected=expected)


def open_schema(
    name: str, spark: SparkSession | None, *, start: Callable[[], SparkSession] | None = None, expected: bool = False
) -> Tables:
    """Return the tables in ``catalog.schema``. The options are those of ``Tables``.

    Raises
    ------
    UsageError
        If one of the two names is missing or not valid.
    """
    catalog, _, schema = name.partition(".")
    checked = schema_name(checked_name(catalog, "catalog"), checked_name(schema, "schema"))
    return SparkTables(spark, schema=checked, start=start, expected=expected)


def schema_name(catalog: str, schema: str) -> str:
    """Return the SQL name of a schema in a catalog. Both names must be validated."""
    return f"`{catalog}`.`{schema}`"
