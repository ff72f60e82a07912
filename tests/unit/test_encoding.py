"""Which rows of a micro-batch count: all of dates that have begun, of others those with something on the last day."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from tests.support.builders import config_of
from userrep.events.tombstones import NOBODY
from userrep.features.spec import FeatureSpec
from userrep.streaming.encoding import Encoding

pytestmark = pytest.mark.fast

D14, D15, D16, D17 = (date(2024, 3, day) for day in (14, 15, 16, 17))


def counts(as_of: date, newest: list[date], today: date | None, tmp_path: object) -> list[bool]:
    spec = FeatureSpec.of(config_of(tmp_path))  # type: ignore[arg-type]
    times = [datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC) for day in newest]
    rows = pa.table({"newest_at": pa.array(times, pa.timestamp("us", "UTC"))})
    encoding = Encoding(spec, {}, (), today, 1, None, NOBODY)
    return encoding._counts(rows, as_of).tolist()


@pytest.mark.parametrize(
    ("as_of", "today", "counted"),
    [
        (D16, None, [False, True]),  # of two days: one of the day before the last, one of the last
        (D16, D14, [False, True]),
        (D16, D15, [True, True]),  # what is late changes vectors of today's date
        (D16, D16, [True, True]),  # and of yesterday's, while it is open
    ],
)
def test_what_is_late_counts_for_dates_that_have_begun(
    as_of: date, today: date | None, counted: list[bool], tmp_path: object
) -> None:
    assert counts(as_of, [D14, D15], today, tmp_path) == counted


def test_nothing_is_encoded_for_a_date_of_which_nothing_has_come(tmp_path: object) -> None:
    assert counts(D17, [D14, D15], D15, tmp_path) == [False, False]
