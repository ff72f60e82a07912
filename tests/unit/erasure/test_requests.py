"""Erased users are in no table and do not come back, and other users are not affected."""

import hashlib
import itertools
import json
import os
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from benchmarks.nights import files_naming
from tests.support.builders import config_of, event, interrupted_at, write_rows
from tests.support.embedding_tables import publish, snapshot
from userrep.audiences.audience import Audience
from userrep.config import Config
from userrep.erasure import requests
from userrep.erasure.request_states import ASKED, BEGUN, DELETED, DONE, newest_requests
from userrep.erasure.requests import Erasure
from userrep.erasure.rewrite import ErasedUsers, erase_rows
from userrep.errors import AlreadyRunningError, UserrepError
from userrep.features.profiles import refresh_profiles
from userrep.sources.tombstones import NO_TOMBSTONES, add_tombstones, read_tombstones, request_id_of
from userrep.store.delta_commits import DeltaCommits
from userrep.store.export_files import MANIFEST
from userrep.store.export_folder import recorded_folder
from userrep.store.file_tables import FileTables
from userrep.store.leases import held
from userrep.store.open import open_tables
from userrep.store.schemas import REJECTED_EVENTS, TRAINING_SETS, USER_EMBEDDINGS, USER_ITEM_DAYS, USER_PROFILES
from userrep.store.spark_tables import SparkTables
from userrep.store.tables import Tables
from userrep.streaming.checkpoint import stream_lease
from userrep.tiles.build import build_tiles
from userrep.tiles.inventory.inventory import take_inventory
from userrep.workflows import export

pytestmark = pytest.mark.default

D1, D2 = date(2024, 5, 1), date(2024, 5, 2)
ANN, BOB, EVE = (f"{k}c9a7f2e-5b1d-4e0c-9d53-7f6a1c2b3d4{k}" for k in range(3))
VECTORS = {ANN: np.ones(4, np.float32), BOB: np.full(4, 2, np.float32), EVE: np.full(4, 3, np.float32)}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(spark: SparkSession, config: Config) -> Tables:
    return open_tables(config, spark)


@pytest.fixture
def forget(tables: Tables, config: Config) -> Callable[..., dict[str, Any]]:
    def run(*user_ids: str, now: bool = False) -> dict[str, Any]:
        return Erasure(tables, config, user_ids).run(now=now)

    return run


def users_in(tables: Tables, table: Any = USER_EMBEDDINGS) -> set[str]:
    return {row.user_id for row in tables.read(table).select("user_id").distinct().collect()}


# Tombstones


def test_a_tombstone_matches_a_user_and_does_not_contain_the_id(tables: Tables, tmp_path: Path) -> None:
    assert not read_tombstones(tables)
    assert add_tombstones(tables, [ANN, BOB, ANN]) == 2
    assert add_tombstones(tables, [BOB, EVE]) == 1
    found = read_tombstones(tables)
    assert found.mask(pa.array([ANN, None, "ann", EVE, ANN])).tolist() == [True, False, False, True, True]
    assert files_naming(tmp_path / "root", ANN, BOB, EVE) == []
    assert request_id_of(tables, [ANN, BOB]) == request_id_of(tables, [BOB, ANN]) != request_id_of(tables, [ANN])


def test_a_replay_of_the_log_restores_no_user(tables: Tables, tmp_path: Path, spark: SparkSession) -> None:
    """JSON is left to Spark; tasks that read Parquet themselves are in test_forgotten.py."""
    config = config_of(tmp_path, events={"format": "json", "max_rejected_share": 0.5})
    rows = [event(user, "i1", f"{D1} 10:00:00") for user in (ANN, BOB, EVE)] + [event(BOB, None, f"{D1} 11:00:00")]

    def arrive(name: str, rows: list[dict[str, Any]]) -> None:
        path = write_rows(tmp_path / "rows" / f"{name}.parquet", rows)
        spark.read.parquet(str(path)).write.mode("append").json(str(tmp_path / "events"))

    def build() -> Any:
        return build_tiles(tables, config, take_inventory(tables, config.events), before=D2)

    arrive("a", rows)
    assert build().num_events == 3
    assert BOB in tables.read(REJECTED_EVENTS).first().row  # type: ignore[union-attr]
    Erasure(tables, config, [BOB]).run(now=False)
    assert users_in(tables, USER_ITEM_DAYS) == {ANN, EVE}
    assert tables.read(REJECTED_EVENTS).isEmpty()
    arrive("b", [event(user, "i2", f"{D1} 12:00:00") for user in (BOB, EVE)] + [event(BOB, None, f"{D1} 13:00:00")])
    assert build().num_events == 3
    newest = tables.read(USER_ITEM_DAYS).where("revision = 2").select("user_id", "item_id").collect()
    assert sorted(map(tuple, newest)) == [(ANN, "i1"), (EVE, "i1"), (EVE, "i2")]
    assert tables.read(REJECTED_EVENTS).isEmpty()


