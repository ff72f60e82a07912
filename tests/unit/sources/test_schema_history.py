"""Schema changes of a log: new columns are accepted, removed or changed ones are refused."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import types as T

from userrep.config import EventSource
from userrep.errors import UsageError
from userrep.sources.open_log import ListedFile, OpenLog, _columns
from userrep.sources.schema_history import check_schema
from userrep.store.file_tables import FileTables
from userrep.store.schemas import SOURCE_FILES, SOURCE_SCHEMAS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

BASE = {"user_id": "string", "geo": "struct<country:string>"}


class Log:
    """A log at ``path``, whose columns Spark infers."""

    def __init__(self, tables: Tables, path: str) -> None:
        columns = {"user_id": "user_id", "item_id": "item_id", "event_at": "event_at"}
        self._tables, self._log = tables, EventSource(path=path, columns=columns)

    def check(self, **columns: str) -> None:
        fields = [T.StructField(name, kind_of(text)) for name, text in columns.items()]
        frame: Any = SimpleNamespace(schema=T.StructType(fields))
        names = _columns(frame.schema, self._log)
        check_schema(self._tables, OpenLog("events", self._log, frame, [], names, None))


def kind_of(text: str) -> T.DataType:
    if text.startswith("struct<"):
        parts = (part.split(":") for part in text.removeprefix("struct<").removesuffix(">").split(","))
        return T.StructType([T.StructField(name, kind_of(kind)) for name, kind in parts])
    return {"string": T.StringType(), "int": T.IntegerType(), "bigint": T.LongType()}[text]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return FileTables(None, str(tmp_path / "root"))


def recorded(tables: Tables) -> list[dict[str, str]]:
    return [row["columns"] for row in sorted(tables.ledger(SOURCE_SCHEMAS), key=lambda row: row.seen_at)]


def test_columns_are_recorded_once_and_again_after_one_is_added(tables: Tables) -> None:
    log = Log(tables, "/data/log")
    log.check(**BASE)
    log.check(**BASE)
    log.check(weight="int", **BASE, _corrupt_record="string")
    first = {"user_id": "string", "geo.country": "string"}
    assert recorded(tables) == [first, first | {"weight": "int"}]


def test_all_removed_and_changed_columns_are_reported_together_with_the_way_to_accept_them(tables: Tables) -> None:
    log = Log(tables, "/data/log")
    log.check(**BASE, weight="int", note="string")
    with pytest.raises(UsageError) as caught:
        log.check(user_id="string", geo="struct<city:string>", weight="bigint", note="string", more="int")
    *faults, cure = caught.value.faults
    assert faults == [
        "events: column 'geo.country' (string) was removed.",
        "events: column 'weight' changed from int to bigint.",
    ]
    assert cure.endswith(f"DELETE FROM {tables.name(SOURCE_SCHEMAS)} WHERE source = '/data/log'.")
    assert len(recorded(tables)) == 1


@pytest.mark.parametrize("is_known", [True, False])
def test_an_old_file_that_is_written_again_removes_no_column(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    settings = EventSource(path="/data/log", columns=dict.fromkeys(("user_id", "item_id", "event_at"), "x"))
    old, young = (ListedFile(f"file:/data/log/{k}", 1, datetime(2024, 5, 9 - k)) for k in (1, 2))
    if is_known:
        row = {"path": old.path, "size": 2, "modified_at": datetime(2024, 5, 1), "mapping": "m"}
        tables.add(SOURCE_FILES, [row | {"event_date": None, "num_rows": 0, "num_rejected": 0, "checksum": Decimal(0)}])
    whole = {"user_id": "string", "more": "string"}
    tables.add(SOURCE_SCHEMAS, [{"source": "/data/log", "columns": whole, "seen_at": datetime(2024, 5, 1)}])
    monkeypatch.setattr(OpenLog, "columns_of", lambda _, paths: {young.path: whole}[paths[0]])
    frame: Any = None
    log = OpenLog("events", settings, frame, [old, young], {"user_id": "string"}, None)
    if is_known:
        check_schema(tables, log)
        assert recorded(tables) == [whole]
    else:
        with pytest.raises(UsageError, match=r"column 'more' \(string\) was removed"):
            check_schema(tables, log)


def test_columns_are_compared_with_the_latest_record(tables: Tables) -> None:
    log = Log(tables, "/data/log")
    log.check(**BASE)
    log.check(**BASE, weight="int")
    with pytest.raises(UsageError, match=r"column 'weight' \(int\) was removed"):
        log.check(**BASE)


def test_each_source_has_columns_of_its_own(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Log(tables, "log").check(**BASE)
    Log(tables, "other").check(user_id="int")
    with pytest.raises(UsageError, match="column 'user_id' changed from string to int"):
        Log(tables, str(tmp_path / "log")).check(user_id="int")  # the first again, by its absolute path


def test_a_json_log_is_read_as_a_whole_if_its_sample_lacks_a_recorded_field(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EventSource(
        path="/data/log", format="json", columns=dict.fromkeys(("user_id", "item_id", "event_at"), "x")
    )
    whole = {"user_id": "string", "tags": "array"}
    reads: list[OpenLog] = []
    monkeypatch.setattr(OpenLog, "columns_of", lambda log, paths: reads.append(log) or whole)
    frame: Any = None

    def check(**columns: str) -> None:
        check_schema(tables, OpenLog("events", settings, frame, [], columns, None))

    earlier = {"user_id": "string", "tags": "array<string>"}  # as earlier versions recorded it
    tables.add(SOURCE_SCHEMAS, [{"source": "/data/log", "columns": earlier, "seen_at": datetime(2024, 5, 1)}])
    check(user_id="string", tags="array")
    assert not reads
    check(user_id="string")
    assert len(reads) == len(recorded(tables)) == 1
    del whole["tags"]
    with pytest.raises(UsageError, match=r"column 'tags' \(array\) was removed"):
        check(user_id="string")
