"""Stored generations of window sums, and the tiles in which two states of the sums differ.

A generation is a complete state: an as-of date, and the tile revision of each day of all windows.
"""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from userrep.features.spec import FeatureSpec
from userrep.store.schemas import SUM_GENERATIONS
from userrep.store.tables import Tables

_KEPT = 2  # generations whose rows are kept


@dataclass(frozen=True)
class Generation:
    """A complete generation of a lineage's window sums."""

    lineage_id: str
    generation: int
    as_of: date
    valid_from: date
    revision_by_day: dict[date, int]
    num_users: int


def generations(tables: Tables, lineage_id: str) -> list[Generation]:
    """Return a lineage's complete generations of window sums whose rows are kept, oldest first."""
    rows = sorted(tables.ledger(SUM_GENERATIONS, lineage_id=lineage_id), key=lambda row: row.generation)[-_KEPT:]
    return [
        Generation(lineage_id, row.generation, row.as_of, row.valid_from, dict(row.revision_by_day), row.num_users)
        for row in rows
    ]


class TileDays(NamedTuple):
    """Tiles of some days, one revision each, and whether they count in the old and in the new sums."""

    revision_by_day: Mapping[date, int]
    before: bool
    after: bool


class TileDifference(NamedTuple):
    """The tiles that differ between two states: those of the old one only, of the new one only, or in another ring."""

    leaving: TileDays
    entering: TileDays
    passing: TileDays

    @classmethod
    def between(cls, base: Generation | None, target: Generation, spec: FeatureSpec) -> "TileDifference":
        """Compare the day revisions and rings of two states. ``base`` None: start from no days."""
        before, after = base.revision_by_day.items() if base else set(), target.revision_by_day.items()
        passing = {
            day: revision
            for day, revision in sorted(before & after)
            if base and _ring(spec, base.as_of, day) != _ring(spec, target.as_of, day)
        }
        return cls(
            leaving=TileDays(dict(sorted(before - after)), before=True, after=False),
            entering=TileDays(dict(sorted(after - before)), before=False, after=True),
            passing=TileDays(passing, before=True, after=True),
        )

    @property
    def tiles(self) -> list[tuple[date, int]]:
        """All (day, revision) pairs to read."""
        return [pair for days in self for pair in days.revision_by_day.items()]


def _ring(spec: FeatureSpec, as_of: date, day: date) -> int:
    """Return the index of the ring that a day is in."""
    return bisect.bisect_left(spec.windows, (as_of - day).days)
