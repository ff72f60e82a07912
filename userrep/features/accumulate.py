"""Sums per user over windows: NumPy on Arrow batches, the one place where events become features.

Every sum is exact (vectors are multiples of 2^-16, weights of 2^-8, sums are float64), so that neither the order of
rows nor their split into chunks changes a bit.

Shapes: N rows, U users, R rings, M modalities, E numbers of all modalities' vectors, I items, L days of the longest
window. Ring r < R-1 holds the days that window r has and window r-1 has not; the last ring holds onboarding picks.
"""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse
from numpy.typing import NDArray

from userrep.arrow import listed
from userrep.features.spec import NUM_WEEKDAYS, PARTS_OF_DAY, FeatureSpec

EVENT, PICK, PROFILE = 0, 1, 2  # the kinds of rows that meet in the shuffle by user
EXACT_BELOW = 2.0**29
_NEVER = np.iinfo(np.int64).min
_EPOCH = date(1970, 1, 1)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ItemMatrix:
    """A version's vectors of all modalities side by side; an item without a vector has zeros and no mark."""

    vectors_IE: Floats
    has_IM: Floats
    largest: float


@dataclass(frozen=True)
class Rows:
    """A chunk of the shuffled rows, sorted by user, as arrays."""

    user_ids: list[str]
    user_N: NDArray[np.int64]
    kind_N: NDArray[np.int8]
    day_N: NDArray[np.int64]
    item_N: NDArray[np.int64]  # -1 where the item has no number
    weight_N: Floats
    num_events_N: NDArray[np.int64]
    at_N: NDArray[np.int64]  # microseconds since 1970; _NEVER where unknown
    parts_N4: NDArray[np.int64]
    attributes: pa.ListArray
    context: "Context | None"

    @classmethod
    def of(cls, table: pa.Table) -> "Rows":
        users = table.column("user_id").combine_chunks().dictionary_encode()
        return cls(
            user_ids=users.dictionary.to_pylist(),
            user_N=users.indices.to_numpy().astype(np.int64),
            kind_N=_ints(table, "kind", 0).astype(np.int8),
            day_N=_ints(table, "day", np.iinfo(np.int32).max),
            item_N=_ints(table, "item_index", -1),
            weight_N=table.column("weight").to_numpy(),
            num_events_N=_ints(table, "num_events", 0),
            at_N=_ints(table, "at_us", _NEVER),
            parts_N4=np.stack([_ints(table, f"num_{part}", 0) for part in PARTS_OF_DAY], axis=1),
            attributes=table.column("attributes").combine_chunks(),
            context=Context.of(table) if "num_by_context" in table.column_names else None,
        )


@dataclass(frozen=True)
class Context:
    """The rows' counts by ``column=value``, one entry per row and value."""

    row_C: NDArray[np.int64]
    word_C: NDArray[np.int64]
    count_C: NDArray[np.int64]
    words: list[str]

    @classmethod
    def of(cls, table: pa.Table) -> "Context":
        maps = table.column("num_by_context").combine_chunks()
        offsets = maps.offsets.to_numpy()
        row_C = np.repeat(np.arange(len(maps)), np.diff(offsets))
        keys = maps.keys[offsets[0] : offsets[-1]].dictionary_encode()
        counts = maps.items[offsets[0] : offsets[-1]].to_numpy()
        return cls(row_C, keys.indices.to_numpy().astype(np.int64), counts, keys.dictionary.to_pylist())


@dataclass
class Sums:
    """What is known of U users at one as-of date; ``merge`` adds what another chunk knows of one of them."""

    pooled_URE: Floats
    pooled_weight_URM: Floats
    weight_UR: Floats
    num_events_UR: NDArray[np.int64]
    parts_U4: NDArray[np.int64]
    weekdays_U7: NDArray[np.int64]
    active_UL: NDArray[np.bool_]
    last_at_U: NDArray[np.int64]
    first_day_U: NDArray[np.int64]
    registered_at_U: NDArray[np.int64]
    known_U: NDArray[np.bool_]
    attributes: list[list[str | None] | None] = field(default_factory=list)
    context: list[dict[str, int]] = field(default_factory=list)

    def pick(self, users: slice) -> "Sums":
        """Return some of the users, in arrays of their own."""
        parts: dict[str, Any] = {
            k: v[users].copy() if isinstance(v, np.ndarray) else v[users] for k, v in vars(self).items()
        }
        return Sums(**parts)

    def only_known(self) -> "tuple[Sums, NDArray[np.int64]]":
        """Return the users that are known by the as-of date, and which they are."""
        known = np.flatnonzero(self.known_U)
        parts: dict[str, Any] = {
            k: v[known] if isinstance(v, np.ndarray) else [v[u] for u in known] for k, v in vars(self).items()
        }
        return Sums(**parts), known

    def merge_into_first(self, before: "Sums") -> None:
        """Add an earlier chunk's sums of the user that is first here."""
        for name in ("pooled_URE", "pooled_weight_URM", "weight_UR", "num_events_UR", "parts_U4", "weekdays_U7"):
            getattr(self, name)[0] += getattr(before, name)[0]
        self.active_UL[0] |= before.active_UL[0]
        self.known_U[0] |= before.known_U[0]
        self.last_at_U[0] = max(self.last_at_U[0], before.last_at_U[0])
        self.first_day_U[0] = min(self.first_day_U[0], before.first_day_U[0])
        self.registered_at_U[0] = max(self.registered_at_U[0], before.registered_at_U[0])
        self.attributes[0] = self.attributes[0] or before.attributes[0]
        for word, count in before.context[0].items():
            self.context[0][word] = self.context[0].get(word, 0) + count