def test_users_and_picks_that_come_again_are_passed_over(tables: Tables, tmp_path: Path) -> None:
    users = {"path": str(tmp_path / "users"), "columns": {"user_id": "user_id"}, "attributes": ["country"]}
    config = config_of(tmp_path, users=users)
    write_rows(tmp_path / "users" / "a.parquet", [{"user_id": user, "country": "se"} for user in (ANN, BOB)])
    refresh_profiles(tables, config)
    Erasure(tables, config, [BOB]).run(now=False)
    assert users_in(tables, USER_PROFILES) == {ANN}
    write_rows(tmp_path / "users" / "b.parquet", [{"user_id": user, "country": "se"} for user in (BOB, EVE)])
    refresh_profiles(tables, config)
    assert users_in(tables, USER_PROFILES) == {ANN, EVE}


# What is deleted, and when


def test_a_receipt_lists_what_is_erased_and_what_will_be_and_when(
    tables: Tables, forget: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tables, {snapshot(day): VECTORS for day in (D1, D2)})
    pinned = {"training_set_id": "t1", "name": "t", "space_id": "s001-a", "snapshot_ids": ["s001-a-20240501-r1"]}
    tables.add(TRAINING_SETS, [pinned, pinned | {"training_set_id": "t2", "snapshot_ids": ["s001-a-20240401-r1"]}])
    receipt = forget(BOB, "nobody")
    assert (receipt["num_users"], receipt["num_new"], receipt["num_with_rows"]) == (2, 2, 1)
    assert receipt["rows"] == {"user_embeddings": 2}
    assert receipt["training_sets"] == ["t1"]
    assert users_in(tables) == {ANN, EVE}
    assert BOB in {row.user_id for row in tables.read(USER_EMBEDDINGS, version=1).collect()}
    assert files_naming(tmp_path / "root", BOB)
    assert [row.state for row in newest_requests(tables)] == [DELETED]
    assert forget()["num_done"] == 0  # its week is not over
    publish(tables, {snapshot(D2, revision=2): VECTORS})  # by a run that was under way
    ticks = itertools.count()
    monkeypatch.setattr(requests, "utc_now", lambda: datetime(2099, 1, 1) + timedelta(seconds=next(ticks)))
    monkeypatch.setattr(requests, "RETENTION", timedelta(0))
    again = forget()  # what has come back goes, and has its time
    assert (again["rows"], again["num_done"]) == ({"user_embeddings": 1}, 1)
    assert [row.state for row in newest_requests(tables)] == [DONE]
    assert files_naming(tmp_path / "root", BOB) == []
    assert forget()["is_idle"]
    assert BOB not in json.dumps(receipt, default=str)


