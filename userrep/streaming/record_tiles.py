"""Conversion of users' records of the open days to the inputs of the batch's pooling: tiles and profiles.

Shapes: U users, N records.
"""

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.features.spec import PARTS_OF_DAY
from userrep.features.sums.chunk import PROFILES, schema_of
from userrep.streaming.records import EVENT, PICK
from userrep.utc import DAY_US

Ints = NDArray[np.int64]


class Records:
    """The records of U users (see streaming/records.py). ``user_N`` is the index of each record's user."""

    def __init__(self, lists: pa.ListArray) -> None:
        self.records: pa.StructArray = lists.flatten()
        self.user_N: Ints = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy())
        self.at_N: Ints = _micros(self.records.field("at")).to_numpy(zero_copy_only=False)
        self.is_event_N = pc.equal(self.records.field("kind"), EVENT).to_numpy(zero_copy_only=False)

    def first_at(self) -> Ints:
        """Return the time of each user's first record, in microseconds since 1970 (UTC)."""
        first_U = np.full(int(self.user_N[-1]) + 1 if len(self.user_N) else 0, np.iinfo(np.int64).max)
        np.minimum.at(first_U, self.user_N, self.at_N)
        return first_U

    def tiles(self, user_ids: pa.Array, bucket_U: NDArray[np.int32], *, context: bool) -> pa.Table:
        """Return each event as a tile with the columns of ``Chunk``. Only the last copy of an event is kept."""
        rows = np.flatnonzero(self.is_event_N)
        kept = rows[_last_copies(self.records.take(pa.array(rows)), self.user_N[rows], self.at_N[rows])]
        events, user_N, at_N = self.records.take(pa.array(kept)), self.user_N[kept], self.at_N[kept]
        part_N = at_N % DAY_US // (DAY_US // len(PARTS_OF_DAY))
        columns: dict[str, Any] = {
            "user_bucket": bucket_U[user_N],
            "user_id": user_ids.take(pa.array(user_N)),
            "item_id": events.field("item_id"),
            "weight": events.field("weight"),
            "num_events": np.ones(len(at_N), np.int32),
            "last_event_at": at_N,
            **{f"num_{part}": (part_N == k).astype(np.int32) for k, part in enumerate(PARTS_OF_DAY)},
            "day": (at_N // DAY_US).astype(np.int32),
            "before": np.zeros(len(at_N), np.bool_),
            "after": np.ones(len(at_N), np.bool_),
        }
        if context:
            columns["num_by_context"] = _counted(events.field("words"))
        schema = schema_of("tiles", context=context)
        return pa.table(columns).select(schema.names).cast(schema)

    def profiles(self, known: pa.Table, user_ids: pa.Array, bucket_U: NDArray[np.int32]) -> pa.Table:
        """Merge picks and registrations into the ``known`` profiles of users. Merging is idempotent.

        As in the batch, the earliest of several registrations and the largest of several attribute lists are kept.
        """
        rows = np.flatnonzero(~self.is_event_N)
        if not len(rows):
            return known
        taken = self.records.take(pa.array(rows))
        columns = {name: taken.field(name) for name in ("kind", "item_id", "attributes")}
        columns |= {name: _micros(taken.field(name)) for name in ("at", "registered_at")}
        records_by_user: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for user, record in zip(self.user_N[rows].tolist(), pa.table(columns).to_pylist(), strict=True):
            records_by_user[user].append(record)
        ids = {user: user_ids[user].as_py() for user in records_by_user}
        is_changed = pc.is_in(known.column("user_id"), value_set=pa.array(list(ids.values())))
        before = {row["user_id"]: row for row in known.filter(is_changed).to_pylist()}
        changed = [
            _merged_profile(before.get(ids[user], {}), records)
            | {"user_id": ids[user], "user_bucket": int(bucket_U[user])}
            for user, records in records_by_user.items()
        ]
        unchanged = known.filter(pc.invert(is_changed))
        changed_rows = pa.Table.from_pylist(changed, schema=PROFILES).select(unchanged.column_names)
        return pa.concat_tables([unchanged, changed_rows])


def _merged_profile(before: dict[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    picks = set(zip(before.get("picked_at") or [], before.get("pick_items") or [], strict=True))
    picks |= {(record["at"], record["item_id"]) for record in records if record["kind"] == PICK}
    times = [before.get("registered_at"), *(record["registered_at"] for record in records)]
    lists = [before.get("attributes"), *(record["attributes"] for record in records)]
    in_order = sorted(picks)
    return {
        "registered_at": min((at for at in times if at is not None), default=None),
        "attributes": max((texts for texts in lists if texts is not None), key=_comparable, default=None),
        "pick_items": [item for _, item in in_order],
        "picked_at": [at for at, _ in in_order],
    }


def _last_copies(events: pa.StructArray, user_N: Ints, at_N: Ints) -> Ints:
    """Return the indices of the last event of each user, day and ``event_id``, ascending.

    Ties in time are broken by the largest value of all columns, as in the batch. Events without an id are all kept.
    """
    ids = events.field("event_id")
    if ids.null_count == len(ids):
        return np.arange(len(ids))
    codes = ids.dictionary_encode()
    code_N = codes.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    order = np.lexsort((at_N, code_N, at_N // DAY_US, user_N))
    keys = [values[order] for values in (user_N, at_N // DAY_US, code_N)]
    differs = np.any([values[1:] != values[:-1] for values in keys], axis=0) | (keys[2][1:] < 0)
    starts = np.flatnonzero(np.append(True, differs))
    ends = np.append(starts[1:], len(order))
    kept = order[ends - 1]
    for k in np.flatnonzero(ends - starts > 1):
        group = order[starts[k] : ends[k]]
        tied = group[at_N[group] == at_N[group[-1]]]
        if len(tied) > 1:
            kept[k] = max(tied.tolist(), key=lambda row: _comparable(events.field("raw")[row].as_py()))
    return np.sort(kept)


def _comparable(value: Any) -> Any:
    """Return a sort key in Spark's order: nulls first, NaN last, texts by their bytes, structs and lists by items."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [(item is not None, _comparable(item)) for item in items]
    if value is None:
        return 0
    if isinstance(value, float):
        return (True, 0.0) if math.isnan(value) else (False, value)
    return value.encode() if isinstance(value, str) else value


def _counted(context_keys: pa.ListArray) -> pa.MapArray:
    """Convert lists of context keys to maps from key to the count 1."""
    context_keys = context_keys.fill_null([]) if context_keys.null_count else context_keys
    keys = context_keys.flatten()
    return pa.MapArray.from_arrays(context_keys.offsets, keys, pa.array(np.ones(len(keys), np.int64)))


def _micros(times: pa.Array) -> pa.Array:
    return times.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
