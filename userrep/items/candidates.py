"""The items that a training's rows choose from: what was sold in the days after each as-of date, with its vectors.

Of a date that sold more items than there is room for, a sample stands for all. It is drawn without replacement, with
chances that grow with what was sold; each item's share is divided by its chance to be drawn (a bottom-k sketch: Cohen
and Kaplan 2007), so that sums over the sample estimate those over all items.
Shapes: N items of all dates, C items of one, M modalities, E numbers of an item (all modalities side by side).
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from userrep.items.vectors import side_by_side
from userrep.items.versions import Versions
from userrep.store.arrow import combined
from userrep.store.schemas import ITEM_VECTORS
from userrep.store.sql import sql_in
from userrep.store.tables import Tables
from userrep.tiles.tiles import read_tiles

MOST_ITEMS = 4096  # of a date
_MOST_BYTES = 2**28  # of all dates
_DRAWS = 2**40
_PARTS = 64  # of the items of a date, while they are ranked


def read_candidates(
    tables: Tables, versions: Versions, as_ofs: Sequence[date], *, days: int, dims: Mapping[str, int], seed: int
) -> dict[str, NDArray[np.float32]]:
    """Draw the items sold in the ``days`` from each as-of date on, with the vectors that are valid when these end.

    At most ``MOST_ITEMS`` of a date, fewer where all together would take more than 256 MB. Items without any vector are
    left out; one that lacks a modality gets that modality's mean over the date's items. ``dims``: the modalities, in
    order, and their widths.

    Returns
    -------
    For the date at place d of ``as_ofs`` ``vector_{d}`` (CE) and ``log_share_{d}`` (C): the logarithm of each item's
    part of all that was sold. Cost: one pass over the tiles of these days, a shuffle of their sums by item and date,
    another by date and a hash of the item, and one pass over the versions' vectors. What is drawn reaches the driver,
    which holds it some four times over.
    """
    width = sum(dims.values())
    room = min(MOST_ITEMS, max(2, _MOST_BYTES // (4 * width * max(1, len(as_ofs)))))
    drawn = _drawn(tables, as_ofs, days=days, room=room, seed=seed).sort_by("item_id")
    place_N = pc.index_in(drawn.column("as_of"), pa.array(as_ofs, pa.date32())).to_numpy()
    weight_N, key_N = (drawn.column(name).to_numpy() for name in ("weight", "key"))
    version_of = pa.array([versions.valid_at(day + timedelta(days=days)) for day in as_ofs], pa.date32())
    numbered = pa.table(
        {
            "valid_from": version_of.take(pa.array(place_N)),
            "item_id": drawn.column("item_id"),
            "number": pa.array(np.arange(len(place_N)), pa.int32()),
        }
    )
    vector_NE, has_NM = _vectors(tables, versions.lineage_id, numbered, dims)
    found: dict[str, NDArray[np.float32]] = {}
    for d in range(len(as_ofs)):
        mine = np.flatnonzero(place_N == d)
        share_C, kept = _shares(weight_N[mine], key_N[mine], room)
        kept &= has_NM[mine].any(axis=1)
        share_C, mine = share_C[kept] / max(share_C[kept].sum(), 1e-300), mine[kept]
        vector_CE = _with_means(vector_NE[mine], has_NM[mine], share_C, dims)
        found |= {f"vector_{d}": vector_CE, f"log_share_{d}": np.log(share_C).astype(np.float32)}
    return found


def _drawn(tables: Tables, as_ofs: Sequence[date], *, days: int, room: int, seed: int) -> pa.Table:
    """Return as_of, item_id, weight and key of the items with the smallest keys: one more than there is room for."""
    spark, first, last = tables.spark, min(as_ofs), max(as_ofs) + timedelta(days=days)
    ahead = [(day + timedelta(days=k), day) for day in as_ofs for k in range(days)]
    event_dates, dates = (pa.array(column, pa.date32()) for column in zip(*ahead, strict=True))
    dates_of_day = spark.createDataFrame(pa.table({"event_date": event_dates, "as_of": dates}))
    tiles = read_tiles(tables, start=first, end=last).join(F.broadcast(dates_of_day), on="event_date", how="inner")
    sums = tiles.groupBy("as_of", "item_id").agg(F.sum("weight").alias("weight")).where("weight > 0")
    chance = (F.pmod(F.xxhash64("item_id", "as_of", F.lit(seed)), F.lit(_DRAWS)) + 0.5) / _DRAWS
    keyed = sums.withColumn("key", -F.log(chance) / F.col("weight"))
    part = F.pmod(F.xxhash64("item_id"), F.lit(_PARTS))
    fewer = _smallest(keyed.withColumn("part", part), ["as_of", "part"], room + 1)  # no task sorts all items of a date
    return _smallest(fewer, ["as_of"], room + 1).drop("part").toArrow()


def _smallest(keyed: DataFrame, groups: list[str], num: int) -> DataFrame:
    """Keep the rows with the ``num`` smallest keys of each group."""
    rank = F.row_number().over(Window.partitionBy(*groups).orderBy("key", "item_id"))
    return keyed.withColumn("rank", rank).where(F.col("rank") <= num).drop("rank")


def _shares(
    weight_N: NDArray[np.float64], key_N: NDArray[np.float64], room: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return what each item stands for, and which items are in the sample.

    Of more than ``room`` items the one with the largest key sets the threshold only.
    """
    kept, chance_N = np.ones(len(key_N), bool), np.ones(len(key_N))
    if len(key_N) > room:
        limit = key_N.max()
        kept, chance_N = key_N < limit, -np.expm1(-weight_N * limit)
    return weight_N / chance_N, kept


def _with_means(
    vector_CE: NDArray[np.float32], has_CM: NDArray[np.bool_], share_C: NDArray[np.float64], dims: Mapping[str, int]
) -> NDArray[np.float32]:
    """Fill in the mean vector of a modality for the items that lack it: they say nothing about a user there."""
    start = 0
    for m, dim in enumerate(dims.values()):
        part, has_C = slice(start, start + dim), has_CM[:, m]
        if has_C.any() and not has_C.all():
            vector_CE[~has_C, part] = np.average(vector_CE[has_C, part], axis=0, weights=share_C[has_C])
        start += dim
    return vector_CE


def _vectors(
    tables: Tables, lineage_id: str, numbered: pa.Table, dims: Mapping[str, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read the vectors of numbered items, all modalities side by side, and which items have one of each."""
    wanted = sql_in("valid_from", combined(numbered.column("valid_from")).unique().to_pylist())
    rows = tables.read(ITEM_VECTORS).where(f"lineage_id = '{lineage_id}'").where(wanted)
    numbers = F.broadcast(tables.spark.createDataFrame(numbered))
    joined = rows.join(numbers, on=["valid_from", "item_id"], how="inner")
    vectors = joined.select("modality", "number", "vector").toArrow()
    return side_by_side(vectors, vectors.column("number").to_numpy(), numbered.num_rows, dims)
