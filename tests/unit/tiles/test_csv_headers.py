"""CSV files whose header names the log's columns in another order are refused before any row is read."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.support.builders import config_of
from userrep.errors import UsageError
from userrep.store.open import open_tables
from userrep.tiles.inventory.csv_headers import _first_difference, _is_named
from userrep.tiles.inventory.inventory import take_inventory

pytestmark = pytest.mark.default

HEADER = "user_id,item_id,event_at,x"


@pytest.mark.parametrize(
    ("name", "expected", "is_named"),
    [
        ("user_id", "user_id", True),
        ("USER_ID", "user_id", True),
        ("", "_c2", True),
        ("x", "x2", True),  # a name that the header repeats
        ("x", "x1", False),
        ("user_id", "item_id", False),
    ],
)
def test_names_agree_as_spark_names_columns(name: str, expected: str, is_named: bool) -> None:
    assert _is_named(name, expected, 3) is is_named


@pytest.mark.parametrize(
    ("header", "difference"),
    [
        ("a,b", []),
        ("\ufeffa,b", []),
        ("\n\r\na,b\r", []),
        ('"a","b"', []),
        ("a", []),
        ("a,b,new", []),
        ("a,b,day", []),
        ("1,2", [(1, "1", "a")]),  # a row instead of a header
        ("b,a", [(1, "b", "a")]),
        ("a,new,b", [(2, "new", "b")]),
    ],
)
def test_a_file_may_lack_the_last_columns_or_have_more(
    tmp_path: Path, header: str, difference: list[tuple[int, str, str]]
) -> None:
    path = tmp_path / "day=1" / "a.csv"
    path.parent.mkdir()
    path.write_text(f"{header}\n1,2\n", encoding="utf-8")
    found = list(_first_difference(str(path), ["a", "b", "day"]))
    assert [(row["place"], row["name"], row["expected"]) for row in found] == difference


def test_a_file_with_another_order_of_columns_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    config = config_of(tmp_path, events={"format": "csv"})
    tables, log = open_tables(config, spark), tmp_path / "events"
    log.mkdir()
    (log / "1.csv").write_text(f"{HEADER}\nu,i,2024-05-01,1\n")
    (log / "2.csv").write_text("item_id,user_id,event_at,x\ni,u,2024-05-02,1\n")
    (log / "3.csv").write_text(f"{HEADER}\nu,i,2024-05-03,1\n")
    with pytest.raises(UsageError) as caught:
        take_inventory(tables, config.events)
    first, cure = caught.value.faults
    assert first.endswith("2.csv: column 1 is named item_id instead of user_id.")
    assert cure == (
        "events: 1 of 3 new CSV files have another header. Write them with the columns user_id, item_id, event_at, x, "
        "in this order."
    )
    (log / "2.csv").write_text(f"{HEADER}\nu,i,2024-05-02,1\n")
    assert sum(day.num_rows for day in take_inventory(tables, config.events).days) == 3
