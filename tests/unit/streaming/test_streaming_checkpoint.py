"""A stream's folder: with what it was begun, and when it may not go on from there."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from userrep.config import Config
from userrep.errors import UsageError
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES, REJECTED_EVENTS, TableSchema
from userrep.store.tables import Tables
from userrep.streaming.checkpoint import StreamCheckpoint

pytestmark = pytest.mark.fast

SCHEMAS = {"events": '{"type": "struct", "fields": []}'}
DAY, NEXT_DAY = date(2024, 5, 1), date(2024, 5, 2)


def config_with(folder: Path, **stream: Any) -> Config:
    return config_of(folder, stream={"events": {"path": "arriving"}} | stream)


@pytest.fixture
def tables(tmp_path: Path) -> FileTables:
    return FileTables(None, str(tmp_path / "root"))


@pytest.fixture
def checkpoint(tables: FileTables) -> StreamCheckpoint:
    return StreamCheckpoint(tables, "clicks")


def begun(checkpoint: StreamCheckpoint, *queries: str) -> None:
    """Let queries have finished their first batch."""
    for query in queries:
        for kind in ("offsets", "commits"):
            Path(checkpoint.folder, query, kind).mkdir(parents=True)
            Path(checkpoint.folder, query, kind, "0").touch()


def has_written(tables: Tables, query_id: str, table: TableSchema = EMBEDDING_UPDATES) -> None:
    """Let a stream have committed its first batch."""
    tables.create(table)
    values = {"space_id": "s1", "as_of": "2024-05-01", "event_date": "2024-05-01", "revision": "0"}
    keys = {name: values[name] for name in table.partition_by}
    tables.add_files(table, [TableFile("part.parquet", 10, 1, keys)], transaction=(query_id, 0))


def never() -> dict[str, str]:
    raise AssertionError("schemas were looked for")


def test_what_a_stream_was_begun_with_is_written_once(tmp_path: Path, checkpoint: StreamCheckpoint) -> None:
    assert checkpoint.claim(config_with(tmp_path), lambda: SCHEMAS, since=DAY) == (SCHEMAS, DAY)
    begun(checkpoint, "embeddings")
    written = json.loads(Path(tmp_path, "root/streams/clicks/stream.json").read_text())
    assert written["sources"] == {"events": "arriving"}
    assert (written["open_days"], written["broker"], written["schemas"]) == (3, None, SCHEMAS)
    later = checkpoint.claim(config_with(tmp_path, open_days=5), never, since=NEXT_DAY)
    assert later == (SCHEMAS, DAY)
    assert json.loads(Path(tmp_path, "root/streams/clicks/stream.json").read_text()) == written


@pytest.mark.parametrize(
    "leave",
    [
        lambda tables, checkpoint: begun(checkpoint, "rejects"),
        lambda tables, checkpoint: has_written(tables, "clicks"),
        lambda tables, checkpoint: has_written(tables, "clicks-rejects", REJECTED_EVENTS),
    ],
    ids=["a checkpoint", "rows", "rejected rows"],
)
def test_a_new_stream_may_not_have_the_name_of_one_that_was_begun(
    tmp_path: Path, tables: Tables, checkpoint: StreamCheckpoint, leave: Callable[[Tables, StreamCheckpoint], None]
) -> None:
    leave(tables, checkpoint)
    with pytest.raises(UsageError, match="--new-query-id: the stream already exists, got clicks"):
        checkpoint.check(config_with(tmp_path), is_new=True)
    StreamCheckpoint(checkpoint.tables, "other").check(config_with(tmp_path), is_new=True)


@pytest.mark.parametrize("left", [(), ("embeddings",), ("rejects",)])
def test_a_stream_that_has_written_does_not_go_on_without_its_whole_checkpoint(
    tmp_path: Path, tables: Tables, checkpoint: StreamCheckpoint, left: tuple[str, ...]
) -> None:
    begun(checkpoint, *left)
    checkpoint.check(config_with(tmp_path), is_new=False)  # nothing was written yet: nothing is passed over
    has_written(tables, "clicks")
    with pytest.raises(
        UsageError, match=r"stream clicks: .* its checkpoint .*/streams/clicks is missing or incomplete"
    ):
        checkpoint.check(config_with(tmp_path), is_new=False)


def test_every_setting_that_the_state_depends_on_is_named_when_it_has_changed(
    tmp_path: Path, tables: FileTables, checkpoint: StreamCheckpoint
) -> None:
    checkpoint.claim(config_with(tmp_path), lambda: SCHEMAS, since=DAY)
    changed = config_of(
        tmp_path, windows_days=[2, 9],
        stream={"events": {"topic": "clicks"}, "kafka": {"bootstrap_servers": "b:1"}, "open_days": 4},
    )  # fmt: skip
    checkpoint.check(changed, is_new=False)  # without a checkpoint there is no state
    begun(checkpoint, "embeddings", "rejects")
    with pytest.raises(UsageError, match=r"started with open_days 3, got 4\. Start a new stream with") as caught:
        checkpoint.check(changed, is_new=False)
    assert [fault.split()[4] for fault in caught.value.faults] == ["sources", "broker", "open_days", "lineage"]
    assert caught.value.faults[1].startswith("stream clicks: started with broker None, got b:1.")
    has_written(tables, "clicks")
    checkpoint.check(config_with(tmp_path, trigger="9s", late="1h", max_files_per_batch=1), is_new=False)


def test_a_start_that_finished_no_batch_is_followed_by_one_with_other_settings(
    tmp_path: Path, checkpoint: StreamCheckpoint
) -> None:
    checkpoint.claim(config_with(tmp_path), lambda: SCHEMAS, since=DAY)
    offsets = Path(checkpoint.folder, "embeddings", "offsets", "0")  # of the batch that failed
    offsets.parent.mkdir(parents=True)
    offsets.touch()
    assert checkpoint.claim(config_with(tmp_path), lambda: SCHEMAS, since=DAY) == (SCHEMAS, DAY)
    assert offsets.exists()
    corrected = config_with(tmp_path, events={"topic": "clicks"}, kafka={"bootstrap_servers": "b:1"}, open_days=4)
    checkpoint.check(corrected, is_new=True)
    start = checkpoint.claim(corrected, lambda: {"events": "other"}, since=NEXT_DAY)
    assert start == ({"events": "other"}, NEXT_DAY)
    assert json.loads(Path(checkpoint.folder, "stream.json").read_text())["open_days"] == 4
    assert not offsets.exists()


def test_a_lost_file_of_settings_is_written_again_and_the_checkpoint_stays(
    tmp_path: Path, checkpoint: StreamCheckpoint
) -> None:
    begun(checkpoint, "embeddings", "rejects")
    assert checkpoint.claim(config_with(tmp_path), lambda: SCHEMAS, since=DAY) == (SCHEMAS, None)
    assert Path(checkpoint.folder, "stream.json").exists()
    assert Path(checkpoint.folder, "embeddings", "commits", "0").exists()


def test_the_name_of_a_stream_is_no_path(checkpoint: StreamCheckpoint) -> None:
    assert checkpoint.folder == f"{checkpoint.tables.artifacts_root}/streams/clicks"
    with pytest.raises(UsageError, match=r"query id '\.\./clicks' is not a valid name"):
        _ = StreamCheckpoint(checkpoint.tables, "../clicks").folder
