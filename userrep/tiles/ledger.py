"""The ledger of activity tiles, which names the current revision of each UTC day, and readers of the tiles.

A day of tiles is a pure function of that day of the log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep.ids import short_hash
from userrep.store.schemas import TILE_DAYS, USER_ITEM_DAYS
from userrep.store.tables import Keys, Tables

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import DataFrame

STREAM_REVISION = 0  # of a stream's rejected rows; revisions of batch runs start at 1
NUM_CELLS = 256  # ranges of user buckets by which a day's tiles are counted
UNDATED = ("unparsable_row", "unreadable_event_at", "implausible_event_at")  # reasons that leave a row without a day
NO_ROWS = "none"  # the fingerprint and the content of a day that has vanished from the log
_WORTH_COUNTING = 1_000_000  # with fewer tiles, no task can be too large, so an even distribution is assumed


class TileDay(NamedTuple):
    """The ledger entry of a revision of a day. ``fingerprint``: hash of the log's rows or files it was built from.

    ``content`` : hash of the tiles themselves, since different rows may give the same tiles.
    """

    fingerprint: str
    content: str
    revision: int
    num_events: int  # without copies
    num_rejected: int
    num_tiles: int = 0


@dataclass(frozen=True)
class TileLedger:
    """The ledger at a version, with the newest entry of each day and of the rows without a readable time.

    A run reads it once, so that all its stages read the same revisions.
    """

    version: int
    days: dict[date, TileDay]
    undated: TileDay
    _entries: Mapping[tuple[date, int], TileDay]  # by day and revision

    @property
    def latest(self) -> dict[date, tuple[str, int]]:
        """The (content, revision) of each day."""
        return {day: (entry.content, entry.revision) for day, entry in self.days.items()}

    def revisions(self, start: date | None, end: date) -> dict[date, int]:
        """Return the newest revision of each of the days ``[start, end)``; ``start`` None: all days before ``end``."""
        return {d: entry.revision for d, entry in self.days.items() if d < end and (start is None or d >= start)}

    def contents(self, revisions: Mapping[date, int]) -> dict[date, tuple[str, int]]:
        """Return the (content, revision) of days in given revisions; the content is empty if it is not known."""
        entries = {key: self._entries.get(key) for key in revisions.items()}
        return {day: (entry.content if entry else "", revision) for (day, revision), entry in entries.items()}

    def num_tiles(self, days: Iterable[tuple[date, int]]) -> int:
        """Return the number of tiles of some (day, revision)."""
        return sum(self._entries[day].num_tiles for day in days if day in self._entries)


def tile_ledger(tables: Tables) -> TileLedger:
    """Read the ledger of days. Driver memory: one entry per day and revision."""
    version = tables.version(TILE_DAYS)  # before the rows: if another run commits in between, these are newer
    rows = sorted(tables.ledger(TILE_DAYS, ("event_date", *TileDay._fields)), key=lambda row: row.revision)
    entries = {(row.event_date, row.revision): TileDay(*row[1:]) for row in rows}
    days = {day: entry for (day, _), entry in entries.items()}
    undated = days.pop(None, TileDay("", "", 0, 0, 0))
    return TileLedger(version, days, undated, entries)


def read_tiles(tables: Tables, *, start: date | None, end: date, ledger: TileLedger | None = None) -> DataFrame:
    """Read the tiles of the days ``[start, end)``. ``start`` None: all days before ``end``.

    ``ledger``: the ledger pinned by the run, whose revisions are read; by default, the newest. Only files of these
    revisions are read.
    """
    return tables.read(USER_ITEM_DAYS, revision_keys((ledger or tile_ledger(tables)).revisions(start, end)))


def tiles_by_cell(tables: Tables, ledger: TileLedger, days: Collection[tuple[date, int]]) -> NDArray[np.int64]:
    """Count the tiles of some (day, revision) by cell of user buckets. Small totals are distributed evenly instead.

    Driver memory: one number per day and cell.
    """
    if (num_tiles := ledger.num_tiles(days)) < _WORTH_COUNTING:
        return np.full(NUM_CELLS, num_tiles // NUM_CELLS)
    rows = tables.ledger(TILE_DAYS, ("event_date", "revision", "num_tiles_by_cell"))
    by_day = {(row.event_date, row.revision): row.num_tiles_by_cell for row in rows}
    num_tiles_by_cell = np.zeros(NUM_CELLS, np.int64)
    for day in days:
        counts = by_day.get(day) or {}  # unknown after tile_days was restored
        num_tiles_by_cell[list(counts)] += np.array(list(counts.values()), np.int64)
    return num_tiles_by_cell


def days_fingerprint(days: dict[date, tuple[str, int]], *, start: date | None, end: date) -> str:
    """Hash the tiles of the days ``[start, end)``, given the newest days of a ledger (``latest``)."""
    return short_hash(sorted((d, c) for d, (c, _) in days.items() if d < end and (start is None or d >= start)))


def revision_keys(days: Mapping[date, int]) -> Keys:
    """Return the keys of some days, each in a given revision."""
    return [{"event_date": day, "revision": revision} for day, revision in days.items()]
