"""The newest tiles of each row: a user's behavior with everything older removed.

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

from userrep.evaluation.futures import slot_of
from userrep.evaluation.sampled_users import Ints, Rows, indices_in
from userrep.features.sums.chunk import TILES, names_of
from userrep.store.arrow import combined
from userrep.utc import day_number

NO_DAY = np.iinfo(np.int64).max  # the user has no tile


@dataclass(frozen=True)
class NewestTiles:
    """A bounded number of the newest tiles of each row, from within its windows and before its date.

    ``tiles``: T tiles with the columns of chunks (sums/chunk.py). ``row_E`` and ``tile_E``: indices of the row and the
    tile. ``rank_E``: 0 for the row's newest tile, then 1, ... ``first_day_U``: day of the user's first tile of all, in
    days since 1970; NO_DAY if there is none.
    """

    tiles: pa.Table
    row_E: Ints
    tile_E: Ints
    rank_E: Ints
    first_day_U: Ints

    def history(self, most: int, num_rows: int, item_ids: pa.StringArray) -> csr_array:
        """Count the events of each row's ``most`` newest tiles by item: N x I."""
        item_T = indices_in(combined(self.tiles.column("item_id")), item_ids)
        num_events_T = self.tiles.column("num_events").to_numpy().astype(np.float64)
        inside = self.rank_E < most
        tile_E = self.tile_E[inside]
        entries = (num_events_T[tile_E], (self.row_E[inside], item_T[tile_E]))
        return csr_array(entries, shape=(num_rows, len(item_ids)))


def newest_tiles(tiles: DataFrame, dates: Sequence[date], *, most: int, context: bool) -> DataFrame:
    """Keep each user's newest tiles between neighboring dates, which include the newest before each date.

    Parameters
    ----------
    tiles : rows of ``user_item_days``, one revision per day.
    most : number of tiles to keep per user and interval.
    context : whether to keep ``num_by_context``.

    Returns
    -------
    The columns of a chunk's tiles; ``rank``, from 0 for the newest tile of the interval; ``first_day``, the day of the
    user's first tile, counting dropped ones. Cost: one shuffle on user_id.
    """
    columns = {
        "day": F.unix_date("event_date"), "last_event_at": F.unix_micros("last_event_at"), "before": F.lit(False),
        "after": F.lit(True), "slot": slot_of(dates),
    }  # fmt: skip
    newest = Window.partitionBy("user_id", "slot").orderBy(F.desc("last_event_at"), "item_id", "event_type")
    marked = tiles.withColumns(columns).withColumn("first_day", F.min("day").over(Window.partitionBy("user_id")))
    kept = marked.withColumn("rank", F.row_number().over(newest) - 1).where(F.col("rank") < most)
    return kept.select("user_id", "rank", "first_day", *_columns(context=context))


def newest_by_row(candidates: pa.Table, rows: Rows, *, span: int, most: int) -> NewestTiles:
    """Assign each row its newest tiles.

    ``candidates``: the result of ``newest_tiles``. ``span``: days of the widest window, the history included if it is
    one. Tiles of users without a row are dropped. Cost: one pass over the tiles per date.
    """
    user_T = indices_in(combined(candidates.column("user_id")).cast(pa.string()), rows.user_ids)
    rank_T, day_T = (candidates.column(name).to_numpy().astype(np.int64) for name in ("rank", "day"))
    first_day_U = np.full(len(rows.user_ids), NO_DAY)
    first_day_U[user_T[user_T >= 0]] = candidates.column("first_day").to_numpy()[user_T >= 0]
    order = np.lexsort((rank_T, -day_T, user_T))  # all tiles of a day are in one interval, so ranks compare
    order = order[user_T[order] >= 0]
    user_T, day_T = user_T[order], day_T[order]
    parts = []
    for d, as_of in enumerate(rows.dates):
        row_U = np.full(len(rows.user_ids), -1)
        row_index = np.flatnonzero(rows.date_N == d)
        row_U[rows.user_N[row_index]] = row_index
        age_T = day_number(as_of) - day_T
        tile_E = np.flatnonzero((age_T >= 1) & (age_T <= span) & (row_U[user_T] >= 0))
        user_E = user_T[tile_E]
        rank_E = np.arange(len(tile_E)) - np.searchsorted(user_E, user_E)
        parts.append(np.stack([row_U[user_E], tile_E, rank_E])[:, rank_E < most])
    row_E, tile_E, rank_E = np.concatenate(parts, axis=1)
    names = [name for name in _columns(context=True) if name in candidates.column_names]
    kept = candidates.select(names).take(pa.array(order))
    columns = [kept.column(name).cast(TILES.field(name).type) for name in names]
    return NewestTiles(pa.Table.from_arrays(columns, names=names), row_E, tile_E, rank_E, first_day_U)


def _columns(*, context: bool) -> list[str]:
    """Return the columns of a chunk's tiles other than the user."""
    return [name for name in names_of("tiles", context=context) if name not in ("user_bucket", "user_id")]
