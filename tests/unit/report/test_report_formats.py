"""Numbers, times and sizes as the report prints them."""

from datetime import date, datetime

import pytest

from userrep.report import formats

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (formats.count(1_234_567), "1,234,567"),
        (formats.short(1_234), "1,234"),
        (formats.short(12_345), "12.3 k"),
        (formats.short(4_540_000), "4.54 M"),
        (formats.short(2e9), "2 G"),
        (formats.short(0.5), "0.5"),
        (formats.short(999_499), "999 k"),
        (formats.short(999_500), "1 M"),
        (formats.short(999_700_000), "1 G"),
        (formats.short(1e12), "1 T"),
        (formats.share(0), "0%"),
        (formats.share(0.256), "26%"),
        (formats.share(0.0345), "3.5%"),
        (formats.share(0.00001), "< 0.01%"),
        (formats.figure(0.12345), "0.123"),
        (formats.figure(float("nan")), "\N{EN DASH}"),
        (formats.signed(-0.5, 1), "\N{MINUS SIGN}0.5"),
        (formats.signed(0.5, 1), "+0.5"),
        (formats.seconds(4.21), "4.2 s"),
        (formats.seconds(38.4), "38 s"),
        (formats.seconds(725), "12 min 5 s"),
        (formats.seconds(12_000), "3 h 20 min"),
        (formats.size(512), "512 B"),
        (formats.size(3_400_000), "3.4 MB"),
        (formats.size(999_600), "1.0 MB"),
        (formats.core_time(0.05, 0.05), "180.0 core s"),
        (formats.core_time(0.5, 2.0), "0.50 core h"),
        (formats.core_hours(None), "\N{EN DASH}"),
        (formats.when(datetime(2024, 5, 1, 6, 30)), "2024-05-01 06:30"),
        (formats.day(date(2024, 5, 1)), "2024-05-01"),
        (formats.day(None), "\N{EN DASH}"),
    ],
)
def test_a_reader_gets_few_digits_and_units(written: str, wanted: str) -> None:
    assert written == wanted
