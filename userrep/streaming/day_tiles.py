"""From a user's records of the open days to what the batch's pooling takes: tiles of one event each, and profiles.

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
from userrep.features.sums.chunk import PROFILES, TILES, names_of
from userrep.streaming.records import EVENT, PICK, USER
from userrep.utc import DAY_US

Places = NDArray[np.int64]


class Records:
    """The records of U users: ``user_N`` says whose each is, ``records`` what it is (streaming/records.py)."""

    def __init__(self, lists: pa.ListArray) -> None:
        self.records: pa.StructArray = lists.flatten()
        self.user_N: Places = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy())
        self.kind_N = self.records.field("kind")

    def first_at(self) -> Places:
        """Return the time of each user's first record, in microseconds since 1970."""
        at_N = _micros(self.records.field("at"))
        first_U = np.full(int(self.user_N[-1]) + 1 if len(self.user_N) else 0, np.iinfo(np.int64).max)
        np.minimum.at(first_U, self.user_N, at_N)
        return first_U

    def of_kind(self, kind: str) -> tuple[pa.StructArray, Places]:
        """Return the records of a kind, and whose they are."""
        mine = np.flatnonzero(pc.equal(self.kind_N, kind).to_numpy(zero_copy_only=False))
        return self.records.take(pa.array(mine)), self.user_N[mine]

    def tiles(self, user_ids: pa.Array, bucket_U: NDArray[np.int32], *, context: bool) -> pa.Table:
        """Write each event as a tile, as chunks have them; of copies of an event the last counts."""
        events, user_N = self.of_kind(EVENT)
        at_N = _micros(events.field("at"))
        once = _once(events, user_N, at_N)
        events, user_N, at_N = events.take(pa.array(once)), user_N[once], at_N[once]
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
        names = names_of("tiles", context=context)
        arrays = [pa.array(columns[name]).cast(TILES.field(name).type) for name in names]
        return pa.Table.from_arrays(arrays, names=names)

    def profiles(self, known: pa.Table, user_ids: pa.Array, bucket_U: NDArray[np.int32]) -> pa.Table:
        """Add picks and registrations to what is known of users; what is there already changes nothing.

        Of several registrations the earliest, of several attributes the largest count, as in the batch.
        """
        picks, picker_N = self.of_kind(PICK)
        users, whose_N = self.of_kind(USER)
        if not len(picks) and not len(users):
            return known
        news: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for user, record in zip([*picker_N, *whose_N], [*_as_numbers(picks), *_as_numbers(users)], strict=True):
            news[int(user)].append(record)
        ids = user_ids.take(pa.array(sorted(news)))
        before = {row["user_id"]: row for row in _rows(known.filter(pc.is_in(known.column("user_id"), value_set=ids)))}
        changed = [
            _profile(before.get(user_id, {}), news[user]) | {"user_id": user_id, "user_bucket": int(bucket_U[user])}
            for user, user_id in zip(sorted(news), ids.to_pylist(), strict=True)
        ]
        same = known.filter(pc.invert(pc.is_in(known.column("user_id"), value_set=ids)))
        return pa.concat_tables([same, pa.Table.from_pylist(changed, schema=PROFILES).select(same.column_names)])


def _profile(before: dict[str, Any], news: list[dict[str, Any]]) -> dict[str, Any]:
    picks = set(zip(before.get("picked_at") or [], before.get("pick_items") or [], strict=True))
    picks |= {(record["at"], record["item_id"]) for record in news if record["kind"] == PICK}
    times = [before.get("registered_at"), *(record["registered_at"] for record in news)]
    lists = [before.get("attributes"), *(record["attributes"] for record in news)]
    in_order = sorted(picks)
    return {
        "registered_at": min((at for at in times if at is not None), default=None),
        "attributes": max((texts for texts in lists if texts is not None), key=_order, default=None),
        "pick_items": [item for _, item in in_order],
        "picked_at": [at for at, _ in in_order],
    }


def _order(texts: list[str | None]) -> list[tuple[bool, bytes]]:
    """Compare as Spark does: nulls first, texts by their bytes."""
    return [(text is not None, (text or "").encode()) for text in texts]


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    return table.to_pylist()  # type: ignore[no-any-return]


def _as_numbers(records: pa.StructArray) -> list[dict[str, Any]]:
    """Read records with times as numbers."""
    names = ["kind", "item_id", "attributes"]
    columns = {name: records.field(name) for name in names}
    columns |= {name: pc.cast(records.field(name), pa.int64()) for name in ("at", "registered_at")}
    return _rows(pa.table(columns))


def _once(events: pa.StructArray, user_N: Places, at_N: Places) -> Places:
    """Return the events that are not copies of later ones: of a user, a day and an ``event_id`` the latest counts.

    Of several at the same time the larger by all columns, as in the batch. Events without an id are different events.
    """
    ids = events.field("event_id")
    if ids.null_count == len(ids):
        return np.arange(len(ids))
    codes = ids.dictionary_encode()
    code_N = codes.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    order = np.lexsort((at_N, code_N, at_N // DAY_US, user_N))
    of = [values[order] for values in (user_N, at_N // DAY_US, code_N)]
    differs = np.any([values[1:] != values[:-1] for values in of], axis=0) | (of[2][1:] < 0)
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
    """Make values comparable as Spark orders them: nulls first, NaN last, texts by their bytes, structs by fields."""
    if isinstance(value, dict):
        return [(field is not None, _comparable(field)) for field in value.values()]
    if value is None:
        return 0
    if isinstance(value, float):
        return (True, 0.0) if math.isnan(value) else (False, value)
    return value.encode() if isinstance(value, str) else value


def _counted(words: pa.ListArray) -> pa.MapArray:
    """Write lists of words as maps, each word counted once."""
    words = words.fill_null([]) if words.null_count else words
    flat = words.flatten()
    offsets = pa.array(np.append(0, np.cumsum(words.value_lengths().to_numpy())).astype(np.int32))
    return pa.MapArray.from_arrays(offsets, flat, pa.array(np.ones(len(flat), np.int64)))


def _micros(times: pa.Array) -> Places:
    return times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
