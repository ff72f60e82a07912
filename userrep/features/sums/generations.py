"""Stored generations of window sums, and the tiles in which two states of the sums differ.

A generation is a complete state: an as-of date, and the tile revision of each day of all windows.
"""

import bisect
from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from userrep.features.spec import FeatureSpec
from userrep.store.schemas import SUM_GENERATIONS
from userrep.store.tables import Tables

_KEPT = 2  # generations whose rows are kept
TileDays = Mapping[tuple[date, int], tuple[bool, bool]]  # (day, revision): whether it counts in the old and new sums


class Generation(NamedTuple):
    """A complete generation of a lineage's window sums."""

    lineage_id: str
    generation: int
    as_of: date
    valid_from: date
    revision_by_day: dict[date, int]
    num_users: int


def generations(tables: Tables, lineage_id: str) -> list[Generation]:
    """Return a lineage's complete generations of window sums whose rows are kept, oldest first."""
    rows = tables.ledger(SUM_GENERATIONS, Generation._fields, lineage_id=lineage_id)
    return [Generation(*row) for row in sorted(rows, key=lambda row: row.generation)[-_KEPT:]]


def differing_tiles(base: Generation | None, target: Generation, spec: FeatureSpec) -> TileDays:
    """Return the tiles of only one of two states, and those in another ring. ``base`` None: start from no days."""
    old, new = (base.revision_by_day if base else {}).items(), target.revision_by_day.items()
    since = base.as_of if base else target.as_of
    tiles = {}
    for day, revision in sorted(old | new):
        counts = (day, revision) in old, (day, revision) in new
        if not all(counts) or _ring(spec, since, day) != _ring(spec, target.as_of, day):
            tiles[day, revision] = counts
    return tiles


def _ring(spec: FeatureSpec, as_of: date, day: date) -> int:
    """Return the index of the ring that a day is in."""
    return bisect.bisect_left(spec.windows, (as_of - day).days)
