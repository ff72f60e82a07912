"""Refusals of a log before Spark starts."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from tests.support.builders import config_of, event, write_rows
from userrep.config import Config
from userrep.errors import LogIncompleteError, UsageError
from userrep.features.preflight import check_before_spark as check
from userrep.sources import listing
from userrep.sources.listing import Listings

pytestmark = pytest.mark.fast

ROWS = [event("u1", "i1", "2024-05-01", device={"kind": "tv"})]


def check_before_spark(config: Config, as_ofs: Sequence[date] = ()) -> None:
    check(config, as_ofs, Listings())


def config_in(folder: Path, **columns: Any) -> Config:
    names = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at", **columns}
    return config_of(folder, events={"columns": names})


def test_columns_that_no_file_has_are_refused_together(tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "a.parquet", ROWS)
    with pytest.raises(UsageError) as caught:
        check_before_spark(config_in(tmp_path, user_id="custmer", item_id="sku", context=["device.kind"]))
    found = "columns found: user_id, item_id, event_at, device.kind."
    assert caught.value.faults == [
        f"events.columns.user_id: no column 'custmer'; {found}",
        f"events.columns.item_id: no column 'sku'; {found}",
    ]


def test_a_column_that_one_file_has_or_that_is_a_folder_of_a_partition_is_there(tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "shop=a" / "1.parquet", ROWS)
    write_rows(tmp_path / "events" / "shop=a" / "2.parquet", [ROWS[0] | {"kind": "buy"}])
    check_before_spark(config_in(tmp_path, event_type="kind", context=["shop"]))
    with pytest.raises(UsageError, match="no column 'store'"):
        check_before_spark(config_in(tmp_path, context=["store"]))


@pytest.mark.parametrize(
    ("path", "root", "is_read"),
    [
        ("events", "events/root", True),
        ("events", "events", True),
        ("*", "root", True),
        ("ev*/day=*", "events/day=1/root", True),
        ("{events,root}", "root", True),
        ("events", "root", False),
        ("events", "events2", False),
        ("events", "events/_root", False),  # no reader looks into it
        ("ev*", "root", False),
        ("*/day=*", "events/root", False),
    ],
)
def test_a_log_that_contains_the_root_is_refused(tmp_path: Path, path: str, root: str, is_read: bool) -> None:
    write_rows(tmp_path / "events" / "day=1" / "a.parquet", ROWS)
    events = {"path": str(tmp_path / path), "columns": config_in(tmp_path).events.columns.model_dump()}
    config = config_of(tmp_path, events=events, root=str(tmp_path / root))
    if is_read:
        with pytest.raises(UsageError, match=f"also reads the tables and models in {tmp_path / root}. Choose a root"):
            check_before_spark(config)
    else:
        check_before_spark(config)


def test_a_field_of_a_struct_that_only_one_file_has_is_there(tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "1.parquet", [ROWS[0] | {"device": {"kind": "tv", "os": "x"}}])
    write_rows(tmp_path / "events" / "2.parquet", ROWS)
    check_before_spark(config_in(tmp_path, context=["device.kind", "device.os"]))


@pytest.mark.parametrize("flavor", [None, "spark"])
def test_times_in_nanoseconds_are_refused_unless_spark_reads_them(tmp_path: Path, flavor: str | None) -> None:
    """With flavor "spark", pyarrow writes them as INT96, which Spark reads."""
    times = pa.array([1_714_521_600_000_000_000], pa.timestamp("ns", "UTC"))
    (tmp_path / "events").mkdir()
    table = pa.table({"user_id": ["u1"], "item_id": ["i1"], "event_at": times})
    pq.write_table(table, tmp_path / "events" / "a.parquet", flavor=flavor)
    if flavor == "spark":
        check_before_spark(config_in(tmp_path))
        return
    with pytest.raises(UsageError, match=r"events\.path .*: Spark cannot read times in nanoseconds \(event_at\)\."):
        check_before_spark(config_in(tmp_path))


@pytest.mark.parametrize(
    ("name", "format_", "actual"),
    [("a.parquet", "json", "parquet"), ("a.json", "parquet", "json"), ("a", "csv", "json")],
)
def test_files_of_another_format_are_refused_with_the_format_to_set(
    tmp_path: Path, name: str, format_: str, actual: str
) -> None:
    file = tmp_path / "events" / name
    if actual == "parquet":
        write_rows(file, ROWS)
    else:
        file.parent.mkdir()
        file.write_text('\ufeff {"user_id": "u1", "item_id": "i1", "event_at": "2024-05-01"}\n')
    with pytest.raises(UsageError) as caught:
        check_before_spark(config_of(tmp_path, events={"format": format_}))
    assert caught.value.faults == [f"events.format: {format_}, but {file} looks like {actual}. Set format: {actual}."]
    check_before_spark(config_of(tmp_path, events={"format": actual}))


def test_a_folder_without_files_is_left_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    check_before_spark(config_of(tmp_path, events={"format": "json"}))


def test_a_delta_log_is_judged_by_its_schema(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "events"), pa.Table.from_pylist(ROWS))
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "at"}
    config = config_of(tmp_path, events={"format": "delta", "columns": columns})
    with pytest.raises(UsageError, match=r"events.columns.event_at: no column 'at'; columns found: user_id, item_id"):
        check_before_spark(config)


def test_the_files_of_a_delta_table_are_no_log_of_their_own(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "events"), pa.Table.from_pylist(ROWS))
    with pytest.raises(
        UsageError, match=r"events\.format: parquet, but .*events is a Delta table\. Set format: delta\."
    ):
        check_before_spark(config_of(tmp_path, events={"format": "parquet"}))


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"events.path .*: does not exist"):
        check_before_spark(config_in(tmp_path))


def test_all_sources_are_judged_and_a_missing_path_is_one_fault(tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "a.parquet", ROWS)
    write_rows(tmp_path / "items.parquet", [{"item_id": "i"}])
    config = config_of(
        tmp_path,
        items={"path": str(tmp_path / "items.parquet"), "columns": {"item_id": "item_id", "text": "title"}},
        users={"path": str(tmp_path / "users"), "columns": {"user_id": "id"}, "attributes": ["country"]},
        evaluation={"attributes": ["age"]},
    )
    with pytest.raises(UsageError) as caught:
        check_before_spark(config)
    faults = [fault.split(". ")[0] for fault in caught.value.faults]
    assert faults[0] == "items.columns.text: no column 'title'; columns found: item_id."
    assert faults[1] == f"users.path {tmp_path / 'users'}: does not exist"


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_dates_outside_the_days_of_the_files_are_refused(tmp_path: Path, kind: str) -> None:
    rows = [event("u1", "i1", when) for when in ("2024-05-01 00:00:00", "2024-05-20 23:59:59.999999", None)]
    if kind == "delta":
        for row in rows[:2]:
            write_deltalake(str(tmp_path / "events"), pa.Table.from_pylist([row]), mode="append")
    else:
        write_rows(tmp_path / "events" / "a.parquet", rows[:1])
        write_rows(tmp_path / "events" / "b.parquet", rows[1:])
    config = config_of(tmp_path, events={"format": kind})
    check_before_spark(config, [date(2024, 5, 2), date(2024, 5, 21)])
    said = "outside the log, whose days are 2024-05-01 to 2024-05-20; choose a date from 2024-05-02 to 2024-05-21"
    for day in (date(2024, 5, 1), date(2024, 5, 24)):
        with pytest.raises(UsageError, match=f"as-of date {day}: {said}"):
            check_before_spark(config, [date(2024, 5, 3), day])


def test_a_date_close_to_the_end_of_the_log_is_to_be_retried(tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "a.parquet", [event("u", "i", "2024-05-01"), event("u", "i", "2024-05-20")])
    for settings, last in (({}, 23), ({"error_after": "24h"}, 22), ({"error_after": "72h"}, 24)):
        config = config_of(tmp_path, freshness=settings)
        with pytest.raises(LogIncompleteError, match=f"as-of date 2024-05-{last}: the log is not complete yet"):
            check_before_spark(config, [date(2024, 5, last)])
        with pytest.raises(UsageError, match="outside the log"):
            check_before_spark(config, [date(2024, 5, last + 1)])
        with pytest.raises(UsageError, match="outside the log"):
            check_before_spark(config, [date(2024, 5, 21), date(2024, 5, last), date(2099, 1, 1)])


def test_days_after_tomorrow_do_not_count_as_days_of_the_log(tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "a.parquet", [event("u", "i", "2024-05-01"), event("u", "i", "2090-05-01")])
    with pytest.raises(
        UsageError, match=r"as-of date 2090-01-01: outside the log, whose days are 2024-05-01 to 20[2-8]"
    ):
        check_before_spark(config_in(tmp_path), [date(2090, 1, 1)])


def test_a_date_after_the_log_is_refused_even_if_its_first_day_is_not_known(tmp_path: Path) -> None:
    write_rows(tmp_path / "events" / "a.parquet", [event("u", "i", "1970-01-01"), event("u", "i", "2024-05-20")])
    check_before_spark(config_in(tmp_path), [date(1970, 1, 2), date(2024, 5, 21)])
    with pytest.raises(UsageError, match=r"2024-06-21: after the log, which ends on 2024-05-20\. Choose 2024-05-21 or"):
        check_before_spark(config_in(tmp_path), [date(2024, 6, 21)])


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ([event("u", "i", "2500-01-01")], {}),  # rejected, so that the last day is not known
        ([event("u", "i", "2024-05-02")], {"time_zone": "Asia/Tokyo"}),
    ],
)
def test_dates_are_left_to_the_run_if_footers_do_not_show_the_days(
    tmp_path: Path, more: list[dict[str, Any]], settings: dict[str, Any]
) -> None:
    write_rows(tmp_path / "events" / "a.parquet", [event("u", "i", "2024-05-01"), *more])
    check_before_spark(config_of(tmp_path, events=settings), [date(2025, 1, 1)])


@pytest.mark.parametrize("content", ["no file", "not Parquet", "many files"])
def test_what_cannot_be_checked_without_spark_is_left_to_the_run(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_MAX_FOOTERS", 2)
    folder = tmp_path / "events"
    folder.mkdir()
    if content == "not Parquet":
        (folder / "a.parquet").write_text("x")
    if content == "many files":
        for number in range(3):
            write_rows(folder / f"{number}.parquet", ROWS)
    check_before_spark(config_in(tmp_path, user_id="custmer"))
