"""From records to tiles and profiles: the same as plain Python makes of them."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.records import RECORD
from userrep.features.sums.chunk import PROFILES
from userrep.streaming.record_tiles import Records

pytestmark = pytest.mark.fast

MIDNIGHT = datetime(2024, 3, 14, tzinfo=UTC)
TIMES = st.sampled_from([MIDNIGHT + timedelta(hours=h) for h in (0, 5.5, 6, 12, 23.99, 24, 30, 42, 47)])
BUCKETS = np.array([3, 5, 9], np.int32)
Record = dict[str, Any]

events = st.builds(
    lambda at, item, weight, words, event_id, note: {
        "kind": "event", "at": at, "item_id": item, "weight": weight, "words": words, "event_id": event_id,
        "raw": {
            "event_id": event_id, "item_id": item, "words": " ".join(words), "weight": weight, "note": note, "at": at,
        },
    },
    TIMES,
    st.sampled_from("ab"),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.lists(st.sampled_from(["device=tv", "device=ö", "os=x"]), unique=True, max_size=2),
    st.sampled_from(["e1", "e2", "e3", None]),
    st.sampled_from([None, "", "é", "z"]),
)  # fmt: skip
picks = st.builds(lambda at, item: {"kind": "pick", "at": at, "item_id": item}, TIMES, st.sampled_from("ab"))
attributes = st.lists(st.sampled_from([None, "", "SE", "é", "z"]), min_size=2, max_size=2)
registrations = st.builds(
    lambda at, registered, texts: {"kind": "user", "at": at, "registered_at": registered, "attributes": texts},
    TIMES,
    st.none() | TIMES,
    st.none() | attributes,
)
sets = st.lists(st.lists(events | picks | registrations, max_size=12), min_size=3, max_size=3)
user_ids = pa.array(["u0", "u1", "u2"])


def records_of(lists: list[list[Record]]) -> Records:
    distinct = [[record for k, record in enumerate(mine) if record not in mine[:k]] for mine in lists]  # a set
    return Records(pa.array(distinct, pa.list_(RECORD)))


def micros(at: datetime | None) -> int | None:
    return None if at is None else (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def in_spark_s_order(value: Any) -> tuple[Any, ...]:
    """Compare nulls as the smallest, texts by their bytes."""
    if value is None:
        return (0,)
    if isinstance(value, dict):
        return (1, *map(in_spark_s_order, value.values()))
    if isinstance(value, list):
        return (1, *map(in_spark_s_order, value))
    return (1, value.encode() if isinstance(value, str) else value)


def counted(mine: list[Record]) -> list[Record]:
    """Keep what counts of one user's events: of an id and a day the latest, then the largest; those without id all."""
    by_id = defaultdict(list)
    for k, record in enumerate(mine):
        if record["kind"] == "event" and record not in mine[:k]:
            by_id[(record["at"].date(), record["event_id"] or f"none {k}")].append(record)
    return [max(copies, key=lambda r: (r["at"], in_spark_s_order(r["raw"]))) for copies in by_id.values()]


