"""The items of a lineage: the item table, and the dense numbers that items keep across versions."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Items
from userrep.errors import UsageError, UserrepError
from userrep.sources.columns import as_text, check_columns, configured, id_text, named, type_of
from userrep.sources.read import read_source
from userrep.store.schemas import ITEM_INDEX
from userrep.store.tables import Keys, Tables

_ATTEMPTS = 20  # to commit item numbers, each on the newest table version


def extended_index(tables: Tables, lineage_id: str, items: DataFrame | None, tiles: DataFrame) -> DataFrame:
    """Give every item of some tiles and of the item table a dense number that never changes.

    New items are numbered in the order of their ids. Cost: one pass over the items of all tiles; one task sorts the ids
    of the new items. Two concurrent runs could give one number to two items. So numbers are committed only if the table
    still has the version that they continue; the run that comes second starts again from the new numbers.
    """
    seen = tiles.select("item_id")
    if items is not None:
        seen = seen.unionByName(items.select("item_id"))
    own: Keys = [{"lineage_id": lineage_id}]
    for _ in range(_ATTEMPTS):
        since = tables.version(ITEM_INDEX)
        known = tables.read(ITEM_INDEX, own, version=since)
        new = seen.distinct().join(known.select("item_id"), on="item_id", how="left_anti")
        [(start,)] = known.agg(F.coalesce(F.max("item_index") + 1, F.lit(0))).collect()
        in_order = new.select("item_id").repartition(1).sortWithinPartitions("item_id")
        number = (F.lit(start) + F.monotonically_increasing_id()).cast("int")  # 0, 1, ... in the only partition
        numbered = in_order.select(F.lit(lineage_id).alias("lineage_id"), "item_id", number.alias("item_index"))
        if tables.append(numbered, ITEM_INDEX, since=since):
            return tables.read(ITEM_INDEX, own).select("item_id", "item_index")
    raise UserrepError(f"item_index: changed by other runs, gave up after {_ATTEMPTS} attempts. Run the command again.")


def read_items(tables: Tables, items: Items) -> DataFrame:
    """Read the item table: item_id, text, vector (null if not mapped). Of several rows of an item, the maxima are kept.

    Raises
    ------
    UsageError
        If a mapped column is missing, or the vector column is not a list.
    """
    source, columns = read_source(tables.spark, items, what="items"), items.columns
    check_columns(source.schema, configured(columns), "items")
    if columns.vector and not isinstance(kind := type_of(source, columns.vector), T.ArrayType):
        raise UsageError(
            f"items.columns.vector: not a list of numbers, got column {columns.vector!r} of type "
            f"{kind.simpleString()}. Map a column of type array."
        )
    text = as_text(source, columns.text) if columns.text else F.lit(None)
    vector = named(source, columns.vector) if columns.vector else F.lit(None)
    mapped = source.select(
        id_text(source, columns.item_id).alias("item_id"),
        text.cast("string").alias("text"),
        vector.try_cast("array<double>").alias("vector"),
    )
    known = mapped.where(F.col("item_id").isNotNull())
    return known.groupBy("item_id").agg(F.max("text").alias("text"), F.max("vector").alias("vector"))
