"""From sums to the columns of stored tables: rows of ``user_features`` and of ``user_window_sums``."""

import itertools
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
from numpy.typing import NDArray

from userrep.arrow import listed
from userrep.features.accumulate import (
    DAY_US,
    EXACT_BELOW,
    NEVER,
    Flags,
    Floats,
    Ints,
    Sums,
    day_number,
    num_sums,
)
from userrep.features.chunk import Block
from userrep.features.spec import PARTS_OF_DAY, FeatureSpec

SUMS_DDL = (
    "as_of DATE, user_bucket INT, user_id STRING, sums BINARY, active_at ARRAY<BIGINT>, "
    "num_by_context MAP<STRING,BIGINT>"
)


class ItemMatrix(NamedTuple):
    """A version's vectors of all modalities side by side, then one mark per modality; zeros where an item has none."""

    item_ids: pa.Array
    vectors_IX: Floats
    largest: float


def sums_batch(sums: Sums, block: Block, spec: FeatureSpec, as_of: date, *, keep_empty: bool) -> pa.RecordBatch:
    """Write sums as rows of ``user_window_sums``.

    ``keep_empty``: also those of users without an event, which parts of a user's sums may be.
    """
    users = slice(None) if keep_empty else _places(np.any(sums.num_events_UR(spec), axis=1))
    flat = np.ascontiguousarray(sums.flat_US[users])
    num_users = len(flat)
    ends = np.arange(num_users + 1, dtype=np.int32) * (8 * num_sums(spec))
    last_at = sums.last_at_before(spec, as_of)[users]
    has_event = last_at != NEVER
    active_ends = np.concatenate([[0], np.cumsum(has_event.sum(axis=1))]).astype(np.int32)
    return pa.RecordBatch.from_pydict(
        {
            "as_of": pa.array(np.full(num_users, day_number(as_of), np.int32)).cast(pa.date32()),
            "user_bucket": block.user_bucket_U[users],
            "user_id": _taken(block.user_ids, users),
            "sums": pa.Array.from_buffers(pa.binary(), num_users, [None, pa.py_buffer(ends), pa.py_buffer(flat)]),
            "active_at": pa.ListArray.from_arrays(pa.array(active_ends), pa.array(last_at[has_event])),
            "num_by_context": _maps(sums.context_UK[users], block.words),
        }
    )


def features_batch(
    sums: Sums, block: Block, matrix: ItemMatrix, spec: FeatureSpec, as_of: date, *, item_P: Ints
) -> pa.RecordBatch:
    """Write sums, profiles and picks as rows of ``user_features``, for the users that are known at ``as_of``.

    ``item_P``: each pick's row of the matrix. Known is who has an event in the longest window, or has registered or
    picked something before the as-of date.
    """
    midnight = day_number(as_of) * DAY_US
    picks_UX, has_pick_U = _picks(block, matrix, midnight, item_P)
    registered_at_U = np.where(block.profiles.registered_at_U < midnight, block.profiles.registered_at_U, NEVER)
    has_events_U = sums.num_events_UR(spec).any(axis=1)
    users = _places(has_events_U | has_pick_U | (registered_at_U != NEVER))
    last_at = sums.last_at_before(spec, as_of)[users]
    columns: dict[str, Any] = {
        "as_of": pa.array(np.full(len(last_at), day_number(as_of), np.int32)).cast(pa.date32()),
        "user_id": _taken(block.user_ids, users),
    }
    columns |= _pooled(sums.pooled_URX(spec)[users], picks_UX[users], spec)
    for w, window in enumerate(spec.windows_days):
        columns[f"num_events_{window}d"] = sums.num_events_UR(spec)[users, : w + 1].sum(axis=1).astype(np.int64)
        columns[f"weight_{window}d"] = sums.weight_UR(spec)[users, : w + 1].sum(axis=1)
        columns[f"num_active_days_{window}d"] = (last_at[:, -window:] != NEVER).sum(axis=1)
    columns["days_since_last_event"] = _days_since(last_at.max(axis=1), midnight)
    is_active = last_at != NEVER
    since_first = spec.longest - np.where(is_active.any(axis=1), is_active.argmax(axis=1), 0)
    columns["days_since_first_event"] = pa.array(since_first.astype(np.float64), mask=~is_active.any(axis=1))
    if spec.registered_at:
        columns["days_since_registration"] = _days_since(registered_at_U[users], midnight)
    shares = sums.counts_US(spec)[users, 2 * len(spec.windows_days) :]
    for name, counts in zip(spec.shares, np.split(shares, [len(PARTS_OF_DAY)], axis=1), strict=True):
        total = counts.sum(axis=1, keepdims=True)
        columns[name] = listed((counts / np.where(total > 0, total, 1)).astype(np.float32))
    if spec.context_column:
        columns[spec.context_column] = _maps(sums.context_UK[users], block.words)
    row_U = block.profiles.row_U[users]
    mine = block.profiles.attributes.take(pa.array(row_U, mask=row_U < 0))
    for k, attribute in enumerate(spec.attributes):
        columns[f"attribute_{attribute}"] = pc.list_element(mine, k)
    bound = (
        sums.weight_UR(spec)[users].sum(axis=1)
        + np.bincount(block.profiles.pick_user_P, minlength=len(block.user_ids))[users]
    ) * matrix.largest
    columns["is_exact"] = pa.array(bound < EXACT_BELOW)
    return pa.RecordBatch.from_pydict(columns)


