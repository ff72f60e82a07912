"""Faults of a configuration that are found without Spark."""

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of, event, write_rows
from userrep.sources import listing
from userrep.workflows.validation import source_faults

pytestmark = pytest.mark.fast


def write_log(folder: Path, num_days: int = 100) -> None:
    start = datetime(2024, 1, 1)
    rows = [event("u", "i", str(start + timedelta(days=k)), amount=1.5, tags=["x"]) for k in range(num_days)]
    write_rows(folder / "events" / "a.parquet", rows)


def faults_of(folder: Path, **sections: Any) -> list[str]:
    return source_faults(config_of(folder, **sections))[0]


def columns(**names: str) -> dict[str, str]:
    return {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at", **names}


def test_a_configuration_that_fits_has_no_fault(tmp_path: Path) -> None:
    write_log(tmp_path)
    assert faults_of(tmp_path) == []


def test_faults_of_all_sources_and_of_the_end_of_training_are_listed_together(tmp_path: Path) -> None:
    write_log(tmp_path)
    (tmp_path / "empty").mkdir()
    faults = faults_of(
        tmp_path,
        events={"columns": columns(user_id="tags", event_at="amount", weight="nothing")},
        items={"path": str(tmp_path / "nowhere"), "columns": {"item_id": "id"}},
        users={"path": str(tmp_path / "empty"), "columns": {"user_id": "id"}},
        training={"as_ofs": {"until": "2025-01-01"}},
    )
    assert [fault.split(":")[0].split(" /")[0] for fault in faults] == [
        "events.columns.weight", "items.path", "users.path",
    ]  # fmt: skip
    faults = faults_of(tmp_path, events={"columns": columns(user_id="tags", event_at="amount")})
    assert faults[0].startswith("events.columns.event_at: column 'amount' is double; expected a timestamp, a date, or")
    assert faults[1].startswith("events.columns.user_id: column 'tags' is array<string>; expected text or a number")
    assert faults_of(tmp_path, training={"as_ofs": {"until": "2025-01-01"}}) == [
        "training.as_ofs.until 2025-01-01: after the log, whose days are 2024-01-01 to 2024-04-09. "
        "Choose 2024-04-10 or earlier."
    ]


def test_a_root_that_is_a_file_is_a_fault(tmp_path: Path) -> None:
    write_log(tmp_path)
    (tmp_path / "taken").touch()
    assert faults_of(tmp_path, root=str(tmp_path / "taken")) == [
        f"root {tmp_path}/taken: a file. Name a folder, which need not exist yet."
    ]


def test_a_log_that_is_too_short_to_train_on_is_a_fault(tmp_path: Path) -> None:
    write_log(tmp_path, num_days=10)
    assert ["no training date in a log of 10 days" in fault for fault in faults_of(tmp_path)] == [True]


@pytest.mark.parametrize(
    ("name", "content", "format_", "said"),
    [
        ("a.csv", "x,y\n", "parquet", "events.format: parquet, but .*a.csv looks like csv. Set format: csv."),
        ("a.parquet", "no Parquet", "parquet", r"events.path .*a.parquet: not readable as parquet \("),
        ("a.csv", "x,y\n", "delta", "events.format: delta, but .*events is not a Delta table. Name"),
        ("a.csv", "user_id,item,event_at\n1,2,3\n", "csv", "events.columns.item_id: no column 'item_id'; did you"),
        ("a.json", '{"user_id": 1, "event_at": "x"}\n', "json", "events.columns.item_id: no column 'item_id'; columns"),
    ],
)  # fmt: skip
def test_files_of_another_format_or_without_a_column_are_faults(
    tmp_path: Path, name: str, content: str, format_: str, said: str
) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / name).write_text(content)
    [fault] = faults_of(tmp_path, events={"format": format_})
    assert re.match(said, fault)


def test_a_source_in_an_object_store_and_a_table_are_left_to_the_run(tmp_path: Path) -> None:
    for place in ({"path": "s3a://no-such-bucket/log"}, {"path": "db.log", "format": "table"}):
        assert source_faults(config_of(tmp_path, events=place)) == ([], [f"events.path {place['path']}"])


@pytest.mark.parametrize("path", ["file:{}/events", "file://{}/events/a.parquet", "{}/ev*/*.parquet", "{}/e*"])
def test_local_uris_and_patterns_are_checked(tmp_path: Path, path: str) -> None:
    write_log(tmp_path)
    place = {"path": path.format(tmp_path)}
    assert source_faults(config_of(tmp_path, events=place)) == ([], [])
    place["columns"] = columns(user_id="buyer")  # type: ignore[assignment]
    [fault] = faults_of(tmp_path, events=place)
    assert fault.startswith("events.columns.user_id: no column 'buyer'; columns found: ")


def test_a_folder_of_many_files_is_named_as_unchecked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MAX_FOOTERS", 0)
    write_log(tmp_path)
    assert source_faults(config_of(tmp_path)) == ([], [f"events.path {tmp_path / 'events'}"])
