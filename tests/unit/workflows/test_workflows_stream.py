"""A stream begins after the newest published snapshot of any space in use, and runs in one process at a time."""

from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import snapshot
from userrep.errors import AlreadyRunningError, UsageError
from userrep.items.versions import lineage_of
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote
from userrep.spaces.snapshots import PUBLISHED, REFUSED, record_snapshots
from userrep.store.leases import held
from userrep.store.open import open_tables
from userrep.streaming.checkpoint import stream_lease
from userrep.workflows import stream
from userrep.workflows.stream import newest_published

pytestmark = pytest.mark.fast

D1 = date(2024, 5, 1)
DAY = timedelta(days=1)


@pytest.fixture
def work(tmp_path: Path) -> Any:
    """What a pipeline has of configuration and tables, without Spark."""
    config = config_of(tmp_path)
    return SimpleNamespace(config=config, tables=open_tables(config, None))


def add_space(work: Any, space_id: str, *as_ofs: date, lineage_id: str = "", state: str = PUBLISHED) -> None:
    lineage_id = lineage_id or lineage_of(work.config)
    add_candidate(work.tables, space_id=space_id, lineage_id=lineage_id, trained_until=D1, content_hash="x")
    if as_ofs:
        record_snapshots(work.tables, [snapshot(as_of, space=space_id, state=state) for as_of in as_ofs])


def test_the_newest_published_date_is_taken_over_all_spaces_in_use(work: Any) -> None:
    add_space(work, "s1", D1, D1 + 2 * DAY)
    mark_ready(work.tables, find_space(work.tables, "s1"))
    promote(work.tables, find_space(work.tables, "s1"))
    assert newest_published(work) == D1 + 2 * DAY
    add_space(work, "s2", D1 + 3 * DAY)
    assert newest_published(work) == D1 + 2 * DAY  # a candidate is not in use yet
    mark_ready(work.tables, find_space(work.tables, "s2"))
    assert newest_published(work) == D1 + 3 * DAY


def test_snapshots_that_were_refused_or_are_of_another_lineage_do_not_count(work: Any) -> None:
    add_space(work, "s1", D1)
    mark_ready(work.tables, find_space(work.tables, "s1"))
    promote(work.tables, find_space(work.tables, "s1"))
    record_snapshots(work.tables, [snapshot(D1 + DAY, space="s1", state=REFUSED)])
    add_space(work, "s2", D1 + 5 * DAY, lineage_id="lother")
    mark_ready(work.tables, find_space(work.tables, "s2"))
    assert newest_published(work) == D1


def test_without_a_published_snapshot_there_is_nothing_to_stream(work: Any) -> None:
    add_space(work, "s1", D1)
    with pytest.raises(
        UsageError,
        match=r"stream: no snapshot is published yet\. Run `userrep pipeline --as-of DATE` to train a space and",
    ):
        newest_published(work)


def test_a_second_process_of_a_stream_is_refused(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "newest_published", lambda _: D1)
    monkeypatch.setattr(stream, "_stream", lambda _, query_id, *__, **___: query_id)
    work.check = lambda: None
    with held(work.tables, stream_lease("stream")):
        with pytest.raises(AlreadyRunningError, match="stream-stream is already running"):
            stream.stream_embeddings(work, until_empty=True, new_query_id=None)
        other: Any = stream.stream_embeddings(work, until_empty=True, new_query_id="other")
    assert other == "other"
