"""Slices of a consumer's labels: new users, heavy users, and the values of user attributes.

Shapes: M labels, U users, A active days of all users.
"""

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from userrep.errors import in_line
from userrep.evaluation.metrics import Ints, Mask
from userrep.evaluation.sampled_rows import row_of_each
from userrep.features.sums.generations import generations
from userrep.store.arrow import combined
from userrep.store.bucket_reader import rows_of_users
from userrep.store.schemas import USER_PROFILES, USER_WINDOW_SUMS
from userrep.store.tables import Keys, Tables
from userrep.tiles.ledger import NO_ROWS, tile_ledger
from userrep.utc import DAY_US, day_number

logger = logging.getLogger(__name__)

NEW_USERS, HEAVY_USERS = "new_users", "heavy_users"
FEW_DAYS = 3  # a user with at most this number of active days is new
SHORT_HISTORY_DAYS = 28  # and so is a user whose first event is at most this number of days old
_HEAVY_SHARE = 0.1  # of the labels, those with the most active days
_MOST_VALUES = 10  # per attribute, the most frequent ones
_ACTIVITY = pa.schema({"user_id": pa.string(), "active_at": pa.list_(pa.int64())})
_VALUES = pa.schema({"user_id": pa.string(), "attributes": pa.list_(pa.string())})


def label_slices(
    tables: Tables, lineage_id: str, attributes: Sequence[str], *, users: pa.StringArray, as_of_M: Ints
) -> dict[str, Mask]:
    """Return the labels of each slice, by its name: which of M labels belong to it.

    ``new_users`` had at most 3 active days before the as-of date, or their first event at most 28 days before it.
    ``heavy_users`` are the tenth of the labels with the most active days, or more if numbers are equal. Active days are
    those of the newest window sums, so a user without an event in the windows is new. Labels of dates up to 28 days
    after the first day of these sums are in neither slice. ``attributes``: names of the values in ``user_profiles``, in
    order; each of the ten most frequent values is a slice such as ``country=France``.

    Parameters
    ----------
    users, as_of_M : user id and as-of date (days since 1970) of each label.

    Cost: the row groups of the window sums and the profiles that may contain the users, a few columns each. Memory:
    those of one file, and the active days of the labels' users.
    """
    slices: dict[str, Mask] = {}
    if known := generations(tables, lineage_id):
        tiles = tile_ledger(tables).contents(known[-1].revision_by_day)
        first_day = min((day for day, (content, _) in tiles.items() if content != NO_ROWS), default=known[-1].as_of)
        is_covered_M = as_of_M - day_number(first_day) > SHORT_HISTORY_DAYS
        if is_covered_M.any():
            keys: Keys = [{"lineage_id": lineage_id, "generation": known[-1].generation}]
            rows = rows_of_users(users.unique(), tables, USER_WINDOW_SUMS, keys, _ACTIVITY.names).cast(_ACTIVITY)
            num_days_M, first_day_M = _activity(rows, users, as_of_M)
            is_new_M = (num_days_M <= FEW_DAYS) | (as_of_M - first_day_M <= SHORT_HISTORY_DAYS)
            least, most = np.quantile(num_days_M[is_covered_M], [0, 1 - _HEAVY_SHARE])
            is_heavy_M = (num_days_M >= most) & (num_days_M > least)  # many may have the same few days
            slices |= {NEW_USERS: is_covered_M & is_new_M, HEAVY_USERS: is_covered_M & is_heavy_M}
        else:
            logger.warning(f"no slices of new and heavy users: the newest window sums begin on {first_day}")
    if attributes:
        profiles = rows_of_users(users.unique(), tables, USER_PROFILES, [{}], _VALUES.names).cast(_VALUES)
        slices |= _by_value(profiles, attributes, users)
    return slices


def _activity(rows: pa.Table, users: pa.StringArray, as_of_M: Ints) -> tuple[Ints, Ints]:
    """Return the number of active days before each label's as-of date, and the first one, or the as-of date if none."""
    days = combined(row_of_each(users, rows)["active_at"])
    label_A, day_A = pc.list_parent_indices(days).to_numpy(), days.flatten().to_numpy() // DAY_US
    is_before_A = day_A < as_of_M[label_A]
    num_days_M = np.bincount(label_A[is_before_A], minlength=len(users)).astype(np.int64)
    first_day_M = as_of_M.copy()
    np.minimum.at(first_day_M, label_A[is_before_A], day_A[is_before_A])
    return num_days_M, first_day_M


def _by_value(profiles: pa.Table, attributes: Sequence[str], users: pa.StringArray) -> dict[str, Mask]:
    values_M = combined(row_of_each(users, profiles)["attributes"])
    if pc.any(pc.not_equal(pc.list_value_length(values_M), len(attributes))).as_py():
        logger.warning("no slices by attribute: the last run had a configuration with other attributes")
        return {}
    slices: dict[str, Mask] = {}
    for k, name in enumerate(attributes):
        value_M = pc.list_element(values_M, k)
        for value, _ in Counter(value_M.drop_null().to_pylist()).most_common(_MOST_VALUES):
            slices[f"{name}={in_line(value)}"] = np.asarray(pc.equal(value_M, value).fill_null(False))
    return slices
