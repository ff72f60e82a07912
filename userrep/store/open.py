"""Location and table backend of a configuration or a root."""

import re

from userrep.config import Config
from userrep.ids import checked_name
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import root_path
from userrep.store.tables import Session, Tables

# Roots with atomic commits that both pyarrow and delta-rs support. DBFS, volumes and HDFS are left to Spark.
_FILE_TABLE_ROOT = re.compile(r"s3a?://|abfss?://|gs://|(?!/dbfs/|/Volumes/|[a-z0-9+.-]+:/)")


def artifacts_root(config: Config) -> str:
    """Return the artifacts folder: ``root``, ``artifacts``, or the volume ``userrep`` of the catalog's schema."""
    return root_path(config.root or config.artifacts or f"/Volumes/{config.catalog}/{config.schema_}/userrep")


def open_tables(config: Config, session: Session, *, expected: bool = False) -> Tables:
    """Return the tables of a configuration. The options are those of ``Tables``."""
    if config.root is not None:
        return open_root(config.root, session, expected=expected)
    schema = f"{config.catalog}.{config.schema_}"
    return open_schema(schema, session, artifacts=artifacts_root(config), expected=expected)


def open_root(root: str, session: Session, *, expected: bool = False) -> Tables:
    """Return the tables below a root. The options are those of ``Tables``."""
    if _FILE_TABLE_ROOT.match(root_path(root)):
        return FileTables(session, root, expected=expected)
    from userrep.store.spark_tables import SparkTables

    return SparkTables(session, artifacts=root, expected=expected)


def open_schema(name: str, session: Session, *, artifacts: str | None = None, expected: bool = False) -> Tables:
    """Return the tables in ``catalog.schema``. The options are those of ``SparkTables``.

    Raises
    ------
    UsageError
        If one of the two names is missing or not valid.
    """
    from userrep.store.spark_tables import SparkTables

    catalog, _, schema = name.partition(".")
    checked = f"`{checked_name(catalog, 'catalog')}`.`{checked_name(schema, 'schema')}`"
    return SparkTables(session, schema=checked, artifacts=artifacts, expected=expected)
