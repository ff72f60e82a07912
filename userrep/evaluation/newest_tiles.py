"""The newest tiles of each row: a user's behavior with everything older removed.

Shapes: N rows, U users, D dates, E pairs of a row and a tile.
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
from userrep.evaluation.metrics import Ints
from userrep.evaluation.sampled_rows import Rows, indices_in
from userrep.features.sums.chunk import TILES, schema_of
from userrep.store.arrow import combined

NO_DAY = np.iinfo(np.int64).max  # the user has no tile
_RANKS = "date_index", "rank", "first_day"  # columns that ``newest_tiles`` adds


@dataclass(frozen=True)
class NewestTiles:
    """A bounded number of the newest tiles of each row, from within its windows and before its date.

    ``tiles``: E tiles with the columns of chunks (sums/chunk.py), each of the row ``row_E``. ``rank_E``: 0 for the
    row's newest tile, then 1, ... ``first_day_U``: day of the user's first tile of all, in days since 1970; NO_DAY if
    there is none.
    """

    tiles: pa.Table
    row_E: Ints
    rank_E: Ints
    first_day_U: Ints

    def history(self, most: int, num_rows: int, item_ids: pa.StringArray) -> csr_array:
        """Count the events of each row's ``most`` newest tiles by item: N x I."""
        item_E = indices_in(combined(self.tiles.column("item_id")), item_ids)
        num_events_E = self.tiles.column("num_events").to_numpy().astype(np.float64)
        inside = self.rank_E < most
        return csr_array((num_events_E[inside], (self.row_E[inside], item_E[inside])), shape=(num_rows, len(item_ids)))


def newest_tiles(tiles: DataFrame, dates: Sequence[date], *, most: int, context: bool) -> DataFrame:
    """Return each user's newest tiles before each date.

    Parameters
    ----------
    tiles : rows of ``user_item_days``, one revision per day.
    most : number of tiles to keep per user and date.
    context : whether to keep ``num_by_context``.

    Returns
    -------
    The columns of a chunk's tiles; ``date_index``, the index of the date; ``rank``, from 0 for the newest tile before
    it; ``first_day``, the day of the user's first tile, counting dropped ones. Cost: one shuffle on user_id.
    """
    columns = {
        "day": F.unix_date("event_date"), "last_event_at": F.unix_micros("last_event_at"), "before": F.lit(False),
        "after": F.lit(True), "slot": slot_of(dates),
    }  # fmt: skip
    earlier = tiles.where(F.col("event_date") < F.lit(dates[-1])).withColumns(columns)
    earlier = earlier.withColumn("first_day", F.min("day").over(Window.partitionBy("user_id")))
    of_slots = _newest(earlier, "slot", most)  # fewer rows to repeat for each date; slot d ends at date d
    of_dates = of_slots.withColumn("date_index", F.explode(F.sequence("slot", F.lit(len(dates) - 1))))
    names = [name for name in schema_of("tiles", context=context).names if name != "user_bucket"]
    return _newest(of_dates, "date_index", most).select(*_RANKS, *names)


def _newest(tiles: DataFrame, column: str, most: int) -> DataFrame:
    """Keep the ``most`` newest tiles of each user and value of a column."""
    order = Window.partitionBy("user_id", column).orderBy(F.desc("last_event_at"), "item_id", "event_type")
    return tiles.withColumn("rank", F.row_number().over(order) - 1).where(F.col("rank") < most)


def newest_by_row(candidates: pa.Table, rows: Rows, *, span: int) -> NewestTiles:
    """Assign tiles to rows.

    ``candidates``: the result of ``newest_tiles``. ``span``: days of the widest window, the history included if it is
    one. Tiles of users without a row at the date are dropped.
    """
    user_E = indices_in(combined(candidates.column("user_id")).cast(pa.string()), rows.user_ids)
    candidates, user_E = candidates.filter(pa.array(user_E >= 0)), user_E[user_E >= 0]
    date_E, rank_E, first_day_E, day_E = (
        candidates.column(name).to_numpy().astype(np.int64) for name in (*_RANKS, "day")
    )
    first_day_U = np.full(len(rows.user_ids), NO_DAY)
    first_day_U[user_E] = first_day_E
    row_UD = np.full((len(rows.user_ids), len(rows.dates)), -1)
    row_UD[rows.user_N, rows.date_N] = np.arange(len(rows))
    row_E = row_UD[user_E, date_E]
    kept = (row_E >= 0) & (rows.as_of_N.astype(np.int64)[row_E] - day_E <= span)
    tiles = candidates.filter(pa.array(kept)).drop_columns([*_RANKS, "user_id"])
    tiles = tiles.cast(pa.schema([TILES.field(name) for name in tiles.column_names]))
    return NewestTiles(tiles, row_E[kept], rank_E[kept], first_day_U)
