"""Times in UTC, by the rules of the batch."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from userrep.sources.times import times_of

pytestmark = pytest.mark.fast

NOON = datetime(2024, 5, 1, 12)
TIMES_BY_TEXT: dict[str, datetime | None] = {
    "2024": datetime(2024, 1, 1),
    "2024-05": datetime(2024, 5, 1),
    "2024-5-1": datetime(2024, 5, 1),
    " +2024-05-01 ": datetime(2024, 5, 1),
    "2024-05-01 12": NOON,
    "2024-05-01T12:0": NOON,
    "2024-05-01 12:00:00.": NOON,
    "2024-05-01 12:00:00.5": NOON.replace(microsecond=500_000),
    "2024-05-01 12:00:00.123456789": NOON.replace(microsecond=123_456),
    "2024-05-01 12:00:00 UTC": NOON,
    "2024-05-01 14:00:00 Europe/Berlin": NOON,
    "2024-05-01 14:00:00Europe/Berlin": NOON,
    "2024-05-01 05:00:00 PST": NOON,
    "2024-05-02 06:00:00+18:00": NOON,
    "2024-05-01 14:00:00+2": NOON,
    "2024-05-01 14:00:00.0+02:00": NOON,
    "2024-05-01 10:00:00 UTC-0200": NOON,
    "2024-03-31 02:30:00 Europe/Berlin": datetime(2024, 3, 31, 1, 30),
    "2024-10-27 02:30:00 Europe/Berlin": datetime(2024, 10, 27, 0, 30),
} | dict.fromkeys([
    "12:30", "01.05.2024", "2024-13-01", "2024-02-30", "2024-W01-1", "20240501", "1714521600", "2024-05-01T", "x", "",
    "2024-05-01 24:00:00", "2024-05-01  12:00", "2024-05-01 12:00Z", "2024-05-01 12:00:00 Nowhere/City",
    "2024-05-01 12:00:00 Europe", "2024-05-01 12:00:00+25:00", "2024-05-01 12:00:00+18:01",
    "2024-05-01 12:00:00+1801", "2024-05-01T12:00+02:00", "2024-05-01 12Z", "2024-05-01 12:00+0200",
    "2024-05-01 12:00:00 soon", "2024/05/01", "2024-05-01\u00a0", "\u30002024-05-01",
])  # fmt: skip


def read(values: list[object], kind: pa.DataType | None = None, zone: str = "UTC") -> list[datetime | None]:
    return times_of(pa.chunked_array([pa.array(values, kind)]), zone).to_pylist()  # type: ignore[no-any-return]


def test_texts_are_read_with_and_without_a_zone() -> None:
    texts = [
        "2024-05-01",
        "2024-05-01 12:00:00",
        "2024-05-01T12:00:00Z",
        "2024-05-01T12:00:00+02:00",
        None,
        "1714521600",
    ]
    noon = datetime(2024, 5, 1, 12)
    assert read(list(texts)) == [datetime(2024, 5, 1), noon, noon, datetime(2024, 5, 1, 10), None, None]
    assert read(list(texts), zone="Europe/Berlin")[1:4] == [datetime(2024, 5, 1, 10), noon, datetime(2024, 5, 1, 10)]


@pytest.mark.parametrize("text", TIMES_BY_TEXT)
def test_texts_are_read_by_the_grammar_of_spark(text: str) -> None:
    assert read([text]) == [TIMES_BY_TEXT[text]]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_column_of_all_kinds_of_texts_is_read_like_single_texts(zone: str) -> None:
    """Most are of one form, which is read faster, and the others are found among them."""
    usual = [f"2024-05-01T{k % 24:02}:00:00{'Z' if k < 1000 else ''}" for k in range(3000)]
    texts = [*usual, None, *TIMES_BY_TEXT, *usual]
    assert read(list(texts), zone=zone) == [read([text], zone=zone)[0] for text in texts]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia"])
def test_local_times_that_the_clocks_skip_have_the_offset_from_before(zone: str) -> None:
    """The skips last half an hour, an hour (at midnight, too), and a whole day."""
    hours = [datetime(year, 1, 1) + timedelta(minutes=15 * k) for year in (2011, 2018) for k in range(366 * 96)]
    expected = [at.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).replace(tzinfo=None) for at in hours]
    assert read(list(hours), pa.timestamp("us"), zone) == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_are_read_in_any_unit(unit: str) -> None:
    noon = datetime(2024, 5, 1, 12)
    assert read([noon], pa.timestamp(unit)) == [noon]
    assert read([noon], pa.timestamp(unit), "Asia/Tokyo") == [datetime(2024, 5, 1, 3)]
    assert read([noon.replace(tzinfo=UTC)], pa.timestamp(unit, "Asia/Tokyo"), "Europe/Berlin") == [noon]


def test_dates_begin_at_midnight_utc_in_any_zone_and_numbers_are_no_times() -> None:
    assert read([date(2024, 5, 1)]) == read([date(2024, 5, 1)], zone="Asia/Tokyo") == [datetime(2024, 5, 1)]
    assert read(["2024-05-01"] * 300, zone="Asia/Tokyo") == [datetime(2024, 5, 1)] * 300
    assert read([1714521600]) == [None]


def test_times_at_the_ends_of_the_calendar_are_none_among_texts_of_any_form() -> None:
    assert read(["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-05:00", ""]) == [None] * 3


def test_implausible_times_are_none() -> None:
    assert read([datetime(1970, 1, 1), datetime(2201, 1, 1), None], pa.timestamp("us")) == [None, None, None]
