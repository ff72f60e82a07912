"""Configurations that are written from a look at a log."""

import gzip
import json
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from userrep.config import Config, load_config
from userrep.errors import UsageError
from userrep.features.preflight import check_before_spark
from userrep.sources.listing import Listings
from userrep.sources.sample import take_sample
from userrep.utc import utc_now
from userrep.workflows.inspection import inspect_log
from userrep.workflows.starter_config import Starter, starter_config
from userrep.workflows.validation import source_faults

pytestmark = pytest.mark.fast

ROWS = [
    {
        "Customer ID": k % 50,
        "StockCode": f"s{k % 20}",
        "InvoiceDate": datetime(2024, 1, 1) + timedelta(hours=8 * k),
        "qty": 1,
    }
    for k in range(900)
]


def write_log(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    table = pa.Table.from_pylist(rows)
    if kind == "delta":
        write_deltalake(str(folder / "log"), table)
        return folder / "log"
    path = folder / f"log.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "csv":
        lines = [",".join(table.column_names), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("".join(f"{json.dumps(row, default=str)}\n" for row in rows))
    return path


def loaded(starter: Starter, folder: Path) -> Config:
    (folder / "userrep.yaml").write_text(starter.text)
    return load_config(folder / "userrep.yaml")


@pytest.mark.parametrize("kind", ["parquet", "delta", "csv", "json"])
def test_the_file_loads_is_valid_and_passes_the_checks_of_a_run(tmp_path: Path, kind: str) -> None:
    starter = starter_config(str(write_log(tmp_path, kind)), file=tmp_path / "userrep.yaml")
    assert (starter.open_keys, starter.warnings, starter.as_of) == ([], [], date(2024, 10, 27))
    config = loaded(starter, tmp_path)
    [log] = config.events.all_sources.values()
    assert (log.format, log.columns.user_id, log.columns.item_id) == (kind, "Customer ID", "StockCode")
    assert log.columns.event_at == "InvoiceDate"
    assert (config.windows_days, config.training.as_ofs.until) == ([7, 30, 180], date(2024, 8, 28))
    assert config.root == str(tmp_path / "userrep-root")
    assert source_faults(config) == ([], [])
    check_before_spark(config, [date(2024, 10, 27)], Listings())


@pytest.mark.parametrize(("days_ago", "error_after"), [(2, timedelta(hours=50)), (3, None)])
def test_freshness_is_checked_of_a_log_that_still_grows_and_else_a_comment(
    tmp_path: Path, days_ago: int, error_after: timedelta | None
) -> None:
    move = datetime.combine(utc_now().date() - timedelta(days=days_ago), time()) - datetime(2024, 10, 26)
    rows = [row | {"InvoiceDate": row["InvoiceDate"] + move} for row in ROWS]
    starter = starter_config(str(write_log(tmp_path, "parquet", rows)), file=tmp_path / "userrep.yaml")
    assert "freshness: {warn_after: 26h, error_after: 50h} " in starter.text
    assert loaded(starter, tmp_path).freshness.error_after == error_after


def test_paths_are_relative_to_the_file_unless_they_are_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_log(tmp_path, "parquet")
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    file = Path("conf/userrep.yaml")
    assert "  path: ../log.parquet\n" in starter_config("log.parquet", file=file).text
    assert "  path: log.parquet\n" in starter_config("log.parquet").text
    assert f"  path: {path}\n" in starter_config(str(path), file=file).text
    assert source_faults(loaded(starter_config("log.parquet", file=file), tmp_path / "conf")) == ([], [])


def test_items_and_users_are_described_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"sku": ["s1", "s2"], "title": ["a", "b"]}), tmp_path / "items.parquet")
    days = [datetime(2024, 1, 1)] * 10
    users = pa.table({"customer": range(10), "land: x": ["de", "fr"] * 5, "a\nb": ["x", "y"] * 5, "joined_at": days})
    pq.write_table(users, tmp_path / "users.parquet")
    log = str(write_log(tmp_path, "parquet"))
    starter = starter_config(log, items=str(tmp_path / "items.parquet"), users=str(tmp_path / "users.parquet"))
    config = loaded(starter, tmp_path)
    assert config.items is not None
    assert config.items.columns.model_dump(exclude_none=True) == {"item_id": "sku", "text": "title"}
    assert config.users is not None
    assert config.users.columns.model_dump() == {"user_id": "customer", "registered_at": "joined_at"}
    assert config.users.attributes == ["land: x", "a\nb"]
    assert set(config.item_vectors) == {"behaviour", "content"}


@pytest.mark.parametrize(
    ("name", "days", "written"),
    [
        ("dt", [0], "partition: {column: dt, holds: event_date}"),
        ("day of load", [0, 1], "partition: {column: day of load, holds: ingestion_date, max_lateness: 3d}"),
        ("dt", [0, 5], "partition: {column: dt, holds: ingestion_date, max_lateness: 10d}"),
        ("dt", [0, 8], None),
        ("dt", [-1], None),
        ("month", [0], None),
    ],
)
def test_folders_of_dates_are_described_as_partitions_if_the_sample_fits_them(
    tmp_path: Path, name: str, days: list[int], written: str | None
) -> None:
    for k, row in enumerate(ROWS):
        day = f"{row['InvoiceDate'] + timedelta(days=days[k % len(days)]):{'%Y-%m' if name == 'month' else '%Y-%m-%d'}}"
        folder = tmp_path / "log" / f"{name}={day}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([row]), folder / f"{k}.parquet")
    starter = starter_config(str(tmp_path / "log"), file=tmp_path / "userrep.yaml")
    found = [" ".join(line.split()) for line in starter.text.splitlines() if "partition:" in line]
    assert [line.partition(" #")[0] for line in found] == ([written] if written else [])
    assert source_faults(loaded(starter, tmp_path)) == ([], [])


