"""Features: against plain Python on random logs, the same bits however rows are cut, no look into the future."""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from userrep.features.layout import exported_form
from userrep.features.spec import FeatureSpec
from userrep.features.sums import plan, pooling
from userrep.features.sums.chunk import PROFILES, SUMS, TILES, Chunk
from userrep.features.sums.item_matrix import ItemMatrix, VectorFiles
from userrep.features.sums.plan import PoolingPlan, plan_ranges
from userrep.features.sums.pooling import OutputRows, PoolingJob, as_chunk_of_sums
from userrep.store.buckets import NUM_BUCKETS, BucketRange
from userrep.store.xxhash import bucket_of

pytestmark = pytest.mark.fast

SPEC = FeatureSpec(
    windows_days=[1, 3],
    history_days=6,
    modalities={"behaviour": 2, "content": 3},
    onboarding=True,
    registered_at=True,
    attributes=["country"],
    context=["device"],
)
AS_OF = date(2024, 3, 10)
DAY = (AS_OF - date(1970, 1, 1)).days
DAY_US = 86_400_000_000
PARTS = ("num_night", "num_morning", "num_afternoon", "num_evening")
USERS = {"a": 7, "b": 7, "c": NUM_BUCKETS // 2, "d": NUM_BUCKETS - 1}  # two of them share a bucket
NUM_ITEMS = 6  # and one that has no vector
ITEM_IDS = pa.array([f"i{k}" for k in range(NUM_ITEMS)])

Row = dict[str, Any]


def vectors_of_items() -> NDArray[np.float64]:
    """Draw vectors of five numbers, each with two marks; some items lack those of one modality."""
    random = np.random.default_rng(5)
    vectors_IE = np.rint(random.standard_normal((NUM_ITEMS, 5)) * 2**16) / 2**16
    has_IM = np.array([[1, 1], [1, 0], [0, 1], [1, 1], [1, 1], [1, 1]], float)
    vectors_IE[:, :2] *= has_IM[:, :1]
    vectors_IE[:, 2:] *= has_IM[:, 1:]
    return np.hstack([vectors_IE, has_IM])


ITEMS_IX = vectors_of_items()
VECTORS = VectorFiles((), largest=float(np.abs(ITEMS_IX[:, :5]).max()))


@pytest.fixture(autouse=True)
def vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give jobs the vectors above, of the items in the range of buckets that they ask for."""
    read = pooling.item_matrices

    def found(versions: Iterable[VectorFiles], spec: FeatureSpec, items: BucketRange) -> dict[VectorFiles, ItemMatrix]:
        if set(versions) != {VECTORS}:
            return read(versions, spec, items)
        bucket_I = bucket_of(ITEM_IDS)
        mine = np.flatnonzero((bucket_I >= items.start) & (bucket_I < items.stop))
        matrix = ItemMatrix.empty(ITEM_IDS.take(pa.array(mine)), ITEMS_IX.shape[1])
        matrix.vectors_IX[matrix.rows_of(ITEM_IDS.take(pa.array(mine)))] = ITEMS_IX[mine]
        return {VECTORS: matrix}

    monkeypatch.setattr(pooling, "item_matrices", found)


def tile(user: str, age: int, item: int, weight: float, hour: int, num_events: int, device: str) -> Row:
    """Build a tile, ``age`` days before the as-of date."""
    return {
        "user_bucket": USERS[user],
        "user_id": user,
        "item_id": f"i{item}",
        "weight": weight,
        "num_events": num_events,
        "last_event_at": (DAY - age) * DAY_US + hour * 3_600_000_000,
        **{part: num_events if hour // 6 == k else 0 for k, part in enumerate(PARTS)},
        "num_by_context": [(f"device={device}", num_events)],
        "day": DAY - age,
        "before": False,
        "after": True,
    }


tiles_of_users = st.lists(
    st.builds(
        tile,
        st.sampled_from("abcd"),
        st.integers(-1, 8),
        st.integers(0, NUM_ITEMS),
        st.integers(0, 2000).map(lambda n: n / 256),
        st.integers(0, 23),
        st.integers(1, 4),
        st.sampled_from(["tv", "phone"]),
    ),
    max_size=40,
)
profiles_of_users = st.dictionaries(
    st.sampled_from("abcd"),
    st.tuples(
        st.one_of(st.none(), st.integers(-1, 5)),
        st.sampled_from(["de", "se", None]),
        st.lists(st.tuples(st.integers(0, NUM_ITEMS), st.integers(-1, 5)), max_size=3),
    ),
)


def profile(user: str, registered_age: int | None, country: str | None, picks: list[tuple[int, int]]) -> Row:
    """Build a profile; ages in days before the as-of date, at noon."""
    return {
        "user_bucket": USERS[user],
        "user_id": user,
        "registered_at": None if registered_age is None else (DAY - registered_age) * DAY_US + DAY_US // 2,
        "attributes": [country],
        "pick_items": [f"i{item}" for item, _ in picks] or None,
        "picked_at": [(DAY - age) * DAY_US + DAY_US // 2 for _, age in picks] or None,
    }


def chunk_of(tiles: Iterable[Row], profiles: Iterable[Row] = (), sums: pa.Table | None = None) -> Chunk:
    """Bring rows into a chunk, sorted by bucket as they come from files."""

    def table(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
        return pa.Table.from_pylist(sorted(rows, key=lambda r: (r["user_bucket"], r["user_id"])), schema=schema)

    return Chunk(table(tiles, TILES), sums if sums is not None else SUMS.empty_table(), table(profiles, PROFILES))


def one_step(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Mark chunks as those of the same users."""
    return [chunk._replace(is_last=k == len(chunks) - 1) for k, chunk in enumerate(chunks)]


def in_steps(chunks: Iterable[Chunk]) -> list[list[Chunk]]:
    """Group chunks by the users that they share."""
    steps: list[list[Chunk]] = [[]]
    for chunk in chunks:
        steps[-1].append(chunk)
        if chunk.is_last:
            steps.append([])
    assert not steps[-1], "the last chunk must end its users"
    return steps[:-1]


def rows_of(made: OutputRows, spec: FeatureSpec = SPEC) -> list[Row]:
    """Return rows as dicts; of features, with a list per block."""
    rows: list[Row] = (exported_form(made.rows, spec) if made.output == "features" else made.rows).to_pylist()
    return rows


def ran(job: PoolingJob, *chunks: Chunk) -> list[Row]:
    """Run a job on one step, by user."""
    rows = [row for made in job.run(one_step(chunks)) for row in rows_of(made, job.spec)]
    assert len({(row["user_id"], row["as_of"]) for row in rows}) == len(rows)
    return sorted(rows, key=lambda row: (row["as_of"], row["user_id"]))


FEATURES = PoolingJob(SPEC, ((AS_OF, VECTORS),), ("features",))


def expected(tiles: list[Row], profiles: list[Row]) -> dict[str, Row]:
    """Compute features row by row, in plain Python."""
    found = {}
    marks = ITEMS_IX[:, 5:]

    def pooled(rows: list[tuple[str, float]], m: int, part: slice) -> tuple[list[float], bool]:
        known = [(int(i[1:]), w) for i, w in rows if int(i[1:]) < NUM_ITEMS and marks[int(i[1:]), m]]
        weight = sum(w for _, w in known)
        total = sum((w * ITEMS_IX[i, part] for i, w in known), np.zeros(part.stop - part.start))
        return (total / weight if weight else np.zeros_like(total)).astype(np.float32).tolist(), weight > 0

    for user in {row["user_id"] for row in [*tiles, *profiles]}:
        history = [row for row in tiles if row["user_id"] == user and DAY - 6 <= row["day"] < DAY]
        events = [row for row in history if row["day"] >= DAY - 3]
        mine = next((row for row in profiles if row["user_id"] == user), None)
        picks = list(zip(mine["pick_items"] or [], mine["picked_at"] or [], strict=True)) if mine else []
        picks = [(item, 1.0) for item, when in picks if when < DAY * DAY_US]
        registered = mine["registered_at"] if mine else None
        registered = registered if registered is not None and registered < DAY * DAY_US else None
        if not events and not picks and registered is None:
            continue
        want: Row = {}
        for m, (modality, part) in enumerate({"behaviour": slice(0, 2), "content": slice(2, 5)}.items()):
            for window in (1, 3, 6):
                rows = [(row["item_id"], row["weight"]) for row in history if row["day"] >= DAY - window]
                want[f"{modality}_{window}d"], want[f"has_{modality}_{window}d"] = pooled(rows, m, part)
            want[f"{modality}_onboarding"], want[f"has_{modality}_onboarding"] = pooled(picks, m, part)
        for window in (1, 3, 6):
            inside = [row for row in history if row["day"] >= DAY - window]
            want[f"num_events_{window}d"] = sum(row["num_events"] for row in inside)
            want[f"weight_{window}d"] = sum(row["weight"] for row in inside)
            want[f"num_active_days_{window}d"] = len({row["day"] for row in inside})
        last = max((row["last_event_at"] for row in events), default=None)
        want["days_since_last_event"] = None if last is None else (DAY * DAY_US - last) / DAY_US
        want["days_since_first_event"] = float(DAY - min(row["day"] for row in events)) if events else None
        want["days_since_registration"] = None if registered is None else (DAY * DAY_US - registered) / DAY_US
        want["attribute_country"] = mine["attributes"][0] if mine else None
        devices: dict[str, int] = {}
        for row in events:
            for key, count in row["num_by_context"]:
                devices[key] = devices.get(key, 0) + count
        want["num_by_context_3d"] = sorted(devices.items())
        found[user] = want
    return found


@given(tiles_of_users, profiles_of_users)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_features_equal_a_plain_recomputation_and_do_not_depend_on_how_rows_are_cut(
    tiles: list[Row], drawn: dict[str, tuple[Any, ...]]
) -> None:
    profiles = [profile(user, *more) for user, more in drawn.items()]
    found = ran(FEATURES, chunk_of(tiles, profiles))
    want = expected(tiles, profiles)
    assert [row["user_id"] for row in found] == sorted(want)
    for row in found:
        for name, value in want[row["user_id"]].items():
            assert row[name] == value, (row["user_id"], name)
    for pieces in (2, 5):
        chunks = [chunk_of(tiles[k::pieces], profiles if k == 0 else []) for k in range(pieces)]
        assert ran(FEATURES, *chunks) == found


def test_a_user_last_active_in_the_history_has_no_features_until_active_again() -> None:
    old = [tile("a", 5, 1, 2.0, 9, 3, "tv"), tile("b", 4, 0, 1.0, 9, 1, "tv"), tile("b", 1, 3, 3.0, 7, 2, "phone")]
    assert [row["user_id"] for row in ran(FEATURES, chunk_of(old))] == ["b"]
    again = [*old, tile("a", 1, 3, 1.0, 9, 1, "phone")]
    found = {row["user_id"]: row for row in ran(FEATURES, chunk_of(again))}["a"]
    assert [found[name] for name in ("num_events_3d", "weight_3d", "num_active_days_3d")] == [1, 1.0, 1]
    assert [found[name] for name in ("num_events_6d", "weight_6d", "num_active_days_6d")] == [4, 3.0, 2]
    mean = (2 * ITEMS_IX[1, :2] + ITEMS_IX[3, :2]) / 3
    assert_allclose(found["behaviour_6d"], mean, rtol=1e-6)
    assert (found["days_since_first_event"], found["num_by_context_3d"]) == (1.0, [("device=phone", 1)])


def test_sums_keep_users_active_only_in_the_history_and_drop_them_after_it() -> None:
    old = [tile("a", 5, 1, 2.0, 9, 3, "tv")]
    kept = [ran(PoolingJob(SPEC, ((day, VECTORS),), ("sums",)), chunk_of(old)) for day in (AS_OF, _after(1), _after(2))]
    assert [[row["user_id"] for row in rows] for rows in kept] == [["a"], ["a"], []]
    assert [len(rows[0]["active_at"]) for rows in kept[:2]] == [1, 1]


@given(tiles_of_users, profiles_of_users)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_history_adds_columns_and_changes_nothing_else(tiles: list[Row], drawn: dict[str, tuple[Any, ...]]) -> None:
    chunk = chunk_of(tiles, [profile(user, *more) for user, more in drawn.items()])
    without = SPEC.model_copy(update={"history_days": None})
    added = {name for name, _ in SPEC.columns()} - {name for name, _ in without.columns()}
    assert added == {
        *("behaviour_6d", "has_behaviour_6d", "content_6d", "has_content_6d"),
        *("num_events_6d", "weight_6d", "num_active_days_6d"),
    }
    rows = [{name: row[name] for name in row if name not in added} for row in ran(FEATURES, chunk)]
    assert rows == ran(PoolingJob(without, ((AS_OF, VECTORS),), ("features",)), chunk)


def test_blocks_of_few_users_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = [tile(user, age, 1, 2.0, 9, 1, "tv") for user in "dcba" for age in (1, 2, 4)]
    before = ran(FEATURES, chunk_of(tiles, [profile("d", 1, "se", [])]))
    monkeypatch.setattr("userrep.features.sums.blocks._BLOCK_BYTES", 1)
    assert ran(FEATURES, chunk_of(tiles, [profile("d", 1, "se", [])])) == before


@given(tiles_of_users, profiles_of_users)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dates_that_share_a_pass_get_the_features_of_separate_passes(
    tiles: list[Row], drawn: dict[str, tuple[Any, ...]]
) -> None:
    chunk = chunk_of(tiles, [profile(user, *more) for user, more in drawn.items()])
    dates = [AS_OF - timedelta(days=k) for k in (4, 2, 1, 0)]
    together = ran(PoolingJob(SPEC, tuple((day, VECTORS) for day in dates), ("features",)), chunk)
    alone = [row for day in dates for row in ran(PoolingJob(SPEC, ((day, VECTORS),), ("features",)), chunk)]
    assert together == alone


# The walk of window sums from day to day


log_changes = st.lists(
    st.tuples(
        st.integers(1, 3),  # days that the as-of date moves on
        st.lists(
            st.builds(tile, st.sampled_from("abcd"), st.just(0), st.integers(0, NUM_ITEMS), st.integers(0, 999).map(
                lambda n: n / 256), st.integers(0, 23), st.integers(1, 3), st.sampled_from(["tv", "phone"])),
            max_size=6,
        ),
        st.lists(st.integers(0, 8), max_size=6),  # how late each of these arrives, in days
        st.booleans(),  # is a day of the past rewritten from nothing
    ),
    min_size=1,
    max_size=12,
)  # fmt: skip


@given(log_changes)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sums_that_move_with_late_and_corrected_days_equal_a_full_rebuild_to_the_bit(
    changes: list[tuple[int, list[Row], list[int], bool]],
) -> None:
    log: dict[int, list[Row]] = {}  # what is known now, by day
    consumed: dict[int, list[Row]] = {}  # what is in the sums
    as_of, sums = AS_OF, pa.Table.from_batches([], schema=SUMS)
    before: date | None = None
    for days_on, new, delays, rewrites in changes:
        as_of += timedelta(days=days_on)
        today = (as_of - date(1970, 1, 1)).days
        for k, row in enumerate(new):
            day = today - 1 - (delays[k] if k < len(delays) else 0)
            moved = {"day": day, "last_event_at": day * DAY_US + row["last_event_at"] % DAY_US}
            log.setdefault(day, []).append(row | moved)
        if rewrites and log:
            del log[max(log)]
        window = range(today - SPEC.span, today)
        after = {day: list(log.get(day, [])) for day in window}
        tiles = []
        for day in {*consumed, *after}:
            same = consumed.get(day) == after.get(day)
            tiles += [r | {"before": True, "after": same} for r in consumed.get(day, [])]
            tiles += [] if same else [r | {"before": False, "after": True} for r in after.get(day, [])]
        changed = tuple(day for day in after if day in consumed and consumed[day] != after[day])
        job = PoolingJob(SPEC, ((as_of, VECTORS),), ("sums",), before=before, changed_days=changed)
        found = ran(job, chunk_of(tiles, sums=sums))
        full = ran(
            PoolingJob(SPEC, ((as_of, VECTORS),), ("sums",)), chunk_of([row for rows in after.values() for row in rows])
        )
        assert found == full
        written = pa.Table.from_pylist(found, schema=_stored()) if found else _stored().empty_table()
        sums, before, consumed = as_chunk_of_sums(written).cast(SUMS), as_of, after
        profiles = [profile("a", 1, "se", [(1, 1)])]
        of_sums = ran(PoolingJob(SPEC, ((as_of, VECTORS),), ("features",), adds_up=True), chunk_of([], profiles, sums))
        of_tiles = ran(features_on(as_of), chunk_of([row for rows in after.values() for row in rows], profiles))
        assert of_sums == of_tiles


def _after(days: int) -> date:
    return AS_OF + timedelta(days=days)


def features_on(as_of: date) -> PoolingJob:
    return PoolingJob(SPEC, ((as_of, VECTORS),), ("features",))


def _stored() -> pa.Schema:
    return pa.schema([("as_of", pa.date32()), *((f.name, f.type) for f in SUMS if f.name != "day")])


# The plan


def test_a_range_that_is_far_fuller_than_the_others_is_taken_in_parts() -> None:
    cells = np.full(256, 100_000)
    cells[17] += 3_000_000
    assert plan_ranges(cells, min_ranges=64) == PoolingPlan(64, {17 // 4: 8}, 64)
    assert plan_ranges(np.full(256, plan.ROWS_PER_TASK // 64), min_ranges=2) == PoolingPlan(4, {}, 4)
    assert plan_ranges(np.zeros(256, np.int64), min_ranges=3) == PoolingPlan(4, {}, 4)


def test_a_sample_has_up_to_16_tasks_on_a_small_log() -> None:
    cells = np.full(256, 100_000)
    cells[3] += 3_000_000
    cells[250] += 3_000_000  # not in the sample
    sampled = plan_ranges(cells, min_ranges=64, one_in=4)
    assert sampled == PoolingPlan(64, {0: 7}, 16)
    assert {task.range for task in [*sampled.undivided, *sampled.divided]} == {*range(16)}
    assert plan_ranges(cells, min_ranges=8, one_in=4) == PoolingPlan(32, {0: 4}, 8)
    in_parts = plan_ranges(np.full(256, 10), min_ranges=2, one_in=2, item_parts=3)
    assert in_parts == PoolingPlan(4, {0: 1, 1: 1}, 2)
    assert plan_ranges(np.zeros(256, np.int64), min_ranges=64, one_in=NUM_BUCKETS).num_wanted == 1
