"""The inventory of a log: thresholds are inclusive, and messages name days."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest

from userrep.config import Events
from userrep.errors import LogIncompleteError, RejectedShareError, UsageError
from userrep.tiles.inventory.inventory import Inventory, _future_days, _missing_days, _why_unreadable, mapping_of
from userrep.tiles.inventory.log_days import LogDay

pytestmark = pytest.mark.fast

D1, D2, D3, D4, D5 = (date(2024, 5, day) for day in (1, 2, 3, 4, 5))
COLUMNS = {"user_id": "u", "item_id": "i", "event_at": "at"}


# Thresholds


def test_a_day_is_refused_only_above_the_share_of_rejects() -> None:
    days = [LogDay(D1, 100, 5, "f"), LogDay(D2, 100, 6, "f"), LogDay(D3, None, None, "f")]
    inventory = Inventory(days, 0, 0)
    inventory.check_rejects(0.05, [D1, D3])
    with pytest.raises(RejectedShareError, match=r"events: 2024-05-02: 6 of 100 rows are malformed; events.max_rej"):
        inventory.check_rejects(0.05, [D1, D2, D3])


def test_undated_rows_count_against_the_whole_log() -> None:
    Inventory([LogDay(D1, 95, 0, "f")], 5, 0).check_rejects(0.05, [])
    with pytest.raises(RejectedShareError, match="6 of 100 rows have no readable time, or one after tomorrow"):
        Inventory([LogDay(D1, 94, 0, "f")], 6, 0).check_rejects(0.05, [])
    with pytest.raises(RejectedShareError, match="6 of 100 rows have no readable time, or one after tomorrow"):
        Inventory([LogDay(D1, 94, 0, "f")], 3, 0, num_ahead=3).check_rejects(0.05, [])


def test_a_day_is_too_small_only_below_the_share_of_the_median_of_counted_days() -> None:
    sizes: list[int | None] = [5, 10, 100, 100, None]
    days = [LogDay(day, size, 0, "f") for day, size in zip((D1, D2, D3, D4, D5), sizes, strict=True)]
    inventory = Inventory(days, 0, 0)  # whose median is 55
    inventory.check_sizes(10 / 55, [D2, D3, D4, D5])
    with pytest.raises(UsageError, match=r"events: 2024-05-01 has 5 rows; the log's median day has 55, and .* 18.2%"):
        inventory.check_sizes(10 / 55, [D1, D2])


def test_only_the_first_ten_days_are_named() -> None:
    days = [LogDay(D1 + timedelta(days=k), 10 if k < 11 else 1000, 10 if k < 11 else 0, "f") for k in range(30)]
    inventory = Inventory(days, 0, 0)
    for check in (inventory.check_sizes, inventory.check_rejects):
        with pytest.raises((UsageError, RejectedShareError), match=r"2024-05-10.*and 1 more day;") as caught:
            check(0.5, [day.day for day in days])
        assert "2024-05-11" not in str(caught.value)


def test_an_as_of_date_lies_after_the_first_day_and_at_most_a_day_after_the_last() -> None:
    inventory = Inventory([LogDay(D1, 1, 0, "f"), LogDay(D4, 1, 0, "f")], 0, 0)
    inventory.check_as_of(D2)
    inventory.check_as_of(D5)
    for as_of in (D1, D5 + timedelta(days=1)):
        with pytest.raises(UsageError, match=f"as-of date {as_of}: outside the log.*from 2024-05-02 to 2024-05-05"):
            inventory.check_as_of(as_of)


@pytest.mark.parametrize(
    ("day", "now", "error"),
    [
        ("2024-05-06", "2024-05-06", LogIncompleteError),  # 24 h after the end of the log's last day
        ("2024-05-07", "2024-05-09", LogIncompleteError),
        ("2024-05-08", "2024-05-09", UsageError),  # 72 h
        ("2024-05-07", "2024-05-06", UsageError),  # in the future
        ("2024-05-01", "2024-05-09", UsageError),
    ],
)
def test_a_date_that_is_not_in_the_future_and_close_to_the_end_of_the_log_is_to_be_retried(
    monkeypatch: pytest.MonkeyPatch, day: str, now: str, error: type[Exception]
) -> None:
    monkeypatch.setattr("userrep.tiles.inventory.inventory.utc_now", lambda: datetime.fromisoformat(f"{now} 01:00"))
    inventory, as_of = Inventory([LogDay(D1, 1, 0, "f"), LogDay(D4, 1, 0, "f")], 0, 0), date.fromisoformat(day)
    said = "outside the log"
    if error is LogIncompleteError:
        said = (
            f"as-of date {day}: the log is not complete yet, its last day is 2024-05-04. Run the command again once "
            f"the events of {as_of - timedelta(days=1)} have arrived."
        )
    with pytest.raises(error, match=said):
        inventory.check_as_of(as_of, retry_within=timedelta(hours=50))
    with pytest.raises(UsageError, match="outside the log"):
        inventory.check_as_of(as_of)


def test_a_window_holds_the_day_that_it_begins_with_but_not_the_as_of_date() -> None:
    inventory = Inventory([LogDay(D1, 1, 0, "f"), LogDay(D5, 1, 0, "f")], 0, 0)
    inventory.check_window(D4, 3)
    for as_of, window_days in ((D4, 2), (D5, 3), (D1, 7)):
        with pytest.raises(UsageError, match=f"as-of date {as_of}: the longest window, {window_days} days, is empty"):
            inventory.check_window(as_of, window_days)


def test_counts_are_filled_in_only_for_days_that_the_inventory_has_not_counted() -> None:
    days = [
        LogDay(D1, 3, 1, "a"), LogDay(D2, 9, None, "b"), LogDay(D3, None, None, "c", 320), LogDay(D4, None, None, "d")
    ]  # fmt: skip
    counted = Inventory(days, 0, 0).counted({D1: (70, 70), D2: (8, 2), D4: (5, 1)})
    assert [(day.num_rows, day.num_rejected, day.fingerprint) for day in counted.days] == [
        (3, 1, "a"), (9, 2, "b"), (None, None, "c"), (5, 1, "d"),
    ]  # fmt: skip
    assert [day.expected_rows for day in counted.days] == [3, 9, 10, 5]  # the third: 320 bytes


# Warnings


def test_gaps_within_the_log_are_listed_and_their_days_counted() -> None:
    assert _missing_days([D1, D2, D3]) == ""
    assert _missing_days([]) == ""
    assert _missing_days([D1, D3]) == "events: 1 day within the log without rows: 2024-05-02"
    assert _missing_days([D1, D4, date(2024, 5, 7)]) == (
        "events: 4 days within the log without rows: 2024-05-02 to 2024-05-03, 2024-05-05 to 2024-05-06"
    )
    twelve = [D1 + timedelta(days=2 * k) for k in range(13)]
    assert _missing_days(twelve).startswith("events: 12 days within the log without rows: 2024-05-02, 2024-05-04, ")
    assert _missing_days(twelve).endswith(", 2024-05-20 and 2 more gaps")


def test_days_that_are_held_back_are_named_with_their_rows_if_these_are_counted() -> None:
    assert _future_days([], 0) == []
    assert _future_days([D1], 1200) == ["events: 1,200 rows of 2024-05-01 are held back until their day has come"]
    assert _future_days([D1, D3], None) == [
        "events: rows of 2 days (2024-05-01 to 2024-05-03) are held back until their day has come"
    ]


# Messages


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "An error occurred while calling o1.collect.\n: org.apache.spark.SparkException: [FAILED_READ_FILE.X] "
            "Encountered error while reading file file:/log/a.parquet. Data type mismatches. SQLSTATE: KD001\n\tat x",
            "file:/log/a.parquet: Data type mismatches",
        ),
        (
            "Job aborted: reading file file:/log/a.parquet\nTraceback\n"
            "pyarrow.lib.ArrowInvalid: Could not open Parquet input source '/log/b.parquet': too small.\nmore",
            "pyarrow.lib.ArrowInvalid: Could not open Parquet input source '/log/b.parquet': too small",
        ),
        ("something else\nand more", "ValueError: something else"),
    ],
    ids=["spark", "pyarrow", "other"],
)
def test_a_failed_read_is_explained_by_its_file_and_reason_in_one_line(text: str, reason: str) -> None:
    assert _why_unreadable(ValueError(text)) == reason


def test_the_meaning_of_a_log_depends_on_the_columns_of_all_its_sources() -> None:
    plays, likes = ({"path": name, "columns": {**COLUMNS, "event_type": name}} for name in ("plays", "likes"))
    logs: list[dict[str, Any]] = [plays, likes, {"sources": [plays, likes]}, {"sources": [likes, plays]}]
    assert len({mapping_of(Events(**log)) for log in logs}) == 4
    assert mapping_of(Events(**plays)) == mapping_of(Events(**{**plays, "path": "moved", "format": "csv"}))
