"""pandas labels: which types they may have, what is cast and what is refused, and what a join adds to them."""

import warnings
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.support.embedding_tables import add_spaces, publish, snapshot
from userrep.client.frames import join_frame, label_keys, label_table, listed_ids
from userrep.errors import UsageError
from userrep.joins.ledger import usable_sources
from userrep.joins.options import JoinOptions
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.fast

DAY, NOON = date(2024, 5, 1), datetime(2024, 5, 1, 12)


def labels(users: Any, times: Any = NOON) -> pd.DataFrame:
    return pd.DataFrame({"user_id": users, "label_at": times})


def faults(frame: pd.DataFrame, **options: Any) -> list[str]:
    with pytest.raises(UsageError) as caught:
        label_keys(frame, JoinOptions(**options))
    return list(caught.value.faults)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Stockholm", "America/New_York"])
def test_times_without_a_zone_are_utc_and_others_are_converted(zone: str | None, unit: str) -> None:
    times = pd.Series([NOON, None]).dt.tz_localize("UTC")
    times = (times.dt.tz_convert(zone) if zone else times.dt.tz_localize(None)).dt.as_unit(unit)
    found = label_keys(labels(["u", "u"], times), JoinOptions())["label_at"]
    assert found.type == pa.timestamp("us", "UTC")
    assert found.to_pylist() == [NOON.replace(tzinfo=UTC), None]


@pytest.mark.parametrize("time", [DAY, datetime(2024, 5, 1), datetime(2024, 5, 1, tzinfo=UTC)])
def test_objects_are_times_too_and_a_date_is_its_midnight(time: date) -> None:
    times = pd.Series([time, None], dtype="object")
    found = label_keys(labels(["u", "u"], times), JoinOptions())["label_at"]
    assert found.to_pylist() == [datetime(2024, 5, 1, tzinfo=UTC), None]


@pytest.mark.parametrize("order", [1, -1])
def test_dates_and_times_in_one_column_are_refused_in_any_order(order: int) -> None:
    mixed = pd.Series([DAY, NOON][::order], dtype="object")
    assert "has values of several types" in faults(labels(["u", "u"], mixed))[0]


@pytest.mark.parametrize("kind", ["object", "string", "category", pd.ArrowDtype(pa.string())])
def test_every_text_type_of_pandas_is_taken_as_it_is(kind: Any) -> None:
    with warnings.catch_warnings(action="error"):
        found = label_keys(labels(pd.Series(["u1", None], dtype=kind)), JoinOptions())["user_id"]
    assert (found.type, found.to_pylist()) == (pa.string(), ["u1", None])


@pytest.mark.parametrize("kind", ["int64", "Int32", "category"])
def test_whole_numbers_are_cast_to_string_with_a_warning(kind: str) -> None:
    with pytest.warns(UserWarning, match="labels: column 'user_id' has whole numbers, which are cast to string"):
        found = label_keys(labels(pd.Series([12, 7], dtype=kind)), JoinOptions())["user_id"]
    assert found.to_pylist() == ["12", "7"]


def test_other_types_are_refused_with_a_cure_and_all_at_once() -> None:
    wrong = labels([1.0, 2.0], "2024-05-01").assign(as_of=1)
    assert faults(wrong, vectors="vector") == [
        "labels: column 'as_of' already exists, and the join adds a column of that name. Rename or drop it.",
        "vectors: 'vector' is a type of Spark ML, and these labels are a pandas DataFrame. Leave the option out.",
        "labels: column 'user_id' must be of type string, got float64 (double). "
        "Convert whole numbers with astype('Int64').",
        "labels: column 'label_at' must be of type timestamp, got object (string). "
        "Convert it with pandas.to_datetime(column, utc=True).",
    ]
    (mixed,) = faults(labels(["a", 1]))
    assert mixed.startswith("labels: column 'user_id' has values of several types (")
    (missing,) = faults(labels(["a"]), time="at")
    assert missing == "labels: exactly one column must be named 'at', got the columns user_id, label_at."
    twice = pd.concat([labels(["a"]), labels(["a"])], axis=1)
    assert len(faults(twice)) == 2


def test_a_join_keeps_index_order_and_columns_and_adds_float32_arrays(tmp_path: Path) -> None:
    tables = FileTables(None, str(tmp_path))
    add_spaces(tables, "s001-a")
    publish(tables, {snapshot(DAY): {"u1": [0.5, 1.0], "u2": [2.0, 3.0]}})
    given = labels(["u2", "new", "u1", None]).set_axis([7, 7, 3, 1]).assign(y=pd.Categorical(["a", "b", "a", "b"]))
    before, sources = given.copy(), usable_sources(tables, "s001-a")
    found = join_frame(given, tables=tables, sources=sources, options=JoinOptions())
    pd.testing.assert_frame_equal(given, before)
    pd.testing.assert_frame_equal(found[given.columns], before)
    assert list(found.columns[3:]) == ["snapshot_id", "as_of", "embedding", "embedding_status"]
    assert found["embedding"].iloc[0].dtype == np.float32
    assert [None if v is None else v.tolist() for v in found["embedding"]] == [[2.0, 3.0], None, [0.5, 1.0], None]
    assert found["as_of"].tolist() == [DAY] * 4
    kept = join_frame(given, tables=tables, sources=sources, options=JoinOptions(handle_invalid="skip"))
    assert (kept.index.tolist(), kept["y"].tolist()) == ([7, 3], ["a", "a"])
    none = join_frame(given[:0], tables=tables, sources=sources, options=JoinOptions())
    assert (len(none), list(none.columns)) == (0, list(found.columns))


def test_columns_that_spark_could_not_tell_apart_are_not_written() -> None:
    with pytest.raises(UsageError) as caught:
        label_table(labels(["u"]).assign(AS_OF=1, Plan=1, plan=1), JoinOptions())
    assert caught.value.faults == [
        "labels: column 'AS_OF' is the same to Spark as a column that the join adds. Rename or drop it.",
        "labels: column 'Plan' is the same to Spark as another column. Rename or drop it.",
        "labels: column 'plan' is the same to Spark as another column. Rename or drop it.",
    ]


def test_the_cure_for_times_depends_on_their_type() -> None:
    (numbers,) = faults(labels(["a"]).assign(label_at=[1_716_000_000]))
    assert numbers.endswith(
        "Convert it with pandas.to_datetime(column, unit='s', utc=True), with the unit of the numbers."
    )
    (periods,) = faults(labels(["a"]).assign(label_at=pd.period_range("2024-05-01", periods=1)))
    assert periods.endswith("Convert it with column.dt.to_timestamp().")


@pytest.mark.parametrize("ids", [None, 3, b"u1"])
def test_ids_must_be_several(ids: Any) -> None:
    with pytest.raises(UsageError, match="seeds: expected a list, a Series or a file of ids, got"):
        listed_ids(ids, "seeds")
