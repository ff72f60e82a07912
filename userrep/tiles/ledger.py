"""Activity tiles: what each user did with each item on each UTC day, and the ledger of their days. No model in them.

A day of tiles is a pure function of that day of the log. Days have revisions; ``tile_days`` says which of them count.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from userrep.ids import short_hash
from userrep.store.schemas import TILE_DAYS, USER_ITEM_DAYS
from userrep.store.sql import sql_date
from userrep.store.tables import Tables

STREAM_REVISION = 0  # of rejected rows of a stream; revisions of batches begin with 1
NUM_CELLS = 256  # of user buckets, in which a day's tiles are counted
NO_ROWS = "none"  # the fingerprint and the content of a day that has gone from the log
_WORTH_COUNTING = 1_000_000  # tiles, below which no task can be overfull


class TileDay(NamedTuple):
    """What the ledger says last of a day. ``fingerprint``: of the log's rows or files that its tiles were made from.

    ``content`` : of the tiles themselves; other rows may make the same tiles.
    """

    fingerprint: str
    content: str
    revision: int
    num_events: int
    num_rejected: int

    @property
    def counts(self) -> tuple[int, int]:
        """Events and rejected rows together, and rejected rows; copies of events don't count."""
        return self.num_events + self.num_rejected, self.num_rejected


@dataclass(frozen=True)
class TileLedger:
    """The ledger of days as it is at one moment. ``undated``: of the rows without a readable time."""

    days: dict[date, TileDay]
    undated: TileDay
    _tiles: dict[tuple[date, int], int]

    @property
    def latest(self) -> dict[date, tuple[str, int]]:
        """Day -> (content, revision)."""
        return {day: (of.content, of.revision) for day, of in self.days.items()}

    def num_tiles(self, days: Iterable[tuple[date, int]]) -> int:
        """Count the tiles of some (day, revision)."""
        return sum(self._tiles.get(day, 0) for day in days)


def tile_ledger(tables: Tables) -> TileLedger:
    """Read the ledger of days. Driver memory: one entry a day and revision."""
    of_day = ("fingerprint", "content", "revision", "num_events", "num_rejected")
    rows = sorted(tables.ledger(TILE_DAYS, ("event_date", "num_tiles", *of_day)), key=lambda row: row.revision)
    days = {row.event_date: TileDay(*(row[name] for name in of_day)) for row in rows}
    undated = days.pop(None, TileDay("", "", 0, 0, 0))
    return TileLedger(days, undated, {(row.event_date, row.revision): row.num_tiles for row in rows})


def latest_tile_days(tables: Tables) -> dict[date, tuple[str, int]]:
    """Return day -> (content, revision) of the newest revision of each day."""
    return tile_ledger(tables).latest


def read_tiles(tables: Tables, *, start: date | None, end: date) -> DataFrame:
    """Read the newest revision of the tiles of the days ``[start, end)``; all days before ``end`` without a start.

    The days' revisions are resolved here, once, into a predicate on the partition columns: only their files are read.
    """
    days = {d: r for d, (_, r) in latest_tile_days(tables).items() if d < end and (start is None or d >= start)}
    return rows_of_revisions(tables, days)


def tiles_by_cell(tables: Tables, ledger: TileLedger, days: Collection[tuple[date, int]]) -> NDArray[np.int64]:
    """Count the tiles of some (day, revision) by cell of user buckets; so few that it does not matter, as if even.

    Driver memory: one number for each day and cell.
    """
    if (num_tiles := ledger.num_tiles(days)) < _WORTH_COUNTING:
        return np.full(NUM_CELLS, num_tiles // NUM_CELLS)
    rows = tables.ledger(TILE_DAYS, ("event_date", "revision", "num_tiles_by_cell"))
    by_day = {(row.event_date, row.revision): row.num_tiles_by_cell for row in rows}
    found = np.zeros(NUM_CELLS, np.int64)
    for day in days:
        counts = by_day[day] or {}
        found[list(counts)] += np.array(list(counts.values()), np.int64)
    return found


def rows_of_revisions(tables: Tables, days: Mapping[date, int]) -> DataFrame:
    """Read the tiles of some days, each in the revision that is asked for; only their files are read."""
    return tables.read(USER_ITEM_DAYS).where(_revisions_predicate(days))


def tiles_fingerprint(tables: Tables, *, start: date | None, end: date) -> str:
    """Hash the tiles of the days ``[start, end)``."""
    return days_fingerprint(latest_tile_days(tables), start=start, end=end)


def days_fingerprint(days: dict[date, tuple[str, int]], *, start: date | None, end: date) -> str:
    """Hash the tiles of the days ``[start, end)``, given what ``latest_tile_days`` returns."""
    return short_hash(sorted((d, c) for d, (c, _) in days.items() if d < end and (start is None or d >= start)))


def _revisions_predicate(days: Mapping[date, int]) -> str:
    """Write (day, revision) pairs as ranges of days with one revision."""
    ranges: list[tuple[int, date, date]] = []
    for day in sorted(days):
        revision = days[day]
        if ranges and ranges[-1][0] == revision and ranges[-1][2] + timedelta(days=1) == day:
            ranges[-1] = (revision, ranges[-1][1], day)
        else:
            ranges.append((revision, day, day))
    parts = [f"(revision = {r} AND event_date BETWEEN {sql_date(a)} AND {sql_date(b)})" for r, a, b in ranges]
    return " OR ".join(parts) or "false"
