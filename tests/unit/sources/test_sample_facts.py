"""Facts of a log against plain Python on random rows."""

from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userrep.config import EventSource
from userrep.sources.sample import Sample
from userrep.sources.sample_facts import SampleFacts, sample_facts

pytestmark = pytest.mark.fast

ROW = st.tuples(
    st.sampled_from(["u1", "u2", "u3", " ", None]),
    st.sampled_from(["i1", "i2", "", None]),
    st.one_of(st.none(), st.integers(0, 240).map(lambda hour: datetime(2024, 5, 1) + timedelta(hours=hour))),
    st.sampled_from(["e1", "e2"]),
)


def facts_of(rows: list[Any], **columns: str) -> SampleFacts:
    names = ["user_id", "item_id", "event_at", "event_id"]
    kinds = [pa.string(), pa.string(), pa.timestamp("us"), pa.string()]
    table = pa.table({n: pa.array(v, k) for n, v, k in zip(names, zip(*rows, strict=True), kinds, strict=True)})
    mapped = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at", **columns}
    log = EventSource.model_validate({"path": "log", "columns": mapped})
    return sample_facts(Sample(1, 1, len(rows), True, table, num_unparsable=1), log)


@given(st.lists(ROW, min_size=1, max_size=40))
@settings(deadline=None, max_examples=50)
def test_facts_are_those_of_plain_python(rows: list[Any]) -> None:
    facts = facts_of(rows)
    days = Counter(at.date() for *_, at, _ in rows if at)
    assert facts.rows_by_day == dict(sorted(days.items()))
    users = Counter(user for user, *_ in rows if user and user.strip())
    assert facts.num_users == len(users)
    assert facts.num_items == len({item for _, item, *_ in rows} - {"", None})
    assert sorted(num for _, num in facts.heaviest) == sorted(users.values())
    assert facts.num_duplicates == len(rows) - len(set(rows))
    blank = {
        key: sum(not (row[k] and str(row[k]).strip()) for row in rows) for k, key in enumerate(("user_id", "item_id"))
    }
    blank["event_at"] = sum(at is None for *_, at, _ in rows)
    assert facts.nulls == {f"columns.{key}": num for key, num in blank.items() if num}
    bad = [row for row in rows if not all(value and str(value).strip() for value in row[:3])]
    assert facts.num_rejectable == len(bad) + 1, "and the unparsable line"
    with_ids = facts_of(rows, event_id="event_id")
    assert with_ids.num_duplicates == len(rows) - len({(row[3], row[2] and row[2].date()) for row in rows})


def test_days_without_events_lie_between_the_first_and_the_last() -> None:
    rows = [("u", "i", datetime(2024, 5, day), "e") for day in (1, 2, 5)]
    assert facts_of(rows).days_without_events == [date(2024, 5, 3), date(2024, 5, 4)]
    assert facts_of([("u", "i", None, "e")]).days_without_events == []


def test_columns_that_cannot_be_compared_leave_duplicates_open() -> None:
    table = pa.table({"u": ["a"], "i": ["b"], "t": [datetime(2024, 5, 1)], "tags": [["x"]]})
    log = EventSource.model_validate({"path": "log", "columns": {"user_id": "u", "item_id": "i", "event_at": "t"}})
    assert sample_facts(Sample(1, 1, 1, True, table), log).num_duplicates is None


def facts_of_log(rows: dict[str, Any], columns: dict[str, str], **more: Any) -> SampleFacts:
    mapped = {"user_id": "u", "item_id": "i", "event_at": "t", **columns}
    log = EventSource.model_validate({"path": "log", "columns": mapped, **more})
    table = pa.table(rows)
    return sample_facts(Sample(1, 1, table.num_rows, True, table), log)


def test_ids_are_those_of_a_run() -> None:
    rows = {"u": [69.0, 69.0, 1.5, float("nan")], "i": ["a", " ", "", None], "t": [datetime(2024, 5, 1)] * 4}
    facts = facts_of_log(rows, {})
    assert facts.heaviest == [("69", 2), ("1.5", 1)]
    assert (facts.num_users, facts.num_items) == (2, 1)


@pytest.mark.parametrize(
    ("weights", "num_bad"),
    [
        (["1", " 2.5 ", "1e3", ".5", "-0.0"], 0),
        (["x", "", "-1", "NaN", None], 5),
        ([1.0, 0.0, 2.0, 3.0, 4.0], 0),
        ([-1.0, float("nan"), 1e308, None, 1.0], 4),
        ([1, -1, None, 0, 7], 2),
    ],
)
def test_weights_that_a_run_rejects_are_counted(weights: list[Any], num_bad: int) -> None:
    rows = {"u": ["u"] * 5, "i": ["i"] * 5, "t": [datetime(2024, 5, 1)] * 5, "w": weights}
    assert facts_of_log(rows, {"weight": "w"}).num_rejectable == num_bad


def test_a_blank_event_type_is_a_type_and_a_blank_event_id_is_none() -> None:
    kinds, ids = ["", " ", "view", None], [" ", " ", "e1", "e1"]
    rows = {"u": ["u"] * 4, "i": ["i"] * 4, "t": [datetime(2024, 5, 1)] * 4, "kind": kinds, "id": ids}
    facts = facts_of_log(rows, {"event_type": "kind", "event_id": "id"})
    assert facts.num_rejectable == 1
    assert facts.num_duplicates == 1, "the two rows of e1"
    assert facts.nulls == {"columns.event_type": 3, "columns.event_id": 2}


@pytest.mark.parametrize("holds", ["event_date", "ingestion_date"])
def test_rows_outside_their_partition_are_counted(holds: str) -> None:
    days = ["2024-05-02", "20240502", "2024-05-03", "2024-05-01", "x"]
    rows = {"u": ["u"] * 5, "i": ["i"] * 5, "t": [datetime(2024, 5, 2, 23)] * 5, "dt": days}
    partition = {"column": "dt", "holds": holds} | ({"max_lateness": "1d"} if holds == "ingestion_date" else {})
    facts = facts_of_log(rows, {}, partition=partition)
    assert facts.num_rejectable == (3 if holds == "event_date" else 2)
