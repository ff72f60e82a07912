"""The footer of a Parquet file proves which day its rows belong to, or proves nothing."""

from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.builders import at
from userrep.tiles.inventory.footers import Times, day_of_file, microseconds_of, open_listed

pytestmark = pytest.mark.fast

D1 = date(2024, 5, 1)


def written(folder: Path, times: list[datetime | None], kind: pa.DataType | None = None) -> str:
    """Write times as the column ``event_at``, one row group for each."""
    values = pa.array(times, pa.timestamp("us")).cast(kind or pa.timestamp("us"))
    pq.write_table(pa.table({"event_at": values}), folder / "a.parquet", row_group_size=1)
    return str(folder / "a.parquet")


def test_a_listed_path_has_no_escapes(tmp_path: Path) -> None:
    (tmp_path / "a%20b").mkdir()
    path = written(tmp_path / "a%20b", [at("2024-05-01")])
    assert day_of_file(path, "event_at") == day_of_file(f"file:{path}", "event_at") == (D1, 1)
    assert open_listed(f"file:{path}").metadata.num_rows > 0


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ms")], ids=str)
def test_rows_from_midnight_to_the_last_moment_belong_to_one_day(tmp_path: Path, kind: pa.DataType) -> None:
    path = written(tmp_path, [at("2024-05-01 23:59:59.999"), at("2024-05-01"), at("2024-05-01 12:00")], kind)
    assert day_of_file(path, "event_at") == (D1, 3)


@pytest.mark.parametrize(
    "times",
    [
        [at("2024-05-01"), at("2024-05-02")],
        [at("2024-04-30 23:59:59.999999"), at("2024-05-01")],
        [at("2024-05-01"), None],
        [at("1970-01-01")],
        [at("1970-12-31 23:59:59.999999")],
        [at("2200-01-02")],
        [],
    ],
    ids=["next midnight", "day before", "a null", "epoch", "before 1971", "after 2200", "no rows"],
)
def test_a_footer_proves_nothing_about_rows_that_are_not_all_of_one_plausible_day(
    tmp_path: Path, times: list[datetime | None]
) -> None:
    assert day_of_file(written(tmp_path, times), "event_at") is None


def test_a_row_group_with_a_null_time_proves_nothing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"event_at": [at("2024-05-01"), None]}), tmp_path / "a.parquet")
    assert day_of_file(str(tmp_path / "a.parquet"), "event_at") is None


def test_the_first_plausible_moment_is_new_year_1971(tmp_path: Path) -> None:
    assert day_of_file(written(tmp_path, [at("1971-01-01")]), "event_at") == (date(1971, 1, 1), 1)


def test_times_up_to_2200_have_a_day_whatever_the_clock(tmp_path: Path) -> None:
    assert day_of_file(written(tmp_path, [at("2199-12-31")]), "event_at") == (date(2199, 12, 31), 1)
    assert day_of_file(written(tmp_path, [at("2200-01-02")]), "event_at") is None


def test_a_nested_time_is_found_by_its_path_unless_a_column_has_the_same_dotted_name(tmp_path: Path) -> None:
    times = pa.array([at("2024-05-01")], pa.timestamp("us"))
    nested = pa.StructArray.from_arrays([times], ["at"])
    pq.write_table(pa.table({"event": nested}), tmp_path / "a.parquet")
    assert day_of_file(str(tmp_path / "a.parquet"), "event.at") == (D1, 1)
    pq.write_table(pa.table({"event": nested, "event.at": times}), tmp_path / "b.parquet")
    assert day_of_file(str(tmp_path / "b.parquet"), "event.at") is None


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["2024-05-01"]),
        pa.array([1_714_521_600_000_000]),
        pa.array([D1]),
        pa.array([at("2024-05-01")], pa.timestamp("ns")),
    ],
    ids=["text", "number", "date", "nanoseconds"],
)
def test_only_times_in_milliseconds_or_microseconds_are_trusted(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"event_at": column}), tmp_path / "a.parquet")
    assert day_of_file(str(tmp_path / "a.parquet"), "event_at") is None


def test_a_file_without_statistics_proves_nothing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"event_at": [at("2024-05-01")]}), tmp_path / "a.parquet", write_statistics=False)
    assert day_of_file(str(tmp_path / "a.parquet"), "event_at") is None


def test_times_before_1970_belong_to_the_day_they_lie_in() -> None:
    day = 86_400_000_000
    assert Times(-1, 0, has_null=False).days == range(-1, 1)
    assert Times(-day, -1, has_null=False).days == range(-1, 0)
    assert Times(0, day - 1, has_null=False).days == range(1)


def test_a_missing_time_becomes_the_smallest_number_and_other_units_become_microseconds() -> None:
    times = pa.chunked_array([pa.array([at("1970-01-01 00:00:02"), None], pa.timestamp("ms"))])
    assert microseconds_of(times).tolist() == [2_000_000, np.iinfo(np.int64).min]
    assert microseconds_of(times.slice(0, 1)).tolist() == [2_000_000]
