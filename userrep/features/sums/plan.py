"""Which tasks a pooling job has: ranges of users, and parts of those by day or by item."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep.store.buckets import power_of_two

ROWS_PER_TASK = 16_000_000  # that many, since a task reads a row group of each file more than its rows fill
_FULL = 3  # a range with that many times the mean of all is taken in parts ...
_FULL_ROWS = 1_000_000  # ... unless it is small all the same


class Task(NamedTuple):
    """A range of user buckets, or of its tiles those of each ``num_parts``-th day and of one part of the items.

    Earlier sums go with the first part of all, profiles with the first part of the days. ``item_part`` None: all items.
    """

    range: int
    part: int = 0
    num_parts: int = 1
    item_part: int | None = None


@dataclass(frozen=True)
class Plan:
    """Ranges of user buckets, equal and a power of two in number; those in ``parts`` are taken in so many parts.

    ``item_parts``: if more than one, every range, or each of its parts, is taken in that many parts by item.
    """

    num_ranges: int
    parts: dict[int, int]
    item_parts: int = 1

    def tasks(self, *, in_parts: bool) -> list[Task]:
        """List the ranges that are taken whole, or the parts of those that are not.

        Parts of the same items follow each other, so that a worker seldom has to read other vectors.
        """
        if not in_parts:
            whole = [number for number in range(self.num_ranges) if number not in self.parts]
            return [Task(number) for number in whole] if self.item_parts == 1 else []
        num_parts = self.parts if self.item_parts == 1 else dict.fromkeys(range(self.num_ranges), 1) | self.parts
        return [
            Task(number, part, num, item_part)
            for item_part in (range(self.item_parts) if self.item_parts > 1 else [None])
            for number, num in num_parts.items()
            for part in range(num)
        ]


def plan_ranges(rows_by_cell: NDArray[np.int64], *, min_ranges: int) -> Plan:
    """Spread rows over tasks. ``rows_by_cell``: rows to be read, by equal cells of user buckets.

    Users are hashed to buckets, so that ranges differ in rows only by users who are far from the mean.
    """
    total, num_cells = int(rows_by_cell.sum()), len(rows_by_cell)
    num_ranges = power_of_two(max(min_ranges, total / ROWS_PER_TASK))
    if num_ranges <= num_cells:
        rows_by_range = rows_by_cell.reshape(num_ranges, -1).sum(axis=1)
    else:
        rows_by_range = np.repeat(rows_by_cell * num_cells / num_ranges, num_ranges // num_cells)
    mean = total / num_ranges
    is_full = (rows_by_range > _FULL * mean) & (rows_by_range > _FULL_ROWS)
    return Plan(num_ranges, {int(k): int(np.ceil(rows_by_range[k] / mean)) for k in np.flatnonzero(is_full)})