def _picks(block: Block, matrix: ItemMatrix, midnight: int, item_P: Ints) -> tuple[Floats, Flags]:
    """Sum the vectors of the items that were picked before midnight; say who has picked anything."""
    num_users, profiles = len(block.user_ids), block.profiles
    in_time = np.flatnonzero(profiles.picked_at_P < midnight)
    has_pick_U = np.zeros(num_users, bool)
    has_pick_U[profiles.pick_user_P[in_time]] = True
    used = in_time[item_P[in_time] >= 0]
    entries = (np.ones(len(used)), (profiles.pick_user_P[used], item_P[used]))
    if not len(used):
        return np.zeros((num_users, matrix.vectors_IX.shape[1])), has_pick_U
    picked = scipy.sparse.csr_matrix(entries, shape=(num_users, len(matrix.vectors_IX)))
    return picked @ matrix.vectors_IX, has_pick_U


def _pooled(pooled_URX: Floats, picks_UX: Floats, spec: FeatureSpec) -> dict[str, Any]:
    """Divide sums by weights: one list column and one presence flag per block."""
    columns: dict[str, Any] = {}
    by_window = list(itertools.accumulate(pooled_URX[:, ring] for ring in range(pooled_URX.shape[1])))
    num_vectors = pooled_URX.shape[2] - len(spec.modalities)
    start = 0
    for m, (modality, dim) in enumerate(spec.modalities.items()):
        for block in (block for block in spec.pooled if block.modality == modality):
            sums_UX = by_window[spec.windows_days.index(block.window_days)] if block.window_days else picks_UX
            weight_U1 = sums_UX[:, num_vectors + m, None]
            mean = sums_UX[:, start : start + dim] / np.where(weight_U1 > 0, weight_U1, 1)  # no weight: sums are 0
            columns[block.column] = listed(mean.astype(np.float32))
            columns[block.flag] = pa.array(weight_U1[:, 0] > 0)
        start += dim
    return columns


def _maps(counts_UK: scipy.sparse.csr_array, words: pa.Array) -> pa.Array:
    """Write counts as maps, keys in the order of words."""
    counts_UK.sort_indices()
    keys = words.take(pa.array(counts_UK.indices))
    return pa.MapArray.from_arrays(pa.array(counts_UK.indptr.astype(np.int32)), keys, pa.array(counts_UK.data))


def _places(is_wanted_U: Flags) -> slice | NDArray[np.intp]:
    """Return which users are wanted; a slice if all are, so that nothing needs to be copied."""
    return slice(None) if is_wanted_U.all() else np.flatnonzero(is_wanted_U)


def _taken(values: pa.Array, users: slice | NDArray[np.intp]) -> pa.Array:
    return values if isinstance(users, slice) else values.take(pa.array(users))


def _days_since(at_U: Ints, midnight: int) -> pa.Array:
    known = at_U != NEVER
    return pa.array((midnight - np.where(known, at_U, midnight)) / DAY_US, mask=~known)
