"""Where the tables live and how they are written: Delta, by path or by catalog, whole commits only."""

from datetime import date
from typing import cast

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from userrep.config import Config
from userrep.errors import UsageError
from userrep.schemas import TableSchema
from userrep.storage import absolute

_PROPERTIES = {
    # Readers of plain Parquet (training) don't see deletion vectors, and user ids stay out of the log's statistics.
    "delta.enableDeletionVectors": "false",
    "delta.dataSkippingNumIndexedCols": "0",
}


def sql_date(day: date) -> str:
    """Write a date as a SQL literal."""
    return f"DATE'{day:%Y-%m-%d}'"


def sql_in(column: str, values: list[str] | list[date]) -> str:
    """Write ``column IN (...)`` for checked names or dates; false where there is no value."""
    if not values:
        return "false"
    literals = [sql_date(value) if isinstance(value, date) else f"'{value}'" for value in values]
    return f"{column} IN ({', '.join(literals)})"


class Tables:
    """The Delta tables below one root path, or in one schema of a catalog."""

    def __init__(self, spark: SparkSession, *, root: str | None = None, schema: str | None = None) -> None:
        if (root is None) == (schema is None):
            raise UsageError("say where tables live: root or schema, not both.")
        self.spark = spark
        self._root = root.rstrip("/") if root else None
        self._schema = schema
        self._known: set[str] = set()

    @classmethod
    def of(cls, config: Config, spark: SparkSession) -> "Tables":
        """Open the tables that a configuration names."""
        if config.root is not None:
            return cls(spark, root=absolute(config.root))
        return cls(spark, schema=f"`{config.catalog}`.`{config.schema_}`")

    @property
    def has_files(self) -> bool:
        """Say whether tasks may read the tables' files themselves: those below a root path, not a catalog's."""
        return self._root is not None

    def shuffle_partitions(self) -> int:
        """Return how many tasks the session gives a shuffle."""
        wanted = self.spark.conf.get("spark.sql.shuffle.partitions", "200") or ""
        return int(wanted) if wanted.isdigit() else 200  # Databricks has "auto"

    def name(self, table: TableSchema) -> str:
        """Return the table's name in SQL."""
        if self._root is not None:
            return f"delta.`{self._root}/tables/{table.name}`"
        return f"{self._schema}.`{table.name}`"

    def create(self, table: TableSchema) -> None:
        """Create the table where it is not there yet.

        Raises
        ------
        UsageError
            If it is there with other columns: another release has written it.
        """
        if table.name in self._known:
            return
        partitions = f"PARTITIONED BY ({', '.join(table.partition_by)})" if table.partition_by else ""
        properties = ", ".join(f"'{key}' = '{value}'" for key, value in (*_PROPERTIES.items(), *table.properties))
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS {self.name(table)} ({table.columns}) USING delta {partitions} "
            f"TBLPROPERTIES ({properties})"
        )
        wanted = cast(StructType, StructType.fromDDL(table.columns)).names
        found = self.spark.sql(f"SELECT * FROM {self.name(table)}").columns
        if table.columns and set(wanted) != set(found):
            raise UsageError(
                f"table {self.name(table)} has the columns {', '.join(found)}; this release wants {', '.join(wanted)}. "
                "Another release wrote it: choose another root, or use that release."
            )
        self._known.add(table.name)

    def read(self, table: TableSchema, *, version: int | None = None) -> DataFrame:
        """Read a table, at a pinned version if one is given; an empty frame where it is not there yet."""
        self.create(table)
        at = f" VERSION AS OF {version}" if version is not None else ""
        return self.spark.sql(f"SELECT * FROM {self.name(table)}{at}")

    def version(self, table: TableSchema) -> int:
        """Return the newest version of the table. Cost: one look at the log."""
        self.create(table)
        history = self.spark.sql(f"DESCRIBE HISTORY {self.name(table)} LIMIT 1")
        return int(history.select("version").first()[0])  # type: ignore[index]

    def append(self, rows: DataFrame, table: TableSchema) -> None:
        """Add rows in one commit."""
        self._write(rows, table, None)

    def replace(self, rows: DataFrame, table: TableSchema, where: str) -> None:
        """Put ``rows`` in the place of those that match ``where``, in one commit."""
        self._write(rows, table, where)

    def _write(self, rows: DataFrame, table: TableSchema, where: str | None) -> None:
        self.create(table)
        in_order = rows.select(*(field.name for field in self.read(table).schema.fields))
        writer = in_order.write.format("delta")
        writer = writer.mode("append") if where is None else writer.mode("overwrite").option("replaceWhere", where)
        if self._root is not None:
            writer.save(f"{self._root}/tables/{table.name}")
        else:
            writer.saveAsTable(self.name(table))
