"""A stream runs in one process at a time."""

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.builders import config_of
from userrep.errors import AlreadyRunningError
from userrep.store.file_tables import FileTables
from userrep.store.leases import held
from userrep.streaming.checkpoint import stream_lease
from userrep.workflows import stream

pytestmark = pytest.mark.fast


def test_a_second_process_of_a_stream_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "newest_published", lambda _: date(2024, 5, 1))
    monkeypatch.setattr(stream, "_stream", lambda _, query_id, *__, **___: query_id)
    work = SimpleNamespace(tables=FileTables(None, str(tmp_path)), config=config_of(tmp_path), check=lambda: None)
    with held(work.tables, stream_lease("stream")):
        with pytest.raises(AlreadyRunningError, match="stream-stream is already running"):
            stream.stream_embeddings(cast(Any, work), until_empty=True, new_query_id=None)
        other = stream.stream_embeddings(cast(Any, work), until_empty=True, new_query_id="other")
    assert cast(Any, other) == "other"
