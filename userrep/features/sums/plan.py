"""The tasks of a pooling job: ranges of users, split further by day or by item."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from userrep.store.buckets import power_of_two

ROWS_PER_TASK = 16_000_000  # large, because each task reads up to one row group per file in excess of its rows
_SAMPLE_TASKS = 16  # at least, for a sample of the users; more would each read row groups that others read, too
_SKEW_FACTOR = 3  # a range is skewed if its rows exceed this multiple of the mean ...
_SKEW_ROWS = 1_000_000  # ... and this number


class PoolingTask(NamedTuple):
    """A range of user buckets, or a part of it: the tiles of every ``num_parts``-th day.

    Earlier sums and profiles belong to the first part. With items in parts, there is one such task per part.
    """

    range: int
    part: int = 0
    num_parts: int = 1


class PoolingPlan(NamedTuple):
    """Equal ranges of user buckets, a power of two in number. ``parts``: the divided ranges and their number of parts.

    ``num_wanted``: the first ranges, whose users are pooled. With items in parts, all of them are divided, and each
    task is split further by item.
    """

    num_ranges: int
    parts: dict[int, int]
    num_wanted: int

    @property
    def undivided(self) -> list[PoolingTask]:
        """The tasks for undivided ranges."""
        return [PoolingTask(number) for number in range(self.num_wanted) if number not in self.parts]

    @property
    def divided(self) -> list[PoolingTask]:
        """The tasks for the parts of divided ranges."""
        return [PoolingTask(number, part, num) for number, num in self.parts.items() for part in range(num)]


def plan_ranges(
    rows_by_cell: NDArray[np.int64], *, min_ranges: int, item_parts: int = 1, one_in: int = 1
) -> PoolingPlan:
    """Distribute rows over tasks. ``rows_by_cell``: rows to read, by equal cells of user buckets.

    Users are hashed to buckets, so only very heavy users make ranges differ in size. ``one_in``: pool one in this many
    users, a power of two: those in the lowest buckets.
    """
    total, num_cells = int(rows_by_cell.sum()), len(rows_by_cell)
    num_ranges = power_of_two(max(min_ranges, min(min_ranges, _SAMPLE_TASKS) * one_in, total / ROWS_PER_TASK))
    num_wanted = num_ranges // one_in
    if num_ranges <= num_cells:
        rows_by_range = rows_by_cell.reshape(num_ranges, -1).sum(axis=1)
    else:
        rows_by_range = np.repeat(rows_by_cell * num_cells / num_ranges, num_ranges // num_cells)
    mean = total / num_ranges
    is_skewed = (rows_by_range > _SKEW_FACTOR * mean) & (rows_by_range > _SKEW_ROWS)
    parts = dict.fromkeys(range(num_wanted), 1) if item_parts > 1 else {}
    parts |= {k: math.ceil(rows_by_range[k] / mean) for k in np.flatnonzero(is_skewed[:num_wanted]).tolist()}
    return PoolingPlan(num_ranges, parts, num_wanted)