def accumulate(rows: Rows, matrix: ItemMatrix, spec: FeatureSpec, as_of: date) -> Sums:
    """Sum a chunk's rows per user and ring, as seen from ``as_of``: events of ``[as_of - w, as_of)``, UTC days.

    Cost: proportional to the chunk's rows x E, in time and memory; no user needs to fit in one chunk.
    """
    num_users, num_rings = len(rows.user_ids), len(spec.windows_days) + 1
    age_N = (as_of - _EPOCH).days - rows.day_N
    is_event_N = (rows.kind_N == EVENT) & (age_N >= 1) & (age_N <= spec.longest)
    is_pick_N = (rows.kind_N == PICK) & (age_N >= 1)
    is_registered_N = (rows.kind_N == PROFILE) & (age_N >= 1)
    ring_N = np.where(is_pick_N, num_rings - 1, np.searchsorted(spec.windows_days, age_N))

    used = np.flatnonzero((is_event_N | is_pick_N) & (rows.item_N >= 0))
    cells = rows.user_N[used] * num_rings + ring_N[used]
    shape = (num_users * num_rings, len(matrix.vectors_IE))
    weights = scipy.sparse.csr_matrix((rows.weight_N[used], (cells, rows.item_N[used])), shape=shape)

    events = np.flatnonzero(is_event_N)
    user, age = rows.user_N[events], age_N[events]
    by_ring = user * num_rings + ring_N[events]
    active_UL = np.zeros((num_users, spec.longest), bool)
    active_UL[user, age - 1] = True
    last_at_U = np.full(num_users, _NEVER)
    np.maximum.at(last_at_U, user, rows.at_N[events])
    first_day_U = np.full(num_users, np.iinfo(np.int64).max)
    np.minimum.at(first_day_U, user, rows.day_N[events])
    registered_at_U = np.full(num_users, _NEVER)
    profiles = np.flatnonzero(is_registered_N)
    np.maximum.at(registered_at_U, rows.user_N[profiles], rows.at_N[profiles])
    known_U = np.zeros(num_users, bool)
    known_U[rows.user_N[is_event_N | is_pick_N | is_registered_N]] = True
    counts = rows.num_events_N[events]
    return Sums(
        pooled_URE=(weights @ matrix.vectors_IE).reshape(num_users, num_rings, -1),
        pooled_weight_URM=(weights @ matrix.has_IM).reshape(num_users, num_rings, -1),
        weight_UR=_sums(by_ring, rows.weight_N[events], num_users, num_rings),
        num_events_UR=_sums(by_ring, counts, num_users, num_rings).astype(np.int64),
        parts_U4=_add_rows(user, rows.parts_N4[events], num_users),
        weekdays_U7=_sums(
            user * NUM_WEEKDAYS + (rows.day_N[events] + 3) % NUM_WEEKDAYS, counts, num_users, NUM_WEEKDAYS
        ).astype(np.int64),
        active_UL=active_UL,
        last_at_U=last_at_U,
        first_day_U=first_day_U,
        registered_at_U=registered_at_U,
        known_U=known_U,
        attributes=_attributes(rows, num_users),
        context=_context(rows, is_event_N, num_users),
    )