def as_tile(user: int, record: Record) -> tuple[Any, ...]:
    at = record["at"]
    parts = [int(at.hour // 6 == part) for part in range(4)]
    words = tuple(sorted(record["words"]))
    day = (at - datetime(1970, 1, 1, tzinfo=UTC)).days
    return (int(BUCKETS[user]), f"u{user}", record["item_id"], record["weight"], micros(at), *parts, words, day)


@settings(deadline=None, max_examples=200)
@given(lists=sets)
def test_each_event_that_is_no_copy_is_a_tile(lists: list[list[Record]]) -> None:
    found = records_of(lists).tiles(user_ids, BUCKETS, context=True)
    parts = ("num_night", "num_morning", "num_afternoon", "num_evening")
    tiles = [
        (
            *(row[name] for name in ("user_bucket", "user_id", "item_id", "weight", "last_event_at", *parts)),
            tuple(sorted(word for word, _ in row["num_by_context"])),
            row["day"],
        )
        for row in found.to_pylist()
    ]
    assert sorted(tiles) == sorted(as_tile(u, r) for u in range(3) for r in counted(lists[u]))
    assert all(row["num_events"] == 1 and row["after"] and not row["before"] for row in found.to_pylist())
    assert all(num == 1 for row in found.to_pylist() for _, num in row["num_by_context"])


@settings(deadline=None, max_examples=50)
@given(lists=sets, seed=st.integers(0, 99))
def test_the_order_of_records_does_not_matter(lists: list[list[Record]], seed: int) -> None:
    shuffled = [random.Random(seed).sample(mine, len(mine)) for mine in lists]
    keys = [("user_id", "ascending"), ("last_event_at", "ascending"), ("item_id", "ascending"), ("weight", "ascending")]
    one, other = (records_of(of).tiles(user_ids, BUCKETS, context=False).sort_by(keys) for of in (lists, shuffled))
    assert one.equals(other)
    assert "num_by_context" not in one.column_names


def known_profiles(rows: list[Record]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=PROFILES)


def expected_profile(before: Record, news: list[Record]) -> Record:
    pairs = {(micros(r["at"]), r["item_id"]) for r in news if r["kind"] == "pick"}
    pairs |= set(zip(before.get("picked_at") or [], before.get("pick_items") or [], strict=True))
    times = [before.get("registered_at"), *(micros(r["registered_at"]) for r in news if r["kind"] == "user")]
    texts = [before.get("attributes"), *(r["attributes"] for r in news if r["kind"] == "user")]
    return {
        "registered_at": min((at for at in times if at is not None), default=None),
        "attributes": max((t for t in texts if t is not None), key=in_spark_s_order, default=None),
        "pick_items": [item for _, item in sorted(pairs)],
        "picked_at": [at for at, _ in sorted(pairs)],
    }


@settings(deadline=None, max_examples=200)
@given(lists=sets, known=attributes, at=TIMES)
def test_profiles_gain_picks_as_sets_the_earliest_registration_and_the_largest_attributes(
    lists: list[list[Record]], known: list[str | None], at: datetime
) -> None:
    before = {"user_bucket": 5, "user_id": "u1", "registered_at": micros(at), "attributes": known,
              "pick_items": ["a"], "picked_at": [micros(at)]}  # fmt: skip
    other = before | {"user_id": "u9", "user_bucket": 11}
    found = records_of(lists).profiles(known_profiles([before, other]), user_ids, BUCKETS)
    expected = {"u9": other}
    for user in range(3):
        was = before if user == 1 else {}
        news = [record for record in lists[user] if record["kind"] != "event"]
        if was or news:
            same = {"user_id": f"u{user}", "user_bucket": int(BUCKETS[user])}
            expected[f"u{user}"] = expected_profile(was, news) | same
    assert {row["user_id"]: row for row in found.to_pylist()} == expected
    assert found.schema == PROFILES


def test_what_is_known_already_changes_nothing() -> None:
    known = known_profiles(
        [{"user_bucket": 3, "user_id": "u0", "registered_at": micros(MIDNIGHT), "attributes": ["SE", None],
          "pick_items": ["a"], "picked_at": [micros(MIDNIGHT)]}]
    )  # fmt: skip
    again = [
        {"kind": "pick", "at": MIDNIGHT, "item_id": "a"},
        {"kind": "user", "at": MIDNIGHT, "registered_at": MIDNIGHT, "attributes": ["SE", None]},
        {"kind": "user", "at": MIDNIGHT, "registered_at": None, "attributes": None},
    ]
    assert records_of([again, [], []]).profiles(known, user_ids, BUCKETS).equals(known)


@pytest.mark.parametrize("kinds", [[], ["event"]])
def test_without_picks_and_registrations_profiles_are_passed_on_as_they_are(kinds: list[str]) -> None:
    known = known_profiles([])
    mine = [{"kind": kind, "at": MIDNIGHT, "item_id": "a", "weight": 1.0, "words": []} for kind in kinds]
    assert records_of([mine, [], []]).profiles(known, user_ids, BUCKETS) is known
