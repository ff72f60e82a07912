"""Erased users do not come back: neither by a rollback nor by a restored table."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from benchmarks.nights import files_naming
from tests.support.builders import AS_OF
from tests.system.faults.contents import tables_of
from tests.system.faults.fault_world import NIGHT, World
from userrep.erasure import requests
from userrep.erasure.requests import Erasure
from userrep.spaces.registry import find_space, list_spaces, promote, rollback
from userrep.spaces.snapshots import list_snapshots
from userrep.store.open import open_tables
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.workflows.daily import backfill, daily
from userrep.workflows.pipeline import run_pipeline

pytestmark = pytest.mark.full

FORGOTTEN = ["u0000006", "u0000007"]


def forget(world: World, spark: SparkSession, *users: str, now: bool) -> dict[str, Any]:
    return Erasure(open_tables(world.config, spark), world.config, users).run(now=now)


def with_vectors(root: Path) -> set[str]:
    return {row["user_id"] for row in tables_of(root)["user_embeddings"]}


def test_a_rollback_and_the_snapshots_built_after_it_contain_no_erased_user(
    spark: SparkSession, trained: World, tmp_path: Path
) -> None:
    world = trained.copy(tmp_path / "two spaces")
    tables = open_tables(world.config, spark)
    first = find_space(tables, None)
    run_pipeline(world.pipeline(spark), retrain=True)
    (second,) = [space for space in list_spaces(tables) if space.space_id != first.space_id]
    promote(tables, second)
    daily(world.pipeline(spark, NIGHT), on_time=True)
    assert {s.as_of for s in list_snapshots(tables, first.space_id)} >= {NIGHT}
    assert with_vectors(world.root) >= set(FORGOTTEN)

    assert forget(world, spark, *FORGOTTEN, now=True)["num_done"] == 1
    assert rollback(tables).space_id == first.space_id
    daily(world.pipeline(spark, NIGHT + timedelta(days=1)), on_time=True)
    days = [AS_OF - timedelta(days=k) for k in (9, 8)]
    backfill(world.pipeline(spark, AS_OF), days)

    served = list_snapshots(tables, first.space_id)
    assert {s.as_of for s in served} >= {*days, NIGHT, NIGHT + timedelta(days=1)}
    for snapshot in [*served, *list_snapshots(tables, second.space_id)]:
        users = {row.user_id for row in tables.read(USER_EMBEDDINGS, [snapshot.key]).collect()}
        assert len(users) == snapshot.num_users > 0
        assert users.isdisjoint(FORGOTTEN)
    assert files_naming(world.root, *FORGOTTEN) == []


def test_a_table_restored_to_before_an_erasure_loses_the_users_in_the_next_daily_run(
    spark: SparkSession, trained: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "CLOCKS", timedelta(0))  # files of the restored version count as old
    world = trained.copy(tmp_path / "restored")
    table = DeltaTable(str(world.root / "tables" / "user_embeddings"))
    before = table.version()
    forget(world, spark, *FORGOTTEN, now=False)
    assert with_vectors(world.root).isdisjoint(FORGOTTEN)
    DeltaTable(table.table_uri).restore(before)
    assert with_vectors(world.root) >= set(FORGOTTEN)
    assert set(forget(world, spark, now=False)["rows"]) == {"user_embeddings"}
    assert with_vectors(world.root).isdisjoint(FORGOTTEN)
    assert forget(world, spark, now=True)["num_done"] == 1
    assert files_naming(world.root, *FORGOTTEN) == []
