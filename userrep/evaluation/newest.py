"""The newest tiles of each row: what is left of a user's behaviour when all that is older is cut off.

Shapes: N rows, U users, T tiles, E pairs of a row and a tile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from scipy.sparse import csr_array

from userrep.evaluation.activity import slot_of
from userrep.evaluation.rows import Ints, Rows, places
from userrep.features.sums.chunk import TILES, names_of
from userrep.store.arrow import combined
from userrep.utc import day_number

NO_DAY = np.iinfo(np.int64).max  # of a user without any tile


@dataclass(frozen=True)
class Newest:
    """Which tiles are the newest of each row: of its windows, before its date, so many at most.

    ``tiles``: T tiles as chunks have them (sums/chunk.py). ``row_E``, ``tile_E``: whose, and which; ``place_E``: 0
    of the row's newest, then 1. ``first_day_U``: the day of the user's first tile of all, since 1970; NO_DAY for none.
    """

    tiles: pa.Table
    row_E: Ints
    tile_E: Ints
    place_E: Ints
    first_day_U: Ints

    def history(self, most: int, num_rows: int, item_ids: pa.StringArray) -> csr_array:
        """Count events of each row's ``most`` newest tiles by item: N x I."""
        item_T = places(combined(self.tiles.column("item_id")), item_ids)
        num_events_T = self.tiles.column("num_events").to_numpy().astype(np.float64)
        inside = self.place_E < most
        tile_E = self.tile_E[inside]
        entries = (num_events_T[tile_E], (self.row_E[inside], item_T[tile_E]))
        return csr_array(entries, shape=(num_rows, len(item_ids)))


def newest_tiles(tiles: DataFrame, dates: Sequence[date], *, most: int, context: bool) -> DataFrame:
    """Keep, of each user and between neighbouring dates, the newest tiles: among them are the newest before each date.

    Parameters
    ----------
    tiles : rows of ``user_item_days``, one revision of each day.
    most : how many are kept of a user and an interval.
    context : whether ``num_by_context`` is wanted.

    Returns
    -------
    The columns of a chunk's tiles; ``place``, from 0 for the interval's newest; ``first_day``, the day of the user's
    first tile, those that are not kept included. Cost: one shuffle on user_id.
    """
    columns = {
        "day": F.unix_date("event_date"), "last_event_at": F.unix_micros("last_event_at"), "before": F.lit(False),
        "after": F.lit(True), "slot": slot_of(dates),
    }  # fmt: skip
    newest = Window.partitionBy("user_id", "slot").orderBy(F.desc("last_event_at"), "item_id", "event_type")
    marked = tiles.withColumns(columns).withColumn("first_day", F.min("day").over(Window.partitionBy("user_id")))
    kept = marked.withColumn("place", F.row_number().over(newest) - 1).where(F.col("place") < most)
    return kept.select("user_id", "place", "first_day", *_columns(context=context))


def newest_of(found: pa.Table, rows: Rows, *, span: int, most: int) -> Newest:
    """Tell of each row which tiles are its newest.

    ``found``: as ``newest_tiles`` gives them. ``span``: the days of the widest window, the history's if there is one.

    Tiles of users that are in no row are dropped. Cost: a pass over the tiles for each date.
    """
    user_T = places(combined(found.column("user_id")).cast(pa.string()), rows.user_ids)
    place_T, day_T = (found.column(name).to_numpy().astype(np.int64) for name in ("place", "day"))
    first_day_U = np.full(len(rows.user_ids), NO_DAY)
    first_day_U[user_T[user_T >= 0]] = found.column("first_day").to_numpy()[user_T >= 0]
    order = np.lexsort((place_T, -day_T, user_T))  # within a day, all places are of one interval
    order = order[user_T[order] >= 0]
    user_T, day_T = user_T[order], day_T[order]
    parts = []
    for d, as_of in enumerate(rows.dates):
        row_U = np.full(len(rows.user_ids), -1)
        mine = np.flatnonzero(rows.date_N == d)
        row_U[rows.user_N[mine]] = mine
        age_T = day_number(as_of) - day_T
        tile_E = np.flatnonzero((age_T >= 1) & (age_T <= span) & (row_U[user_T] >= 0))
        user_E = user_T[tile_E]
        place_E = np.arange(len(tile_E)) - np.searchsorted(user_E, user_E)
        parts.append(np.stack([row_U[user_E], tile_E, place_E])[:, place_E < most])
    row_E, tile_E, place_E = np.concatenate(parts, axis=1)
    names = [name for name in _columns(context=True) if name in found.column_names]
    kept = found.select(names).take(pa.array(order))
    columns = [kept.column(name).cast(TILES.field(name).type) for name in names]
    return Newest(pa.Table.from_arrays(columns, names=names), row_E, tile_E, place_E, first_day_U)


def _columns(*, context: bool) -> list[str]:
    """Return the columns of a chunk's tiles but for the user."""
    return [name for name in names_of("tiles", context=context) if name not in ("user_bucket", "user_id")]
