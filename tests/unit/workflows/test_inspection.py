"""Inspection of a log: facts, their basis, and the verdict."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of, event, write_rows
from userrep.errors import UsageError
from userrep.sources import sample as sample_module
from userrep.workflows.inspection import inspect_log, inspection_lines

pytestmark = pytest.mark.fast

START = datetime(2024, 1, 1)


def write_log(folder: Path, more: list[dict[str, Any]], num_days: int = 100) -> None:
    rows = [event(f"u{k % 3}", f"i{k % 7}", str(START + timedelta(days=k))) for k in range(num_days) if k != 50]
    write_rows(folder / "events" / "a.parquet", rows + more)


def warnings_of(result: dict[str, Any]) -> list[str]:
    return [finding["what"] for finding in result["verdict"] if finding["level"] == "warn"]


def test_a_small_log_has_exact_facts(tmp_path: Path) -> None:
    write_log(tmp_path, [event("u0", "i0", "2024-01-01")])
    result = inspect_log(config_of(tmp_path))
    facts = result["sources"]["events"]
    assert (facts["num_rows"], facts["num_users"], facts["num_items"], facts["estimates"]) == (100, 3, 7, [])
    assert facts["days_without_events"] == [date(2024, 2, 20)]
    assert (result["first_day"], result["last_day"], result["num_days"]) == (date(2024, 1, 1), date(2024, 4, 9), 100)
    assert facts["num_duplicates"] == 1
    assert warnings_of(result) == []
    lines = inspection_lines(result)
    assert lines[0] == f"events: {tmp_path / 'events'} (parquet, 1 file, 0.0 MB)"
    assert [line.split()[-1] for line in lines[1:10] if not line.startswith("days without")] == [
        "basis",
        *["exact"] * 7,
    ]
    assert "events: a run drops 1 duplicate row." in lines[-4]


def test_a_large_log_has_exact_days_from_footers_and_the_rest_from_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_module, "_MAX_ROWS", 20)
    write_log(tmp_path, [])
    result = inspect_log(config_of(tmp_path))
    facts = result["sources"]["events"]
    assert (facts["num_rows"], facts["num_rows_read"], facts["last_day"]) == (99, 20, date(2024, 4, 9))
    assert facts["estimates"] == ["num_users", "num_items", "nulls", "num_duplicates", "heaviest_users"]
    text = "\n".join(inspection_lines(result))
    assert "not known from a sample" in text
    assert "at least; of a sample of 20 rows" in text


def test_a_row_in_the_future_hides_no_days_of_a_large_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_module, "_MAX_ROWS", 95)
    write_log(tmp_path, [event("u", "i", "2090-01-01")])
    result = inspect_log(config_of(tmp_path))
    assert (result["first_day"], result["last_day"]) == (date(2024, 1, 1), date(2024, 4, 5))
    assert {"first_day", "last_day"} < {*result["sources"]["events"]["estimates"]}
    assert "log: about 96 days, 2024-01-01 to 2024-04-05" in "\n".join(inspection_lines(result))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([event(None, "i", "2024-02-01")] * 9, "events: 8.3% of the rows would be rejected; events.max"),
        ([event(None, "i", "2024-02-01")] * 3, "events: a run fails because of rejected rows on 1 day (2024-02-01)"),
        ([event("u", "i", "2090-01-01")], "events: 1 row later than tomorrow; a run holds them back."),
        (
            [event(f"u{k}", "i", str(START + timedelta(days=d))) for k in range(150) for d in range(90)],
            "events: 10 (2024-03-31, ",
        ),
    ],
)  # fmt: skip
def test_rows_that_fail_a_run_are_named(tmp_path: Path, more: list[dict[str, Any]], said: str) -> None:
    write_log(tmp_path, more)
    found = warnings_of(inspect_log(config_of(tmp_path, events={"min_day_share": 0.01})))
    assert [said[:20] in what for what in found].count(True) == 1, found


def test_a_log_without_a_readable_time_has_no_days(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id,event_at\nu,i,12:30\n")
    config = config_of(tmp_path, events={"path": str(tmp_path / "events.csv"), "format": "csv"})
    result = inspect_log(config)
    assert "fit" not in result
    assert warnings_of(result) == ["events.columns.event_at: no readable time. Map another column, or convert it."]
    (tmp_path / "events.csv").write_text("user_id,item_id,event_at\nu,i,2090-01-01\n")
    assert warnings_of(inspect_log(config)) == ["events: 1 row later than tomorrow; a run holds them back."]


def test_the_sources_of_a_log_count_as_one_and_their_faults_are_listed_together(tmp_path: Path) -> None:
    write_log(tmp_path, [])
    write_rows(tmp_path / "more.parquet", [event("u", "i", "2024-05-01")])
    columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}
    paths = [str(tmp_path / "events"), str(tmp_path / "more.parquet")]
    config = config_of(tmp_path).model_dump(include={"root"})
    from userrep.config import parse_config

    def of(*columns_by_source: dict[str, str]) -> Any:
        sources = [{"path": path, "columns": names} for path, names in zip(paths, columns_by_source, strict=True)]
        return parse_config({**config, "events": {"sources": sources}}, "test")

    assert inspect_log(of(columns, columns))["num_days"] == 122
    wrong = columns | {"user_id": "nobody"}
    with pytest.raises(UsageError) as caught:
        inspect_log(of(wrong, wrong))
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "events.sources[0].columns.user_id", "events.sources[1].columns.user_id",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["u0", "u1", "u2", "other"], "ok users: 3 of 3 users in the log's sample have a row."),
        (["u1", "u2"], "ok users: 2 of 3 users in the log's sample have a row."),
        (
            ["u1"],
            "warn users: 1 of 3 users in the log's sample have a row. Check users.columns.user_id, and how",
        ),
        (["x-u1", "x-u2"], "warn users: 0 of 3 users in the log's sample have a row. Check"),
        (["u0", "u1", "u2"] * 5, "ok users: 3 of 3 users"),  # several rows per user
        (
            ["FR", "DE", "FR", "DE", "FR"],
            "warn users: 0 of 3 users in the log's sample have a row. The 5 rows have 2 distinct ids. Check",
        ),
        ([1, 2], "warn users: 0 of 3 users in the log's sample have a row. Check"),
        ([], "warn users.path"),
    ],
)
def test_ids_of_users_are_compared_with_those_of_the_log(tmp_path: Path, ids: list[Any], said: str) -> None:
    write_log(tmp_path, [])
    if ids:
        write_rows(tmp_path / "users.parquet", [{"id": user} for user in ids])
    users = {"path": str(tmp_path / "users.parquet"), "columns": {"user_id": "id"}}
    result = inspect_log(config_of(tmp_path, users=users))
    (found,) = [
        f"{line['level']} {line['what']}"
        for line in result["verdict"]
        if line["what"].startswith(("users: ", "users.path"))
    ]
    assert found.startswith(said)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (["2024-05-01", None, " "], []),
        (
            ["01.05.2024", "2024-05-01", "May 1", None],
            [
                "users.columns.registered_at: 2 of 3 times not readable, so unknown to a run. Write them as "
                "2024-05-01T12:00:00Z."
            ],
        ),
        ([START, None], []),
    ],
)
def test_times_of_registration_that_no_run_can_read_are_counted(
    tmp_path: Path, times: list[Any], said: list[str]
) -> None:
    write_log(tmp_path, [])
    write_rows(tmp_path / "users.parquet", [{"id": f"u{k}", "since": at} for k, at in enumerate(times)])
    columns = {"user_id": "id", "registered_at": "since"}
    users = {"path": str(tmp_path / "users.parquet"), "columns": columns}
    assert [line for line in warnings_of(inspect_log(config_of(tmp_path, users=users))) if "registered" in line] == said


def test_ids_of_items_are_compared_with_those_of_the_log_unless_they_are_no_texts(tmp_path: Path) -> None:
    write_log(tmp_path, [])
    items = {"path": str(tmp_path / "items.parquet"), "columns": {"item_id": "id", "text": "title"}}
    for ids, num_lines in (([Decimal("1.5")], 0), (["i1", "i2"], 1)):
        write_rows(tmp_path / "items.parquet", [{"id": item, "title": "a"} for item in ids])
        verdict = [line["what"] for line in inspect_log(config_of(tmp_path, items=items))["verdict"]]
        assert (
            len([line for line in verdict if line.startswith("items: 2 of 7 items in the log's sample")]) == num_lines
        )
