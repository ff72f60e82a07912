"""Plans from rates that runs have left: what scales with users, what with events, and what is saved."""

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import snapshot
from userrep.config import Config
from userrep.errors import UsageError
from userrep.features.ledger import features_table
from userrep.items.versions import lineage_of
from userrep.operations.cost_plan import CostPlan, Size, plan_for
from userrep.spaces.snapshots import record_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.open import open_tables
from userrep.store.schemas import FEATURE_SETS, JOB_RUNS, SUM_GENERATIONS, TILE_DAYS
from userrep.store.tables import Tables

pytestmark = pytest.mark.fast

DAY = date(2024, 5, 1)
NOW = datetime(2024, 5, 1, 12)
SIZE = Size(
    users=2_000,
    events_per_day=50_000,
    consumers=4,
    log_days=10,
    retrain_days=30,
    core_hour_price=1.0,
    gb_month_price=0.0,
)
SECONDS = {  # of tasks, for 1,000 events and for 2 users
    "build_activity_tiles": 36.0, "refresh_user_features": 3.6, "embed_users": 0.36, "publish_snapshot": 0.036,
    "train_item_vectors": 36.0, "build_user_features": 0.0, "train_autoencoder": 0.0,
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(config: Config) -> Tables:
    tables = open_tables(config, None)
    record_snapshots(tables, [snapshot(DAY)])
    return tables


def record(tables: Tables, stages: dict[str, float], at: datetime = NOW, **more: Any) -> None:
    """Record runs for 1,000 events and 2 users."""
    rows = []
    for stage, seconds in stages.items():
        outputs = {"num_events": 1_000, "spark": {"task_seconds": seconds, "shuffle_bytes": 1e6}}
        row = {"run_id": "r", "stage": stage, "outcome": "done", "reason": "", "started_at": at, "seconds": 1.0}
        row |= {"num_rows": 2, "inputs": "{}", "outputs": json.dumps(outputs), "config_hash": "", "code_hash": ""}
        rows.append(row | more)
    tables.add(JOB_RUNS, rows)


def hours(plan: CostPlan) -> dict[str, float]:
    return {of.stage: of.core_hours for of in plan.work}


def test_work_grows_by_events_or_by_users_and_a_training_is_spread_over_its_nights(
    tables: Tables, config: Config
) -> None:
    record(tables, SECONDS)
    plan = plan_for(tables, config, SIZE)
    assert hours(plan) == pytest.approx({
        "build_activity_tiles": 36 / 3600 * 50, "refresh_user_features": 1.0, "embed_users": 0.1,
        "publish_snapshot": 0.01, "train_item_vectors": 10 / 30, "build_user_features": 0, "train_autoencoder": 0,
    })  # fmt: skip
    assert {of.stage: of.shuffle_gb for of in plan.work}["build_activity_tiles"] == pytest.approx(0.05)
    found = plan.summary
    assert found["own_core_hours"] == pytest.approx(4 * 1.5)
    assert found["shared_core_hours"] == pytest.approx(0.5 + 1.0 + 0.11 + 10 / 30)
    assert found["saved_price"] == found["saved_core_hours"] == pytest.approx(1 - found["shared_price"] / (30 * 6))


def test_the_newest_run_that_did_something_counts(tables: Tables, config: Config) -> None:
    record(tables, SECONDS)
    record(tables, {"embed_users": 3.6}, NOW + timedelta(days=1))
    record(tables, {"embed_users": 99.0}, NOW + timedelta(days=2), outcome="failed")
    record(tables, {"embed_users": 99.0}, NOW + timedelta(days=2), num_rows=0)
    record(tables, {"embed_users": 99.0}, NOW + timedelta(days=2), outputs="{}")
    assert hours(plan_for(tables, config, SIZE))["embed_users"] == pytest.approx(1.0)


def test_of_runs_that_record_their_work_the_largest_one_gives_the_rate(tables: Tables, config: Config) -> None:
    record(tables, SECONDS)
    few = {"num_events": 2, "spark": {"task_seconds": 30.0, "shuffle_bytes": 1e6}}  # a night of a sample
    record(tables, {"build_activity_tiles": 0.0}, NOW + timedelta(days=1), outputs=json.dumps(few))
    record(tables, {"embed_users": 3.6}, NOW + timedelta(days=1), num_rows=1)
    found = hours(plan_for(tables, config, SIZE))
    assert (found["build_activity_tiles"], found["embed_users"]) == pytest.approx((0.5, 0.1))


def test_storage_follows_what_is_kept(tables: Tables, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tables, SECONDS)
    monkeypatch.setattr(FileTables, "num_bytes", lambda *_: 4_000)
    lineage_id = lineage_of(config)
    of = {"event_date": DAY, "revision": 1, "fingerprint": "", "content": "", "num_rejected": 0, "built_at": NOW}
    tables.add(TILE_DAYS, [of | {"num_events": 400, "num_tiles": 300}])
    of = {"lineage_id": lineage_id, "as_of": DAY, "valid_from": DAY, "num_users": 2, "built_at": NOW}
    tables.add(SUM_GENERATIONS, [of | {"generation": 1, "revision_by_day": {}}])
    tables.add(FEATURE_SETS, [of | {"log_hash": "", "sides_hash": "", "num_inexact": 0}])
    found = {of.table: (of.bytes_each, of.gb) for of in plan_for(tables, config, SIZE).storage}
    assert found == {
        "user_item_days": (10, pytest.approx(10 * 500_000 / 1e9)),
        "user_window_sums": (2_000, pytest.approx(2_000 * 2_000 / 1e9)),
        features_table(config, lineage_id).name: (2_000, pytest.approx(2_000 * 2_000 / 1e9)),
        "user_embeddings": (2_000, pytest.approx(2_000 * 2_000 * (14 + 26) / 1e9)),
    }


def test_what_has_not_run_is_named_with_the_cure(tables: Tables, config: Config) -> None:
    record(tables, {stage: seconds for stage, seconds in SECONDS.items() if stage != "refresh_user_features"})
    with pytest.raises(
        UsageError, match=r"^estimate: no run of refresh_user_features is recorded .* `userrep daily` for"
    ):
        plan_for(tables, config, SIZE)


def test_a_price_that_is_no_number_is_refused(tables: Tables, config: Config) -> None:
    odd = Size(**vars(SIZE) | {"core_hour_price": float("nan")})
    with pytest.raises(UsageError, match="estimate: prices must be finite, got nan and "):
        plan_for(tables, config, odd)
