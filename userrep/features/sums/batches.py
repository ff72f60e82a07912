"""Sums as Arrow rows of the stored tables ``user_features``, ``user_window_sums`` and ``user_openings``."""

import itertools
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
from numpy.typing import NDArray

from userrep.features.spec import PARTS_OF_DAY, POOLED, FeatureSpec
from userrep.features.sums.accumulate import EXACT_BELOW, NEVER, Floats, Ints, Sums
from userrep.features.sums.blocks import UserBlock
from userrep.features.sums.item_matrix import ItemMatrix
from userrep.items.vectors import slices_of
from userrep.store.arrow import listed, packed
from userrep.utc import DAY_US, day_number

Users = NDArray[np.intp]  # the selected users of a block
SUMS_DDL = (
    "as_of DATE, user_bucket INT, user_id STRING, sums BINARY, active_at ARRAY<BIGINT>, "
    "num_by_context MAP<STRING,BIGINT>"
)


def sums_batch(sums: Sums, block: UserBlock, spec: FeatureSpec, as_of: date, *, is_part: bool) -> pa.RecordBatch:
    """Return sums as rows of ``user_window_sums``.

    ``is_part``: the rows are partial sums. These include users without events, and the sums of picks if there are any.
    """
    users = np.flatnonzero(np.any(sums.views(spec).num_events_UR, axis=1) | is_part)
    flat_US = sums.flat_US[users]
    if is_part and sums.picks_UX is not None:
        flat_US = np.hstack([flat_US, sums.picks_UX])
    columns = _stored_sums(sums, block, spec, as_of, users=users, flat_US=flat_US)
    return pa.RecordBatch.from_pydict({"as_of": _dates(as_of, len(flat_US)), **columns})


def stream_base_batch(sums: Sums, block: UserBlock, spec: FeatureSpec, as_of: date) -> pa.RecordBatch:
    """Return sums and profiles as rows of ``user_openings``, for users with an event in the sums or a profile.

    Users without an event have empty bytes instead of sums.
    """
    has_events_U = np.any(sums.views(spec).num_events_UR, axis=1)
    users = np.flatnonzero(has_events_U | block.profiles.is_stored_U)
    columns = _stored_sums(sums, block, spec, as_of, users=users, flat_US=sums.flat_US[users])
    columns["sums"] = pc.if_else(pa.array(has_events_U[users]), columns["sums"], b"")
    profiles = block.profiles.by_user.take(pa.array(users))
    columns["registered_at"] = profiles.column("registered_at").cast(pa.timestamp("us", "UTC"))
    columns |= {name: profiles.column(name) for name in ("attributes", "pick_items", "picked_at")}
    return pa.RecordBatch.from_pydict(columns)


def _stored_sums(
    sums: Sums, block: UserBlock, spec: FeatureSpec, as_of: date, *, users: Users, flat_US: Floats
) -> dict[str, Any]:
    """Return the columns that all stored sums share. ``flat_US``: the sums of ``users``."""
    return {
        "user_bucket": block.user_bucket_U[users],
        "user_id": block.user_ids.take(pa.array(users)),
        "sums": packed(flat_US, "<f8"),
        "active_at": _active_at(sums.last_at_before(spec, as_of)[users]),
        "num_by_context": _maps(sums.context_UK[users], block.context_keys),
    }


def features_batch(sums: Sums, block: UserBlock, spec: FeatureSpec, as_of: date, *, largest: float) -> pa.RecordBatch:
    """Return sums, profiles and picks as rows of ``user_features``, for the users known at ``as_of``.

    A user is known if there is an event in the longest window, or a registration or pick before the as-of date. Events
    in the history window alone do not count. ``sums`` include those of the picks. ``largest``: the largest absolute
    component of all vectors, used to bound the sums for ``is_exact``.
    """
    assert sums.picks_UX is not None
    midnight, profiles = day_number(as_of) * DAY_US, block.profiles
    is_known_U = np.any(sums.views(spec).num_events_UR[:, : len(spec.windows_days)], axis=1)
    is_known_U[profiles.pick_user_P[profiles.picked_at_P < midnight]] = True
    registered_at_U = np.where(profiles.registered_at_U < midnight, profiles.registered_at_U, NEVER)
    users = np.flatnonzero(is_known_U | (registered_at_U != NEVER))
    pooled_URX, weight_UR, num_events_UR, shares_US = (view[users] for view in sums.views(spec))
    pooled_UP, flags = _pooled(pooled_URX, sums.picks_UX[users], spec)
    columns: dict[str, Any] = {"as_of": _dates(as_of, len(users)), "user_id": block.user_ids.take(pa.array(users))}
    columns |= {POOLED: packed(pooled_UP), **flags}
    last_at_UT = sums.last_at_before(spec, as_of)[users]
    columns |= _counts_and_recency(num_events_UR, weight_UR, last_at_UT, spec, midnight)
    if spec.registered_at:
        columns["days_since_registration"] = _days_since(registered_at_U[users], midnight)
    for name, counts in zip(spec.shares, np.split(shares_US, [len(PARTS_OF_DAY)], axis=1), strict=True):
        total = counts.sum(axis=1, keepdims=True)
        columns[name] = listed((counts / np.where(total > 0, total, 1)).astype(np.float32))
    if spec.context_column:
        columns[spec.context_column] = _maps(sums.context_UK[users], block.context_keys)
    attributes = profiles.by_user.column("attributes").take(pa.array(users))
    for k, attribute in enumerate(spec.attributes):
        columns[f"attribute_{attribute}"] = pc.list_element(attributes, k)
    num_picks_U = np.bincount(profiles.pick_user_P, minlength=len(block.user_ids))
    bound = (weight_UR.sum(axis=1) + num_picks_U[users]) * largest
    columns["is_exact"] = pa.array(bound < EXACT_BELOW)
    return pa.RecordBatch.from_pydict(columns)


