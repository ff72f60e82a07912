"""Stored generations of window sums, and the tiles in which two states of the sums differ.

A generation is a complete state: an as-of date, and the tile revision of each day of all windows.
"""

import bisect
from dataclasses import dataclass
from datetime import date

from userrep.features.spec import FeatureSpec
from userrep.store.schemas import SUM_GENERATIONS
from userrep.store.tables import Tables

_KEPT = 2  # generations whose rows are kept


@dataclass(frozen=True)
class Generation:
    """A complete generation of window sums."""

    generation: int
    as_of: date
    valid_from: date
    revision_by_day: dict[date, int]
    num_users: int


def generations(tables: Tables, lineage_id: str) -> list[Generation]:
    """Return a lineage's complete generations of window sums whose rows are kept, oldest first."""
    rows = sorted(tables.ledger(SUM_GENERATIONS, lineage_id=lineage_id), key=lambda row: row.generation)[-_KEPT:]
    return [Generation(r.generation, r.as_of, r.valid_from, dict(r.revision_by_day), r.num_users) for r in rows]


@dataclass(frozen=True)
class Difference:
    """The tiles that differ between two states, as revisions by day: old only, new only, or in another ring."""

    leaving: dict[date, int]
    entering: dict[date, int]
    passing: dict[date, int]
    changed: tuple[date, ...]

    @classmethod
    def between(cls, base: Generation | None, target: Generation, spec: FeatureSpec) -> "Difference":
        """Compare the day revisions and rings of two states. ``base`` None: start from no days."""
        if base is None:
            return cls({}, target.revision_by_day, {}, ())
        before, after = base.revision_by_day, target.revision_by_day
        passing = {
            day: revision
            for day, revision in after.items()
            if before.get(day) == revision and _ring(spec, base.as_of, day) != _ring(spec, target.as_of, day)
        }
        return cls(
            leaving={day: revision for day, revision in before.items() if after.get(day) != revision},
            entering={day: revision for day, revision in after.items() if before.get(day) != revision},
            passing=passing,
            changed=tuple(sorted(day for day in after if before.get(day, after[day]) != after[day])),
        )

    @property
    def tiles(self) -> list[tuple[date, int]]:
        """All (day, revision) pairs to read."""
        return [*self.leaving.items(), *self.entering.items(), *self.passing.items()]


def _ring(spec: FeatureSpec, as_of: date, day: date) -> int:
    """Return the index of the ring that a day is in."""
    return bisect.bisect_left(spec.windows, (as_of - day).days)
