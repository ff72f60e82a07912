"""Builds tiles into a schema of a metastore, in a process of its own that a test kills.

    python -m tests.system.faults.catalog_writer FOLDER

Reads the log in ``FOLDER/log`` and creates ``FOLDER/metastore`` and ``FOLDER/warehouse``.
"""

import sys
from datetime import date
from pathlib import Path

from tests.support.builders import EVENT_COLUMNS, SPARK
from userrep.config import parse_config
from userrep.spark.session import get_session
from userrep.store.open import open_tables
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory

SCHEMA = "representations"


def main(folder: Path) -> None:
    """Build the tiles of a whole log."""
    conf = {
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.hadoop.javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={folder / 'metastore'};create=true",
        "spark.hadoop.datanucleus.schema.autoCreateAll": "true",
        "spark.hadoop.hive.metastore.schema.verification": "false",
    }
    config = parse_config(
        {
            "catalog": "spark_catalog",
            "schema": SCHEMA,
            "artifacts": str(folder / "artifacts"),
            "events": {"path": str(folder / "log"), "columns": EVENT_COLUMNS},
            "windows_days": [2, 7],
        },
        "test",
    )
    spark = get_session(master="local[2]", conf=SPARK | conf)
    spark.sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    tables = open_tables(config, spark)
    build_tiles(tables, config, take_inventory(tables, config.events), before=date(2030, 1, 1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