def _counts_and_recency(
    num_events_UR: Floats, weight_UR: Floats, last_at_UT: Ints, spec: FeatureSpec, midnight: int
) -> dict[str, Any]:
    """Return the counts of each window, and the days since the last and first event of the longest window."""
    columns: dict[str, Any] = {}
    for w, window in enumerate(spec.windows):
        columns[f"num_events_{window}d"] = num_events_UR[:, : w + 1].sum(axis=1).astype(np.int64)
        columns[f"weight_{window}d"] = weight_UR[:, : w + 1].sum(axis=1)
        columns[f"num_active_days_{window}d"] = (last_at_UT[:, -window:] != NEVER).sum(axis=1)
    recent_at_UT = last_at_UT[:, -spec.longest :]
    columns["days_since_last_event"] = _days_since(recent_at_UT.max(axis=1), midnight)
    is_active_UT = recent_at_UT != NEVER
    days_since_first = (spec.longest - is_active_UT.argmax(axis=1)).astype(np.float64)
    columns["days_since_first_event"] = pa.array(days_since_first, mask=~is_active_UT.any(axis=1))
    return columns


def summed_picks(block: UserBlock, matrix: ItemMatrix, as_of: date) -> Floats:
    """Sum per user the vectors of the items that were picked before ``as_of`` and are in the matrix."""
    num_users, profiles, item_P = len(block.user_ids), block.profiles, block.profiles.pick_items.rows_in(matrix)
    used = np.flatnonzero((profiles.picked_at_P < day_number(as_of) * DAY_US) & (item_P >= 0))
    entries = (np.ones(len(used)), (profiles.pick_user_P[used], item_P[used]))
    picked = scipy.sparse.csr_matrix(entries, shape=(num_users, len(matrix.vectors_IX)))
    return np.asarray(picked @ matrix.vectors_IX)


def _pooled(
    pooled_URX: Floats, picks_UX: Floats, spec: FeatureSpec
) -> tuple[NDArray[np.float32], dict[str, pa.BooleanArray]]:
    """Divide sums by weights. Returns the mean vectors of all blocks side by side, and a presence flag per block."""
    pooled_UP, flags = np.empty((len(picks_UX), spec.pooled_width), np.float32), {}
    by_window = list(itertools.accumulate(pooled_URX[:, ring] for ring in range(pooled_URX.shape[1])))
    modalities, parts = list(spec.modalities), slices_of(spec.modalities)
    targets = slices_of({block.column: block.dim for block in spec.pooled})
    for block in spec.pooled:
        sums_UX = by_window[spec.windows.index(block.window_days)] if block.window_days else picks_UX
        weight_U = sums_UX[:, modalities.index(block.modality) - len(modalities)]
        weighted_UX = sums_UX[:, parts[block.modality]]
        divisor_U = np.where(weight_U > 0, weight_U, 1)  # without weight, the sums are 0
        pooled_UP[:, targets[block.column]] = weighted_UX / divisor_U[:, None]
        flags[block.flag] = pa.array(weight_U > 0)
    return pooled_UP, flags


def _active_at(last_at_UT: Ints) -> pa.ListArray:
    """Return the times of the last events of the days with events, as one list per user."""
    has_event = last_at_UT != NEVER
    ends = np.concatenate([[0], np.cumsum(has_event.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(last_at_UT[has_event]))


def _dates(as_of: date, num_rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(as_of, pa.date32()), num_rows)


def _maps(counts_UK: scipy.sparse.csr_array, context_keys: pa.Array) -> pa.Array:
    """Return counts as maps, with keys in the order of ``context_keys``."""
    counts_UK.sort_indices()
    keys = context_keys.take(pa.array(counts_UK.indices))
    return pa.MapArray.from_arrays(pa.array(counts_UK.indptr.astype(np.int32)), keys, pa.array(counts_UK.data))


def _days_since(at_U: Ints, midnight: int) -> pa.Array:
    known = at_U != NEVER
    return pa.array((midnight - np.where(known, at_U, midnight)) / DAY_US, mask=~known)