def features(sums: Sums, user_ids: list[str], matrix: ItemMatrix, spec: FeatureSpec, as_of: date) -> pa.RecordBatch:
    """Turn sums into rows of ``user_features`` for the users that are known at ``as_of``."""
    sums, known = sums.only_known()
    midnight = (as_of - _EPOCH).days * 86_400_000_000
    columns: dict[str, Any] = {
        "as_of": pa.array([as_of] * len(known), pa.date32()),
        "user_id": pa.array([user_ids[u] for u in known], pa.string()),
    }
    columns |= _pooled_columns(sums, spec)
    for w, window in enumerate(spec.windows_days):
        columns[f"num_events_{window}d"] = sums.num_events_UR[:, : w + 1].sum(axis=1)
        columns[f"weight_{window}d"] = sums.weight_UR[:, : w + 1].sum(axis=1)
        columns[f"num_active_days_{window}d"] = sums.active_UL[:, :window].sum(axis=1).astype(np.int64)
    has_events = sums.last_at_U != _NEVER
    columns["days_since_last_event"] = _days_since(sums.last_at_U, midnight)
    since_first = (as_of - _EPOCH).days - np.where(has_events, sums.first_day_U, 0)
    columns["days_since_first_event"] = pa.array(since_first.astype(np.float64), mask=~has_events)
    if spec.registered_at:
        columns["days_since_registration"] = _days_since(sums.registered_at_U, midnight)
    for name, counts in (
        (f"part_of_day_{spec.longest}d", sums.parts_U4),
        (f"weekday_{spec.longest}d", sums.weekdays_U7),
    ):
        total = counts.sum(axis=1, keepdims=True)
        columns[name] = listed((counts / np.where(total > 0, total, 1)).astype(np.float32))
    if spec.context_column:
        maps = [sorted(words.items()) for words in sums.context]
        columns[spec.context_column] = pa.array(maps, pa.map_(pa.string(), pa.int64()))
    for k, attribute in enumerate(spec.attributes):
        columns[f"attribute_{attribute}"] = pa.array([row[k] if row else None for row in sums.attributes], pa.string())
    bound = sums.weight_UR.sum(axis=1) * matrix.largest
    columns["is_exact"] = pa.array(bound < EXACT_BELOW)
    return pa.RecordBatch.from_pydict(columns)


def _pooled_columns(sums: Sums, spec: FeatureSpec) -> dict[str, Any]:
    """Divide sums by weights: one list column and one presence flag per block."""
    columns: dict[str, Any] = {}
    first = {m: sum(list(spec.modalities.values())[:k]) for k, m in enumerate(spec.modalities)}
    for block in spec.pooled:
        modality = list(spec.modalities).index(block.modality)
        part = slice(first[block.modality], first[block.modality] + block.dim)
        rings = slice(0, spec.windows_days.index(block.window_days) + 1) if block.window_days else slice(-1, None)
        total = sums.pooled_URE[:, rings, part].sum(axis=1)
        weight = sums.pooled_weight_URM[:, rings, modality].sum(axis=1)
        mean = total / np.where(weight > 0, weight, 1)[:, None]
        columns[block.column] = listed(np.where((weight > 0)[:, None], mean, 0).astype(np.float32))
        columns[block.flag] = pa.array(weight > 0)
    return columns


def _attributes(rows: Rows, num_users: int) -> list[list[str | None] | None]:
    """Take each user's last profile row; rows are sorted, so that of several the largest counts."""
    found: list[list[str | None] | None] = [None] * num_users
    profiles = np.flatnonzero(rows.kind_N == PROFILE)
    for row, values in zip(profiles, rows.attributes.take(pa.array(profiles)).to_pylist(), strict=True):
        found[rows.user_N[row]] = values
    return found


def _context(rows: Rows, is_event_N: NDArray[np.bool_], num_users: int) -> list[dict[str, int]]:
    found: list[dict[str, int]] = [{} for _ in range(num_users)]
    if rows.context is None or not rows.context.words:
        return found
    context, num_words = rows.context, len(rows.context.words)
    used = is_event_N[context.row_C]
    cells = rows.user_N[context.row_C[used]] * num_words + context.word_C[used]
    cell, position = np.unique(cells, return_inverse=True)
    totals = np.bincount(position, weights=context.count_C[used]).astype(np.int64)
    for c, total in zip(cell.tolist(), totals.tolist(), strict=True):
        found[c // num_words][context.words[c % num_words]] = total
    return found


def _sums(cells: NDArray[np.int64], values: NDArray[Any], rows: int, columns: int) -> Floats:
    return np.bincount(cells, weights=values, minlength=rows * columns).reshape(rows, columns).astype(np.float64)


def _add_rows(rows: NDArray[np.int64], values: NDArray[np.int64], num_rows: int) -> NDArray[np.int64]:
    return np.stack([np.bincount(rows, weights=v, minlength=num_rows) for v in values.T], axis=1).astype(np.int64)


def _days_since(at_U: NDArray[np.int64], midnight: int) -> pa.Array:
    known = at_U != _NEVER
    return pa.array((midnight - np.where(known, at_U, midnight)) / 86_400_000_000, mask=~known)


def _ints(table: pa.Table, name: str, missing: int) -> NDArray[np.int64]:
    return table.column(name).cast(pa.int64()).fill_null(missing).to_numpy()  # type: ignore[no-any-return]
