"""The candidate items of training rows: the items sold in the days after each as-of date, with their vectors.

A date with more items than the limit is represented by a sample. It is drawn without replacement, with probabilities
that grow with sales, and each item's share is divided by its inclusion probability (a bottom-k sketch: Cohen and Kaplan
2007). Sums over the sample therefore estimate sums over all items.

Shapes: N items of all dates, C items of one date, M modalities, E numbers of an item (all modalities side by side).
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from userrep.items.vectors import side_by_side, slices_of
from userrep.items.versions import Versions
from userrep.store.arrow import combined
from userrep.store.schemas import ITEM_VECTORS
from userrep.store.tables import Tables
from userrep.tiles.ledger import TileLedger, read_tiles

MAX_ITEMS = 4096  # per date
_MAX_BYTES = 2**28  # vectors of all dates
_DRAWS = 2**40
_PARTS = 64  # partitions of the items of a date for ranking


def read_candidates(
    tables: Tables,
    versions: Versions,
    as_ofs: Sequence[date],
    *,
    days: int,
    dims: Mapping[str, int],
    seed: int,
    ledger: TileLedger | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Sample the items sold in the ``days`` from each as-of date on, with the vectors valid at the end of these days.

    At most ``MAX_ITEMS`` per date, fewer if all dates together would exceed 256 MB. Items without any vector are
    dropped. An item without a vector of some modality gets the mean of that modality over the date's items. ``dims``:
    the modalities in order, with their widths. ``ledger``: the tile ledger pinned by the run; by default, the newest.

    Returns
    -------
    ``vector_{d}`` (CE) and ``log_share_{d}`` (C) for the date at index d of ``as_ofs``: the vectors, and the logarithm
    of each item's share of all sales. Cost: one pass over the tiles of these days, a shuffle of their sums by item and
    date, another by date and a hash of the item, and one pass over the versions' vectors. The sample is collected to
    the driver, which needs about four times its size.
    """
    max_items = min(MAX_ITEMS, max(2, _MAX_BYTES // (4 * sum(dims.values()) * max(1, len(as_ofs)))))
    tiles = read_tiles(tables, start=min(as_ofs), end=max(as_ofs) + timedelta(days=days), ledger=ledger)
    sample = _draw(tiles, as_ofs, days=days, max_items=max_items, seed=seed).sort_by("item_id")
    date_N = pc.index_in(sample.column("as_of"), pa.array(as_ofs, pa.date32())).to_numpy()
    weight_N, key_N = (sample.column(name).to_numpy() for name in ("weight", "key"))
    valid_D = pa.array([versions.valid_at(day + timedelta(days=days)) for day in as_ofs], pa.date32())
    items = {"item_id": sample.column("item_id"), "valid_from": valid_D.take(pa.array(date_N))}
    vector_NE, has_NM = _vectors(tables, versions.lineage_id, pa.table(items), dims)
    candidates: dict[str, NDArray[np.float32]] = {}
    for d in range(len(as_ofs)):
        rows = np.flatnonzero(date_N == d)
        share_C, kept = _shares(weight_N[rows], key_N[rows], max_items)
        kept &= has_NM[rows].any(axis=1)
        share_C, rows = share_C[kept] / max(share_C[kept].sum(), 1e-300), rows[kept]
        vector_CE = _with_means(vector_NE[rows], has_NM[rows], share_C, dims)
        candidates |= {f"vector_{d}": vector_CE, f"log_share_{d}": np.log(share_C).astype(np.float32)}
    return candidates


def _draw(tiles: DataFrame, as_ofs: Sequence[date], *, days: int, max_items: int, seed: int) -> pa.Table:
    """Return as_of, item_id, weight and key of the items with the smallest keys per date: ``max_items`` + 1 of them."""
    days_and_dates = [(day + timedelta(days=k), day) for day in as_ofs for k in range(days)]
    event_dates, dates = (pa.array(column, pa.date32()) for column in zip(*days_and_dates, strict=True))
    dates_of_day = tiles.sparkSession.createDataFrame(pa.table({"event_date": event_dates, "as_of": dates}))
    dated = tiles.join(F.broadcast(dates_of_day), on="event_date", how="inner")
    sums = dated.groupBy("as_of", "item_id").agg(F.sum("weight").alias("weight")).where("weight > 0")
    chance = (F.pmod(F.xxhash64("item_id", "as_of", F.lit(seed)), F.lit(_DRAWS)) + 0.5) / _DRAWS
    part = F.pmod(F.xxhash64("item_id"), F.lit(_PARTS))
    keyed = sums.withColumns({"key": -F.log(chance) / F.col("weight"), "part": part})
    for groups in (["as_of", "part"], ["as_of"]):  # by parts first, so that no task sorts all items of a date
        rank = F.row_number().over(Window.partitionBy(*groups).orderBy("key", "item_id"))
        keyed = keyed.withColumn("rank", rank).where(F.col("rank") <= max_items + 1)
    return keyed.drop("part", "rank").toArrow()


def _shares(
    weight_N: NDArray[np.float64], key_N: NDArray[np.float64], max_items: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return each item's weight divided by its inclusion probability, and which items are in the sample.

    Of more than ``max_items`` items, the one with the largest key only sets the threshold.
    """
    kept, chance_N = np.ones(len(key_N), bool), np.ones(len(key_N))
    if len(key_N) > max_items:
        limit = key_N.max()
        kept, chance_N = key_N < limit, -np.expm1(-weight_N * limit)
    return weight_N / chance_N, kept


def _with_means(
    vector_CE: NDArray[np.float32], has_CM: NDArray[np.bool_], share_C: NDArray[np.float64], dims: Mapping[str, int]
) -> NDArray[np.float32]:
    """Set missing vectors of a modality to the mean over the date's items, so that they carry no information."""
    for part, has_C in zip(slices_of(dims).values(), has_CM.T, strict=True):
        if has_C.any() and not has_C.all():
            vector_CE[~has_C, part] = np.average(vector_CE[has_C, part], axis=0, weights=share_C[has_C])
    return vector_CE


def _vectors(
    tables: Tables, lineage_id: str, items: pa.Table, dims: Mapping[str, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read the vectors of item_id and valid_from, all modalities side by side, and which modalities each row has."""
    numbered = items.append_column("number", pa.array(np.arange(items.num_rows), pa.int32()))
    versions = combined(numbered.column("valid_from")).unique().to_pylist()
    rows = tables.read(ITEM_VECTORS, [{"lineage_id": lineage_id, "valid_from": version} for version in versions])
    numbers = F.broadcast(tables.spark.createDataFrame(numbered))
    joined = rows.join(numbers, on=["valid_from", "item_id"], how="inner")
    vectors = joined.select("modality", "number", "vector").toArrow()
    return side_by_side(vectors, vectors.column("number").to_numpy(), numbered.num_rows, dims)
