"""The cost plan: shares of measured work, storage, and what teams of their own would pay."""

import json
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import add_spaces, snapshot
from userrep.config import Config
from userrep.errors import UsageError
from userrep.operations.cost_plan import Size, Storage, Work, compare, measured_runs, plan_for
from userrep.spaces.registry import find_space, mark_ready, promote
from userrep.spaces.snapshots import record_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.open import open_tables
from userrep.store.schemas import JOB_RUNS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

NOW = datetime(2024, 5, 1, 12)
SIZE = Size(
    users=1_000, events_per_day=1_000, consumers=3, log_days=10, retrain_days=10, core_hour_price=2.0,
    gb_month_price=0.5,
)  # fmt: skip
STAGES = (
    "build_activity_tiles", "refresh_user_features", "embed_users", "publish_snapshot", "train_item_vectors",
    "build_user_features", "train_autoencoder",
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(config: Config) -> Tables:
    """Tables after one run of each stage, of an hour of tasks each, for 1,000 events and 100 users."""
    tables = open_tables(config, None)
    outputs = json.dumps({"num_events": 1_000, "spark": {"task_seconds": 3600.0, "shuffle_bytes": 0}})
    row = {"run_id": "r", "outcome": "done", "reason": "", "started_at": NOW, "seconds": 1.0, "num_rows": 100}
    row |= {"inputs": "{}", "outputs": outputs, "config_hash": "", "code_hash": ""}
    tables.add(JOB_RUNS, [row | {"stage": stage} for stage in STAGES])
    return tables


def hours(tables: Tables, config: Config, size: Size = SIZE) -> dict[str, float]:
    return {of.stage: of.core_hours for of in plan_for(tables, config, size).work}


def test_each_space_in_use_is_embedded_and_published_every_night(tables: Tables, config: Config) -> None:
    record_snapshots(tables, [replace(snapshot(date(2024, 5, 1)), num_users=100)])
    once = hours(tables, config)
    assert (once["embed_users"], once["publish_snapshot"], once["refresh_user_features"]) == pytest.approx((10, 10, 10))
    add_spaces(tables, "s001-a", "s002-b", "s003-c")  # the last one stays a candidate
    for space_id in ("s001-a", "s002-b"):
        mark_ready(tables, find_space(tables, space_id))
    promote(tables, find_space(tables, "s001-a"))
    twice = hours(tables, config)
    assert (twice["embed_users"], twice["publish_snapshot"]) == pytest.approx((20, 20))
    same = ("build_activity_tiles", "refresh_user_features", "train_autoencoder")
    assert [twice[stage] for stage in same] == [once[stage] for stage in same]


def test_users_are_those_of_the_newest_published_snapshot(tables: Tables, config: Config) -> None:
    of_date = [replace(snapshot(date(2024, 5, day)), num_users=num) for day, num in ((3, 200), (1, 50), (2, 10))]
    again = replace(snapshot(date(2024, 5, 3), revision=2), num_users=400)
    older = replace(snapshot(date(2024, 5, 2), revision=3), num_users=20)
    staged = replace(snapshot(date(2024, 5, 4), state="staged"), num_users=7)
    record_snapshots(tables, [again, older, *of_date, staged])
    found = hours(tables, config)
    assert found["refresh_user_features"] == pytest.approx(1_000 / 400)
    assert found["train_autoencoder"] == pytest.approx(1_000 / 400 / 10)
    assert found["embed_users"] == pytest.approx(10)  # by the rows that the run has written


def test_without_a_published_snapshot_there_is_no_plan(tables: Tables, config: Config) -> None:
    record_snapshots(tables, [snapshot(date(2024, 5, 1), state="refused")])
    with pytest.raises(
        UsageError, match=r"estimate: no snapshot is published yet\. Run `userrep pipeline --as-of DATE`"
    ):
        plan_for(tables, config, SIZE)


def test_a_snapshot_whose_users_were_all_erased_gives_no_rate(tables: Tables, config: Config) -> None:
    erased = replace(snapshot(date(2024, 5, 2)), num_users=0)
    record_snapshots(tables, [replace(snapshot(date(2024, 5, 1)), num_users=50), erased])
    assert hours(tables, config)["refresh_user_features"] == pytest.approx(1_000 / 50)
    record_snapshots(tables, [replace(snapshot(date(2024, 5, 1)), num_users=0)])
    with pytest.raises(UsageError, match="no snapshot is published yet"):
        plan_for(tables, config, SIZE)


def test_a_month_is_thirty_nights_and_the_storage() -> None:
    work = [Work("refresh_user_features", "user", 1, 1.0, 0.0), Work("train_autoencoder", "user", 1, 1.0, 0.0)]
    storage = [Storage("user_embeddings", "user", 1, 8.0), Storage("user_item_days", "event", 1, 4.0)]
    assert compare(SIZE, work, storage) == pytest.approx({
        "shared_core_hours": 2.0, "own_core_hours": 3.0, "shared_gb": 12.0, "own_gb": 12.0,
        "shared_price": 30 * 2 * 2.0 + 12 * 0.5, "own_price": 30 * 3 * 2.0 + 12 * 0.5,
        "saved_core_hours": 1 / 3, "saved_price": 60 / 186,
    })  # fmt: skip
    free = compare(SIZE, work[1:], storage[:1])
    assert (free["own_price"], free["saved_core_hours"], free["saved_price"]) == (0.0, 0.0, 0.0)


def test_the_later_one_of_two_equal_runs_gives_the_rate(tables: Tables) -> None:
    (row,) = tables.ledger(JOB_RUNS, stage="embed_users")
    for hour in (14, 13):
        later = {"run_id": f"r{hour}", "started_at": datetime(2024, 5, 1, hour)}
        tables.add(JOB_RUNS, [row.asDict() | later])
    assert measured_runs(tables)["embed_users"][0].run_id == "r14"


def test_embeddings_are_listed_in_each_storage_type_and_the_total_has_the_configured_one(
    tables: Tables, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [replace(snapshot(date(2024, 5, day), dim=120), num_users=100) for day in (1, 2)]
    small = replace(rows[1], gates=json.dumps({"dim": 120, "storage": "float16"}))
    record_snapshots(tables, [rows[0], small])
    monkeypatch.setattr(FileTables, "num_bytes", lambda *_: 200 * (20 + 3 * 120))  # 4 bytes a number, and 2
    settings = config.snapshots.model_copy(update={"storage": "int8"})
    plan = plan_for(tables, config.model_copy(update={"snapshots": settings}), SIZE)
    found = {name: embeddings.bytes_each for name, embeddings in plan.embeddings.items()}
    assert found == pytest.approx({"float32": 20 + 480, "float16": 20 + 240, "int8": 20 + 150})
    assert plan.storage[-1] == plan.embeddings["int8"]
    snapshots_kept = 14 + 26
    assert plan.embeddings["float32"].gb == pytest.approx(500 * 1_000 * snapshots_kept / 1e9)
