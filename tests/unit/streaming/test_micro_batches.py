"""Micro-batches: which errors are waited out, when a batch is run, and what a batch commits."""

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import Row

from tests.support.builders import config_of
from userrep.config import Stream
from userrep.errors import UsageError, UserrepError
from userrep.features.sums.item_matrix import VectorFiles
from userrep.features.sums.stream_base import StreamBase
from userrep.items.versions import Versions
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote
from userrep.store.data_files import TableFile
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES, USER_OPENINGS
from userrep.store.tables import Tables
from userrep.streaming import micro_batches
from userrep.streaming.micro_batches import BatchResult, MicroBatches, encoded_spaces, last_seen_day, pause
from userrep.streaming.redis_store import online_store

pytestmark = pytest.mark.fast

D1, D2, D3 = (date(2024, 5, day) for day in (1, 2, 3))
NO_BASE = "task 3 failed: ValueError: no stream base for as-of date 2024-05-09, the newest is 2024-05-08\n  at Worker"
NO_REDIS = "Job aborted: redis.exceptions.TimeoutError: Timeout reading from socket"


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    tables = FileTables(None, str(tmp_path / "root"))
    tables.create(EMBEDDING_UPDATES)
    return tables


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let waiting take no time; return how long it would have taken."""
    seconds: list[float] = []
    monkeypatch.setattr(micro_batches, "pause", lambda wait, is_stopping: seconds.append(wait))
    return seconds


def batches_on(tables: Tables, folder: Path, **more: Any) -> MicroBatches:
    return MicroBatches(tables, config_of(folder), "clicks", **more)


def failing(monkeypatch: pytest.MonkeyPatch, *texts: str, result: BatchResult | None = None) -> None:
    """Let a batch fail with each of these texts, then end."""
    left = list(texts)

    def once(self: MicroBatches, rows: Any, batch_id: int) -> BatchResult:
        if left:
            raise RuntimeError(left.pop(0))
        return result or BatchResult()

    monkeypatch.setattr(MicroBatches, "_run", once)


# Waiting


def test_a_missing_opening_and_a_redis_that_is_away_are_waited_for_ever_longer_up_to_a_minute(
    tables: Tables, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    failing(monkeypatch, NO_BASE, *[NO_REDIS] * 8, result=BatchResult(7))
    run = batches_on(tables, tmp_path)
    run(None, 4)  # type: ignore[arg-type]
    assert waits == [1, 2, 4, 8, 15, 30, 60, 60, 60]
    no_base = "no stream base for as-of date 2024-05-09, the newest is 2024-05-08. Run `userrep daily` to build it"
    no_redis = f"Redis does not answer (RuntimeError: {NO_REDIS})"
    assert lines == [
        f"stream: batch 4 waits: {no_redis if k else no_base}; next attempt in {wait} s" for k, wait in enumerate(waits)
    ]
    assert run.results == {4: BatchResult(7)}


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("redis.exceptions.ResponseError: WRONGTYPE", {}),
        ("OSError: No space left on device", {}),
        (NO_REDIS, {"is_stopping": lambda: True}),
    ],
)
def test_what_does_not_pass_and_what_fails_at_the_end_is_raised_at_once(
    tables: Tables, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch, text: str, more: dict[str, Any]
) -> None:
    failing(monkeypatch, text)
    run = batches_on(tables, tmp_path, **more)
    with pytest.raises(RuntimeError, match=text):
        run(None, 0)  # type: ignore[arg-type]
    assert (waits, run.results, run.failed) == ([], {}, None)


def test_a_stream_that_ends_when_it_is_empty_gives_up_on_a_missing_opening(
    tables: Tables, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, NO_REDIS, NO_BASE)
    run = batches_on(tables, tmp_path, gives_up=True)
    with pytest.raises(RuntimeError, match="no stream base"):
        run(None, 0)  # type: ignore[arg-type]
    assert waits == [1]  # a server that is away is waited for all the same
    assert isinstance(run.failed, UserrepError)
    assert "2024-05-09, the newest is 2024-05-08. Run `userrep daily` to build it; --until-empty does" in str(
        run.failed
    )


def test_a_pause_lasts_as_long_as_asked_unless_it_is_time_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = 0.0, 0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def is_stopping() -> bool:
        nonlocal looks
        looks += 1
        return looks > 3

    monkeypatch.setattr(micro_batches, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    pause(2.0, lambda: False)
    assert 2.0 <= now < 2.5
    start = now
    pause(60.0, is_stopping)
    assert now - start < 2


# Committing


class Rows:
    """Rows of a micro-batch: what tasks have written of them, and how often they were only evaluated."""

    def __init__(self, *written: Row) -> None:
        self.written, self.saved = list(written), 0

    def mapInArrow(self, work: Callable[..., Any], schema: str) -> "Rows":
        return self

    def collect(self) -> list[Row]:
        return self.written

    @property
    def write(self) -> "Rows":
        return self

    def format(self, name: str) -> "Rows":
        assert name == "noop"
        return self

    def mode(self, name: str) -> "Rows":
        return self

    def save(self) -> None:
        self.saved += 1


def file_row(name: str, as_of: date, newest: date, seconds: list[float]) -> Row:
    at = datetime(newest.year, newest.month, newest.day, 23, 59)
    file = TableFile(name, 10, len(seconds), {"space_id": "s1", "as_of": as_of})
    return Row(file=file.to_json(), newest_at=at, seconds=seconds)


@pytest.fixture
def run(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MicroBatches:
    """A stream whose tasks need nothing pinned."""
    monkeypatch.setattr(MicroBatches, "encoding", lambda self: None)
    return batches_on(tables, tmp_path, today=D2)


def test_a_batch_is_committed_once_with_its_number_and_measured(run: MicroBatches, tables: Tables) -> None:
    first, second = [float(k) for k in range(1, 61)], [float(k) for k in range(61, 102)]
    rows: Any = Rows(file_row("a", D2, D1, first), file_row("b", D3, D2, second))
    run(rows, 7)
    assert {(file.path, file.num_rows) for file in tables.files(EMBEDDING_UPDATES, lambda _: True)} == {
        ("a", 60), ("b", 41),
    }  # fmt: skip
    assert tables.last_transaction(EMBEDDING_UPDATES, "clicks") == 7
    assert run.results[7] == BatchResult(101, 51.0, 96.0)
    run(rows, 7)
    assert (rows.saved, run.results[7]) == (1, BatchResult())
    assert len(tables.files(EMBEDDING_UPDATES, lambda _: True)) == 2


def test_a_late_day_does_not_turn_the_clock_back(run: MicroBatches) -> None:
    late: Any = Rows(file_row("a", D2, D1, [1.0]))
    run(late, 0)
    assert run.today == D2
    newer: Any = Rows(file_row("b", D3, D3, [1.0]))
    run(newer, 1)
    assert run.today == D3
    nothing: Any = Rows()
    run(nothing, 2)
    assert (run.results[2], run.today) == (BatchResult(0, None, None), D3)


# What a stream finds


def test_the_newest_day_of_streams_is_the_day_before_the_newest_date_that_they_wrote(tables: Tables) -> None:
    assert last_seen_day(tables) is None
    files = [TableFile(f"{as_of}", 1, 1, {"space_id": "s1", "as_of": as_of}) for as_of in (D2, D3, D1)]
    tables.add_files(EMBEDDING_UPDATES, files, transaction=("clicks", 0))
    assert last_seen_day(tables) == D2


def test_a_stream_encodes_the_spaces_in_use_of_its_lineage(tables: Tables) -> None:
    for space_id, lineage_id in (("s1", "l1"), ("s2", "l2"), ("s3", "l1"), ("s4", "l1")):
        add_candidate(tables, space_id=space_id, lineage_id=lineage_id, trained_until=D1, content_hash="c")
    for space_id in ("s1", "s2", "s3"):
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, "s1"))
    assert [space.space_id for space in encoded_spaces(tables, "l1")] == ["s1", "s3"]  # s4 is not ready
    assert [space.space_id for space in encoded_spaces(tables, "l2")] == ["s2"]


def test_a_stream_base_is_read_at_the_table_version_of_its_ledger_row(
    tables: FileTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batches, "vector_files", lambda *args: dict.fromkeys(args[-1], VectorFiles((), 0.0)))
    tables.create(USER_OPENINGS)

    def commit(name: str, lineage_id: str, as_of: date = D2) -> int:
        """Replace the rows of a base; return the table's version."""
        file = TableFile(name, 1, 1, {"lineage_id": lineage_id, "as_of": as_of, "user_slice": "0"}, (0, 9))
        since = tables.version(USER_OPENINGS)
        tables.commit(USER_OPENINGS, [file], replacing=lambda values: values == file.values, since=since)
        return tables.version(USER_OPENINGS)

    def files(table_version: int, lineage_id: str = "l1") -> list[str]:
        base = StreamBase(D2, D1, D1, {}, "hash", 1, table_version)
        pinned = batches_on(tables, tmp_path)._pinned_base(Versions(lineage_id, D1, 1, frozenset()), base)
        return [uri.rpartition("/")[2] for uri in pinned.files.uris]

    commit("other-lineage", "l2")
    commit("other-date", "l1", D3)
    before, after = commit("old", "l1"), commit("new", "l1")
    assert (files(before), files(after)) == (["old"], ["new"])
    assert files(after, "l2") == ["other-lineage"]


def test_the_online_store_is_the_configured_one_with_its_secret_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert online_store(Stream()) is None
    stream = Stream.model_validate({"redis": {"url": "redis://:${REDIS_WORD}@host/1", "expires_after": "36h"}})
    with pytest.raises(UsageError, match=r"stream\.redis\.url: not set in the environment: REDIS_WORD"):
        online_store(stream)
    monkeypatch.setenv("REDIS_WORD", "hush")
    store = online_store(stream)
    assert store is not None
    assert (store.url, store.expires_after.total_seconds()) == ("redis://:hush@host/1", 36 * 3600)
