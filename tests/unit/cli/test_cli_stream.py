"""``userrep stream``: its options and results. Streams and comparisons themselves need Spark, and are stubs here."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Userrep, config_file
from userrep.cli import stream as cli_stream
from userrep.spaces.registry import add_candidate
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables
from userrep.streaming import verify
from userrep.streaming.verify import StreamAgreement
from userrep.workflows import jobs, stream
from userrep.workflows.stream_supervisor import StreamProgress

pytestmark = pytest.mark.fast


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return config_file(tmp_path)


def test_the_figures_of_a_stream_are_printed_when_it_has_ended(
    userrep: Userrep, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def streamed(work: Any, **options: Any) -> StreamProgress:
        asked.append(options)
        return StreamProgress(last_batch=4, batches=2, events=1000, rows=30, batch_seconds=1.23456)

    def stopping() -> bool:
        return False

    monkeypatch.setattr(stream, "stream_embeddings", streamed)
    monkeypatch.setattr(cli_stream, "context_for_run", lambda _: None)
    monkeypatch.setattr(jobs, "stop_on_signals", lambda _: stopping)
    printed = userrep("stream", "--config", config)
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.splitlines() == [
        "last_batch: 4",
        "batches: 2",
        "events: 1000",
        "rows: 30",
        "after_close: 0",
        "batch_seconds: 1.235",
        "worst_p95_seconds: None",
    ]
    as_json = userrep("stream", "--config", config, "--until-empty", "--new-query-id", "second", "--json")
    assert json.loads(as_json.out) == {
        "last_batch": 4,
        "batches": 2,
        "events": 1000,
        "rows": 30,
        "after_close": 0,
        "batch_seconds": 1.235,
        "worst_p95_seconds": None,
    }
    assert asked == [
        {"until_empty": False, "new_query_id": None, "is_stopping": stopping},
        {"until_empty": True, "new_query_id": "second", "is_stopping": stopping},
    ]


@pytest.fixture
def verified(
    userrep: Userrep, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, dict[str, Any]]]:
    """Return a function that compares with this outcome, as text and as JSON."""
    tables = FileTables(None, str(tmp_path / "root"))
    add_candidate(tables, space_id="s1", lineage_id="l1", trained_until=date(2024, 4, 1), content_hash="x")
    monkeypatch.setattr(cli_stream, "tables_of", lambda _: tables)

    def run(*counts: int) -> tuple[int, str, dict[str, Any]]:
        def compared(of: Tables, space: Any, day: date) -> StreamAgreement:
            assert (of, space.space_id, day) == (tables, "s1", date(2024, 5, 2))
            return StreamAgreement(*counts)

        monkeypatch.setattr(verify, "verify_updates", compared)
        command = ("stream", "verify", "--config", config, "--as-of", "2024-05-02", "--space", "s1")
        text, as_json = userrep(*command), userrep(*command, "--json")
        assert text.code == as_json.code
        return text.code, text.out, json.loads(as_json.out)

    return run


def test_vectors_that_are_all_equal_end_with_0(verified: Callable[..., tuple[int, str, dict[str, Any]]]) -> None:
    code, text, found = verified(1200, 0, 0, 0)
    assert code == 0
    assert text.splitlines() == [
        "users            count",
        "equal            1,200",
        "different            0",
        "not streamed         0",
        "not in snapshot      0",
        "bit-identical: 100.0000%",
    ]
    assert found == {"equal": 1200, "different": 0, "not_streamed": 0, "not_in_snapshot": 0, "share_equal": 1.0}


@pytest.mark.parametrize("counts", [(3, 1, 0, 0), (3, 0, 1, 0), (3, 0, 0, 1)])
def test_one_vector_that_is_not_equal_ends_with_3(
    verified: Callable[..., tuple[int, str, dict[str, Any]]], counts: tuple[int, ...]
) -> None:
    code, text, found = verified(*counts)
    assert (code, found["share_equal"]) == (3, 0.75)
    assert text.endswith("bit-identical: 75.0000%\n")


def test_an_unknown_space_is_refused(userrep: Userrep, config: Path, tmp_path: Path, no_spark: None) -> None:
    tables = FileTables(None, str(tmp_path / "root"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_stream, "tables_of", lambda _: tables)
        answer = userrep("stream", "verify", "--config", config, "--as-of", "2024-05-02", "--space", "s1")
    assert (answer.code, answer.out) == (2, "")
    assert answer.faults == ["space s1: not in the registry. Known spaces: none."]