def test_what_is_asked_for_again_is_one_request(
    tables: Tables, forget: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    publish(tables, {snapshot(D1): VECTORS})
    first, again = forget(BOB, now=True), forget(BOB, now=True)
    assert files_naming(tmp_path / "root", BOB) == []
    assert (first["num_new"], first["num_with_rows"]) == (1, 1)
    assert (again["num_new"], again["num_with_rows"], again["rows"]) == (0, 0, {})
    assert [row.state for row in newest_requests(tables)] == [DONE]


@pytest.mark.parametrize("ends_by", [(BOB,), ()], ids=["the same request", "a nightly run"])
@pytest.mark.parametrize("step", ["_erase_from_tables", "_end_streams", "_vacuum"])
def test_a_request_that_was_cut_off_is_brought_to_its_end(
    tables: Tables, forget: Callable[..., dict[str, Any]], tmp_path: Path, step: str, ends_by: tuple[str, ...]
) -> None:
    publish(tables, {snapshot(D1): VECTORS})
    with interrupted_at(Erasure, step):
        forget(BOB, now=True)
    assert [row.state for row in newest_requests(tables)] == [DELETED if step == "_vacuum" else BEGUN]
    forget(*ends_by, now=True)
    assert [row.state for row in newest_requests(tables)] == [DONE]
    assert users_in(tables) == {ANN, EVE}
    assert files_naming(tmp_path / "root", BOB) == []


def test_a_request_that_was_cut_off_before_its_rows_were_searched_is_ended_by_a_search_of_all_files(
    tables: Tables, forget: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tables, {snapshot(D1): VECTORS})
    monkeypatch.setattr(requests, "CLOCKS", timedelta(0))  # as if the files were much older
    with interrupted_at(Erasure, "_erase_from_tables"):
        forget(BOB)
    assert forget()["rows"]["user_embeddings"] == 1
    assert users_in(tables) == {ANN, EVE}
    assert [row.state for row in newest_requests(tables)] == [DELETED]


def test_no_run_starts_while_files_are_deleted(
    tables: Tables, forget: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tables, {snapshot(D1): VECTORS})
    refused: list[str] = []

    def start(*_: Any, **__: Any) -> dict[str, str]:
        with pytest.raises(AlreadyRunningError) as error, held(tables, "daily"):
            pass
        refused.append(str(error.value))
        return {}

    monkeypatch.setattr(Erasure, "_end_streams", start)
    receipt = forget(BOB, now=True)
    assert (receipt["under_way"], receipt["num_done"]) == ([], 1)
    assert [line.startswith("delete_old_files is already running: run ") for line in refused] == [True]
    with held(tables, "daily"):  # afterwards, runs start again
        pass


def test_a_request_that_was_cut_off_before_its_tombstones_is_not_taken_for_done(
    tables: Tables, forget: Callable[..., dict[str, Any]]
) -> None:
    publish(tables, {snapshot(D1): VECTORS})
    with interrupted_at(requests, "add_tombstones"):
        forget(BOB)
    forget(now=True)
    assert [row.state for row in newest_requests(tables)] == [ASKED]
    forget(BOB, now=True)
    assert [row.state for row in newest_requests(tables)] == [DONE]
    assert users_in(tables) == {ANN, EVE}


def test_an_export_loses_the_user_and_stays_whole(
    tables: Tables, forget: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    publish(tables, {snapshot(D1): VECTORS})
    whole, cut_off, gone = (tmp_path / name for name in ("whole", "cut off", "gone"))
    for out in (whole, cut_off, gone):
        with recorded_folder(tables, str(out), "embeddings", D1, recorded=True):
            pass
    stored = tables.read(USER_EMBEDDINGS).select("user_id", "as_of", "embedding")
    rows = export.ExportedRows(USER_EMBEDDINGS, snapshot(D1).key, len(VECTORS), stored.schema)
    export._write(tables, rows, str(whole), D1, what="embeddings", details={"space_id": "s001-a"})
    before = json.loads((whole / MANIFEST).read_text())
    cut_off.mkdir()
    (cut_off / MANIFEST).write_text('{"state": "incomplete"}')
    (cut_off / ".part-00000.parquet-abc").write_text(BOB)
    receipt = forget(BOB)
    assert receipt["exports"] == {str(whole): "1 rows", str(cut_off): "0 rows"}
    manifest = json.loads((whole / MANIFEST).read_text())
    assert pq.read_table(whole)["user_id"].to_pylist() == [ANN, EVE]
    sha256 = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in whole.glob("*.parquet")}
    assert manifest == before | {"num_rows": 2, "sha256": sha256}
    assert files_naming(whole, BOB) + files_naming(cut_off, BOB) == []


def test_checkpoints_go_once_their_stream_has_not_run_for_a_week(
    tables: Tables, forget: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = tmp_path / "root" / "streams"
    for name in ("running", "stopped", "held"):
        (streams / name / "embeddings" / "commits").mkdir(parents=True)
        (streams / name / "embeddings" / "commits" / "0").touch()
    assert len(set(forget(BOB)["streams"].values())) == 1
    os.utime(streams / "running" / "embeddings" / "commits" / "0", (2**32, 2**32))  # in the year 2106
    monkeypatch.setattr(requests, "utc_now", lambda: datetime(2099, 1, 1))
    with held(tables, stream_lease("held")):
        results = forget(BOB)["streams"]
    assert results["stopped"].startswith("checkpoint removed")
    assert sorted(path.name for path in streams.iterdir()) == ["held", "running"]


def test_an_audience_loses_the_user(tables: Tables, forget: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    users = pa.table({"user_id": [BOB, ANN, EVE], "score": [0.9, 0.5, 0.1], "rank": pa.array([1, 2, 3], pa.int32())})
    Audience(users, {"as_of": D1, "space_id": "s001-a"}, tables).write(str(tmp_path / "out"))
    assert forget(BOB)["exports"] == {str(tmp_path / "out"): "1 rows"}
    assert pq.read_table(tmp_path / "out").equals(users.slice(1))
    assert files_naming(tmp_path / "out", BOB) == []


def test_rows_that_lie_in_another_run_s_new_files_are_found_there(
    tables: Tables, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tables, {snapshot(D1): VECTORS})
    add_tombstones(tables, [BOB])
    rewrite = DeltaCommits.rewrite

    def after_a_compaction(self: DeltaCommits, pairs: Any) -> set[str]:
        monkeypatch.setattr(DeltaCommits, "rewrite", rewrite)
        tables.spark.sql(f"OPTIMIZE {tables.name(USER_EMBEDDINGS)}")
        rows = tables.read(USER_EMBEDDINGS)
        tables.replace(rows.localCheckpoint(), USER_EMBEDDINGS, [{}])
        return rewrite(self, pairs)

    monkeypatch.setattr(DeltaCommits, "rewrite", after_a_compaction)
    erased = erase_rows(tables, USER_EMBEDDINGS, ErasedUsers.of(read_tombstones(tables), [BOB]))
    assert (erased.rows, len(erased.users)) == (1, 1)  # the row of each pass is counted only where it was erased
    assert users_in(tables) == {ANN, EVE}
    assert tables.read(USER_EMBEDDINGS).count() == 2


@pytest.mark.full
def test_tables_of_a_catalog_lose_rows_by_way_of_spark(spark: SparkSession, config: Config, tmp_path: Path) -> None:
    spark.sql(f"CREATE DATABASE erased LOCATION '{tmp_path}/erased'")
    try:
        catalog, gone = (
            SparkTables(spark, schema="`erased`", artifacts=str(tmp_path)),
            ErasedUsers(_tombstones_of(tmp_path, spark)),
        )
        rows = [("h", "0-of-1", 0, user, None, None, None, None) for user in (ANN, BOB)]
        catalog.append(spark.createDataFrame(rows, USER_PROFILES.fields()), USER_PROFILES)
        rejected = [(D1, 1, "why", f'{{"user_id": "{user}"}}') for user in (ANN, BOB)]
        catalog.append(spark.createDataFrame(rejected, REJECTED_EVENTS.fields()), REJECTED_EVENTS)
        assert [erase_rows(catalog, table, gone).rows for table in (USER_PROFILES, REJECTED_EVENTS)] == [1, 1]
        assert users_in(catalog, USER_PROFILES) == {ANN}
        assert catalog.read(REJECTED_EVENTS).count() == 1
        catalog.vacuum(USER_PROFILES, timedelta(0))
        assert files_naming(tmp_path / "erased" / "user_profiles", BOB) == []
    finally:
        spark.sql("DROP DATABASE erased CASCADE")


def test_a_merge_that_another_run_has_overtaken_asks_for_another_attempt(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, sql = SparkTables(spark, artifacts=str(tmp_path / "merged")), SparkSession.sql
    tables.add(REJECTED_EVENTS, [{"event_date": D1, "revision": 1, "row": BOB}])

    def overtaken(session: SparkSession, query: str, *args: Any, **frames: Any) -> Any:
        if query.startswith("MERGE"):
            raise RuntimeError("[DELTA_CONCURRENT_APPEND.WITH_PARTITION_HINT] Transaction conflict detected.")
        return sql(session, query, *args, **frames)

    monkeypatch.setattr(SparkSession, "sql", overtaken)
    with pytest.raises(UserrepError, match="rejected_events`: another run has changed the same rows meanwhile"):
        erase_rows(tables, REJECTED_EVENTS, ErasedUsers(_tombstones_of(tmp_path, spark)))


def _tombstones_of(tmp_path: Path, spark: SparkSession) -> Any:
    tables = FileTables(spark, str(tmp_path / "root"))
    add_tombstones(tables, [BOB])
    assert read_tombstones(tables) != NO_TOMBSTONES
    return read_tombstones(tables)