def test_what_cannot_be_guessed_is_left_open_and_named(tmp_path: Path) -> None:
    rows = [{"foo": 1, "bar": 2, "ts": 1714521600}]
    pq.write_table(pa.table({"x": [1.5]}), tmp_path / "other.parquet")
    other = str(tmp_path / "other.parquet")
    starter = starter_config(str(write_log(tmp_path, "parquet", rows)), items=other, users=other)
    keys = [line.split(":")[0] for line in starter.open_keys]
    assert keys == [
        "events.columns.user_id", "events.columns.item_id", "events.columns.event_at", "items.columns.item_id",
        "users.columns.user_id",
    ]  # fmt: skip
    assert "(ts is not a time that Spark reads" in starter.open_keys[2]
    assert starter.open_keys[0].endswith("Fill it in; columns: foo, bar, ts.")
    config = loaded(starter, tmp_path)
    assert config.events.all_sources["events"].columns.user_id == "FILL_ME"
    assert "events.columns.user_id: no column 'FILL_ME'; columns found: foo, bar, ts." in source_faults(config)[0]


def test_a_short_log_is_warned_of_and_small_days_are_allowed(tmp_path: Path) -> None:
    rows = ROWS[:90] + [ROWS[0] | {"InvoiceDate": ROWS[0]["InvoiceDate"] + timedelta(minutes=k)} for k in range(400)]
    starter = starter_config(str(write_log(tmp_path, "parquet", rows)))
    assert starter.warnings == ["the log has 30 days, and training with evaluation needs 63."]
    assert starter.as_of is None
    assert loaded(starter, tmp_path).training.as_ofs.until is None
    many = [row | {"qty": k} for row in ROWS[3:300] for k in range(40)]
    starter = starter_config(str(write_log(tmp_path, "parquet", [ROWS[0], *many])))
    assert loaded(starter, tmp_path).events.min_day_share == 0


def test_all_paths_that_cannot_be_read_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        starter_config(str(tmp_path / "a"), items=str(tmp_path / "b"), users=str(tmp_path / "c"))
    assert [fault.split(" ")[0] for fault in caught.value.faults] == ["events.path", "items.path", "users.path"]


def test_a_large_compressed_log_gets_no_end_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_log(tmp_path, "csv")
    zipped = tmp_path / "log.csv.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    monkeypatch.setattr(take_sample, "__kwdefaults__", {"max_text_bytes": 1 << 14})
    starter = starter_config(str(zipped))
    assert starter.warnings == [
        "the end of the log is not in the sample. Set training.as_ofs.until and choose --as-of."
    ]  # fmt: skip
    assert (starter.as_of, loaded(starter, tmp_path).training.as_ofs.until) == (None, None)
    assert "rows, about 2024-01-01 to 2024-0" in starter.text
    findings = inspect_log(loaded(starter, tmp_path))["verdict"]
    assert "events: the end of the log is not in the sample; its last day may be later." in [
        finding["what"] for finding in findings
    ]
    starter = starter_config(str(path))
    assert (starter.warnings, starter.as_of) == ([], date(2024, 10, 27))
    assert "rows, about 2024-01-01 to 2024-10-26" in starter.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("foo://me:SECRETPASS@host/x.csv", r"items.path: must not contain a password \(the environment of driver and "),
        ("a`b.csv", r"items.path: must not contain backticks\.$"),
    ],
)
def test_a_path_that_no_configuration_may_have_is_refused_first(tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        starter_config(str(write_log(tmp_path, "csv")), items=path)
    assert "SECRET" not in str(caught.value)


def test_names_that_are_not_printable_are_written_as_escapes(tmp_path: Path) -> None:
    rows = [{"user\nid": row["Customer ID"], "item\tid": row["StockCode"], "at": row["InvoiceDate"]} for row in ROWS]
    starter = starter_config(str(write_log(tmp_path, "parquet", rows)))
    assert '    user_id: "user\\nid"  ' in starter.text
    config = loaded(starter, tmp_path)
    assert config.events.all_sources["events"].columns.item_id == "item\tid"
    assert source_faults(config) == ([], [])


def test_a_log_without_a_past_event_gets_no_dates_and_a_warning(tmp_path: Path) -> None:
    starter = starter_config(str(write_log(tmp_path, "parquet", [ROWS[0] | {"InvoiceDate": datetime(2090, 1, 1)}])))
    assert starter.warnings == ["no row has a readable time up to tomorrow. Check events.columns.event_at."]
    assert (starter.as_of, loaded(starter, tmp_path).training.as_ofs.until) == (None, None)
