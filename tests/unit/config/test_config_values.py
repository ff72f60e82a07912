"""Kinds of values: durations, dates, names of columns, time zones and paths."""

from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tests.support.configurations import loaded
from tests.support.hostile import fuzzed
from userrep.config import values
from userrep.errors import UsageError

pytestmark = pytest.mark.fast

DURATION, DAY, LOCATION, ZONE, NAME = (
    TypeAdapter(kind) for kind in (values.Duration, values.Day, values.Location, values.TimeZone, values.Name)
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("6h", timedelta(hours=6)),
        ("90m", timedelta(minutes=90)),
        ("1d", timedelta(days=1)),
        ("30 s", timedelta(seconds=30)),
        ("0h", timedelta(0)),
    ],
)
def test_durations_are_a_number_and_a_unit(tmp_path: Path, text: str, wanted: timedelta) -> None:
    assert loaded(tmp_path, f"snapshots.publish_delay={text}").snapshots.publish_delay == wanted


@pytest.mark.parametrize("text", ["6x", "-6h", "1.5h", "6", "99999999999d", "h", "[6h]"])
def test_text_that_is_no_duration_is_refused_with_an_example(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        UsageError, match=r"snapshots\.publish_delay: must be a whole number with the unit d, h, m or s"
    ):
        loaded(tmp_path, f"snapshots.publish_delay={text}")


@fuzzed(100)
@given(number=st.integers(0, 999_999), unit=st.sampled_from("dhms"), space=st.sampled_from(["", " ", "\t  "]))
def test_a_duration_of_up_to_six_digits_lasts_as_long_as_its_seconds(number: int, unit: str, space: str) -> None:
    seconds = number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert DURATION.validate_python(f"{number}{space}{unit}") / timedelta(seconds=1) == seconds


@fuzzed(100)
@given(number=st.integers(0, 999_999), unit=st.sampled_from("dhms"))
def test_each_duration_that_can_be_written_survives_json(number: int, unit: str) -> None:
    span = DURATION.validate_python(f"{number}{unit}")
    assert DURATION.validate_json(DURATION.dump_json(span)) == span


@pytest.mark.parametrize("value", ["2024-02-29", date(2024, 2, 29)])
def test_a_date_is_a_date_or_text(value: Any) -> None:
    assert DAY.validate_python(value) == date(2024, 2, 29)


@pytest.mark.parametrize("value", [datetime(2024, 2, 29), "20240229", "2024-02-30", "2024-W09-4", 1709164800, None])
def test_a_time_or_a_number_is_no_date(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"must be a date in the form YYYY-MM-DD|day is out of range for month"):
        DAY.validate_python(value)


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("Europe/Berlni", r"must be the name of a time zone \(did you mean Europe/Berlin\?\)"),
        ("???", r"must be the name of a time zone \(such as Europe/Berlin or UTC\)"),
        ("utc+2", "must be the name of a time zone"),
    ],
)
def test_an_unknown_time_zone_is_refused_with_the_nearest(zone: str, said: str) -> None:
    assert ZONE.validate_python("Europe/Berlin") == "Europe/Berlin"
    with pytest.raises(ValidationError, match=said):
        ZONE.validate_python(zone)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("log\nroot", "must consist of printable characters"),
        ("log\u2028", "must consist of printable characters"),
        ("log`; DROP TABLE t", "must not contain backticks"),
        ("s3a://key:secret@bucket/log", "must not contain a password"),
        ("s3a://:secret@bucket", "must not contain a password"),
        ("s3a://key:se/cret@bucket", "must not contain a password"),
    ],
)
def test_a_path_with_a_password_or_without_a_line_of_its_own_is_refused(path: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LOCATION.validate_python(path)


@pytest.mark.parametrize(
    "path", ["abfss://log@account.dfs.core.windows.net/x", "hdfs://host:9000/a@b", "log/day=é *", "C:/x:y@z"]
)
def test_a_path_of_any_store_is_kept_as_it_is(path: str) -> None:
    assert LOCATION.validate_python(path) == path


@fuzzed(100)
@given(st.lists(st.integers(-3, 3), max_size=5))
def test_numbers_are_sorted_unless_two_are_equal(numbers: list[int]) -> None:
    if any(numbers.count(number) > 1 for number in numbers):
        with pytest.raises(ValueError, match="numbers must be distinct"):
            values.ascending(numbers)
    else:
        found = values.ascending(numbers)
        assert all(before < after for before, after in pairwise(found))
        assert set(found) == set(numbers)


@fuzzed(100)
@given(st.text(max_size=12))
def test_a_column_becomes_part_of_a_name_of_lower_case_letters_digits_and_underscores(column: str) -> None:
    part = values.part_of_name(column)
    assert set(part) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert len(part) == len(column.lower())
    assert values.part_of_name(part) == part


def test_all_faults_of_a_section_are_raised_as_one_error_of_a_line_each() -> None:
    with pytest.raises(ValueError, match=r"\Afirst\nsecond\Z"):
        values.refuse(["first", "second"])
    assert values.refuse([]) is None  # type: ignore[func-returns-value]
