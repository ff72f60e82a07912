"""Labels of sampled users: shares of their items, values of their attributes, and ranges of their activity.

Shapes: N users, I items, L labels, P pairs of a user and an item.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, hstack

from userrep.errors import in_line
from userrep.explanations.item_labels import ItemLabels
from userrep.explanations.sampled_users import SampledUsers
from userrep.features.spec import FeatureSpec
from userrep.store.arrow import combined
from userrep.store.bucket_reader import rows_below
from userrep.store.schemas import USER_ITEM_DAYS
from userrep.store.tables import Keys, Tables
from userrep.tiles.ledger import tile_ledger

ITEMS, ATTRIBUTE, ACTIVITY = "items", "attribute", "activity"  # kinds of labels
_NUM_EVENTS = (0, 1, 3, 10, 30, 100, 300)  # first numbers of the ranges of event counts
_DAYS_AT_A_TIME = 8  # whose tiles are in memory
_DAYS_SINCE = (0, 7, 30, 90, 180, 365)  # first numbers of the ranges of days since the last event


@dataclass(frozen=True)
class UserLabels:
    """How much of each label each user has: a share of the user's items for labels of items, else 0 or 1.

    ``kinds`` has the kind of each label. ``has_items_N``: users without items have no shares of items.
    """

    labels: list[str]
    kinds: list[str]
    share_NL: csr_array
    has_items_N: NDArray[np.bool_]


def label_users(
    tables: Tables, spec: FeatureSpec, users: SampledUsers, as_of: date, items: ItemLabels | None
) -> UserLabels:
    """Label the users by their features and by the items of the longest window before ``as_of``.

    Cost: the row groups of the window's tiles that have the sampled users. Memory: their distinct items with a label,
    and their tiles of some days.
    """
    longest, columns = spec.longest, users.features
    categories = [(f"{name} {{}}", ATTRIBUTE, columns.column(f"attribute_{name}")) for name in spec.attributes]
    num_events = _ranges(columns.column(f"num_events_{longest}d"), _NUM_EVENTS)
    days_since = _ranges(columns.column("days_since_last_event"), _DAYS_SINCE)
    categories += [(f"{{}} events in {longest} days", ACTIVITY, num_events)]
    categories += [("last event {} days ago", ACTIVITY, days_since)]
    names, kinds, parts, has_items_N = list[str](), list[str](), list[csr_array](), np.zeros(len(users), bool)
    if items is not None:
        share_NL, has_items_N = _item_shares(_pairs(tables, spec, users, items, as_of), users, items)
        names, kinds, parts = [*items.labels], [ITEMS] * len(items.labels), [share_NL]
    for template, kind, values in categories:
        texts, has_NL = _one_hot(values.cast(pa.string()))
        names += [template.format(in_line(text)) for text in texts]
        kinds += [kind] * len(texts)
        parts.append(has_NL)
    return UserLabels(names, kinds, csr_array(hstack(parts, format="csr")), has_items_N)


def _pairs(tables: Tables, spec: FeatureSpec, users: SampledUsers, items: ItemLabels, as_of: date) -> pa.Table:
    """Read the distinct items with a label of the users in the longest window: user_id, item_id."""
    revisions = tile_ledger(tables).revisions(as_of - timedelta(days=spec.longest), as_of)
    keys: Keys = [{"event_date": day, "revision": revision} for day, revision in revisions.items()]
    names = ["user_id", "item_id"]
    pairs = pa.table({name: pa.array([], pa.string()) for name in names})
    for start in range(0, len(keys), _DAYS_AT_A_TIME):
        tiles = rows_below(users.limit, tables, USER_ITEM_DAYS, keys[start : start + _DAYS_AT_A_TIME], names)
        tiles = pa.table({name: combined(tiles[name]).cast(pa.string()) for name in names})
        tiles = tiles.filter(pc.is_in(tiles["item_id"], value_set=items.item_ids))
        pairs = pa.concat_tables([pairs, tiles]).group_by(names).aggregate([]).select(names)
    return pairs


def _item_shares(pairs: pa.Table, users: SampledUsers, items: ItemLabels) -> tuple[csr_array, NDArray[np.bool_]]:
    """Return the share of each user's items, among those with a text, that have each label; and who has such items."""
    user_P = pc.index_in(combined(pairs["user_id"]).cast(pa.string()), value_set=users.user_ids)
    item_P = pc.index_in(combined(pairs["item_id"]).cast(pa.string()), value_set=items.item_ids)
    known = pc.and_(user_P.is_valid(), item_P.is_valid())
    user_P, item_P = (index.filter(known).to_numpy().astype(np.int64) for index in (user_P, item_P))
    shape = len(users), len(items.item_ids)
    has_NI = csr_array((np.ones(len(user_P)), (user_P, item_P)), shape=shape)
    num_N = has_NI.sum(axis=1)
    return csr_array(diags_array(1 / np.maximum(num_N, 1)) @ has_NI @ items.has_IL), num_N > 0


def _one_hot(values: pa.Array) -> tuple[list[str], csr_array]:
    """Return the distinct values, sorted, and a matrix of 0 and 1: the value of each user. A null has no 1."""
    distinct = values.unique().drop_null().sort()
    index_N = pc.index_in(values, value_set=distinct)
    row_N = np.flatnonzero(index_N.is_valid().to_numpy(zero_copy_only=False))
    marks = np.ones(len(row_N)), (row_N, index_N.drop_null().to_numpy())
    return distinct.to_pylist(), csr_array(marks, shape=(len(values), len(distinct)))


def _ranges(values: pa.Array, firsts: Sequence[int]) -> pa.Array:
    """Return the range that contains each number, as text such as ``3-9``; null for null."""
    ends = [str(next_ - 1) for next_ in firsts[1:]]
    texts = [first if first == end else f"{first}-{end}" for first, end in zip(map(str, firsts), ends, strict=False)]
    number_N = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    index_N = np.searchsorted(firsts, number_N, "right") - 1
    is_null_N = np.isnan(number_N)
    return pa.array([*texts, f"{firsts[-1]}+"]).take(pa.array(np.maximum(index_N, 0), mask=is_null_N))
