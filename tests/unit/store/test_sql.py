"""Conditions in SQL, evaluated by DuckDB."""

from datetime import date, timedelta

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile import fuzzed
from userrep.store.sql import sql_any, sql_date, sql_in, sql_key

pytestmark = pytest.mark.fast

NAMES = ["s001-a", "s002_b", "ads"]
DAYS = [date(2024, 2, 28) + timedelta(days=k) for k in range(4)]
ROWS = [(name, day, number) for name in NAMES for day in DAYS for number in (0, 1, 10)]


@pytest.fixture(scope="module")
def table() -> duckdb.DuckDBPyConnection:
    """A table of every combination of three names, four days and three numbers."""
    connection = duckdb.connect()
    connection.execute("CREATE TABLE found (name VARCHAR, as_of DATE, revision INT)")
    connection.executemany("INSERT INTO found VALUES (?, ?, ?)", ROWS)
    return connection


def rows_where(table: duckdb.DuckDBPyConnection, condition: str) -> set[tuple[str, date, int]]:
    return set(table.execute(f"SELECT * FROM found WHERE {condition}").fetchall())


def test_a_date_is_a_literal_with_two_digits_for_month_and_day() -> None:
    assert sql_date(date(2024, 2, 9)) == "DATE'2024-02-09'"


@fuzzed(50)
@given(names=st.lists(st.sampled_from([*NAMES, "absent"])), days=st.lists(st.sampled_from([*DAYS, date(1999, 1, 1)])))
def test_a_list_of_names_or_dates_selects_the_rows_with_one_of_them(
    table: duckdb.DuckDBPyConnection, names: list[str], days: list[date]
) -> None:
    assert rows_where(table, sql_in("name", names)) == {row for row in ROWS if row[0] in names}
    assert rows_where(table, sql_in("as_of", days)) == {row for row in ROWS if row[1] in days}


@fuzzed(50)
@given(row=st.sampled_from(ROWS), columns=st.sets(st.sampled_from(["name", "as_of", "revision"]), min_size=1))
def test_a_key_selects_the_rows_that_have_all_its_values(
    table: duckdb.DuckDBPyConnection, row: tuple[str, date, int], columns: set[str]
) -> None:
    key = {name: value for name, value in zip(("name", "as_of", "revision"), row, strict=True) if name in columns}
    wanted = {
        (name, day, number)
        for name, day, number in ROWS
        if key.items() <= {"name": name, "as_of": day, "revision": number}.items()
    }
    assert rows_where(table, sql_key(key)) == wanted


KEYS = st.dictionaries(st.sampled_from(["name", "as_of", "revision"]), st.none()).flatmap(
    lambda columns: st.fixed_dictionaries(
        {name: st.sampled_from({"name": NAMES, "as_of": DAYS, "revision": [0, 1, 10]}[name]) for name in columns}
    )
)


@fuzzed(50)
@given(keys=st.lists(KEYS, max_size=4))
def test_some_keys_select_the_rows_that_have_all_values_of_any_of_them(
    table: duckdb.DuckDBPyConnection, keys: list[dict[str, str | date | int]]
) -> None:
    rows = (dict(zip(("name", "as_of", "revision"), row, strict=True)) for row in ROWS)
    wanted = {tuple(row.values()) for row in rows if any(key.items() <= row.items() for key in keys)}
    assert rows_where(table, sql_any(keys)) == wanted


def test_keys_that_differ_only_in_a_date_are_one_list() -> None:
    keys = [{"as_of": day, "revision": 2 if day == DAYS[1] else 1} for day in DAYS[:3]]
    assert sql_any(keys) == (
        "((revision = 1 AND as_of IN (DATE'2024-02-28', DATE'2024-03-01'))"
        " OR (revision = 2 AND as_of IN (DATE'2024-02-29')))"
    )
