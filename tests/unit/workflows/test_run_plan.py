"""The plan of a run from ledgers that are written by hand: which stages run, and what they are expected to take."""

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import snapshot
from tests.unit.report.test_report_gather import a_run
from tests.unit.workflows.test_schedule_spaces import register
from userrep.config import Config
from userrep.features.ledger import feature_sets, log_hash
from userrep.ids import short_hash
from userrep.items.versions import lineage_of, versions_of
from userrep.operations.stage_rates import Prediction, StageRates
from userrep.spaces.snapshots import Snapshot, record_snapshots, snapshot_inputs
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.open import open_tables
from userrep.store.schemas import FEATURE_SETS, ITEM_VECTOR_VERSIONS, JOB_RUNS, TILE_DAYS
from userrep.store.tables import Tables
from userrep.tiles.inventory.inventory import Inventory, mapping_of
from userrep.tiles.inventory.log_days import LogDay
from userrep.tiles.ledger import tile_ledger
from userrep.workflows.run_plan import PlannedStage, RunPlan
from userrep.workflows.schedule import Schedule

pytestmark = pytest.mark.fast

AS_OF, UNTIL = date(2024, 5, 31), date(2024, 5, 3)  # the end of training of ``register``
FIRST = date(2024, 3, 1)
NOW = datetime(2024, 5, 31, 2)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


@pytest.fixture
def tables(config: Config) -> Tables:
    """Tables with all tiles before the as-of date, item vectors, and a serving space."""
    tables = open_tables(config, None)
    days = [FIRST + timedelta(days=k) for k in range((AS_OF - FIRST).days)]
    counts = {"revision": 1, "content": "c", "num_events": 5, "num_tiles": 5, "num_rejected": 0, "built_at": NOW}
    mapping = mapping_of(config.events)
    tables.add(TILE_DAYS, [counts | {"event_date": day, "fingerprint": f"f:{mapping}"} for day in days])
    versions = [UNTIL + timedelta(days=7 * k) for k in range(-6, 5)]
    row = {"lineage_id": lineage_of(config), "num_items": 1, "num_vectors": {}, "largest": 1.0, "built_at": NOW}
    tables.add(ITEM_VECTOR_VERSIONS, [row | {"valid_from": day} for day in versions])
    register(tables, config, ("s000", "serving"))
    return tables


def add_features(tables: Tables, config: Config, as_ofs: Sequence[date], *, num_users: int = 100) -> None:
    versions, days = versions_of(tables, config, anchor=UNTIL), tile_ledger(tables).latest
    row = {"lineage_id": versions.lineage_id, "valid_from": UNTIL, "sides_hash": short_hash({}), "built_at": NOW}
    row |= {"num_users": num_users, "num_inexact": 0, "begun_by": None}
    rows = [row | {"as_of": day, "log_hash": log_hash(days, config, versions, day)} for day in as_ofs]
    tables.add(FEATURE_SETS, rows)


def add_snapshots(tables: Tables, config: Config, as_ofs: Sequence[date], state: str = "published") -> None:
    space = Schedule(config, tables, Inventory([], 0, 0), AS_OF).space_to_use()
    sets = feature_sets(tables, space.lineage_id)
    snapshots = [snapshot(day, space="s000", state=state) for day in as_ofs]
    record_snapshots(
        tables,
        [Snapshot(**vars(s) | {"inputs_hash": snapshot_inputs(space, sets[s.as_of])}) for s in snapshots],
    )


def plan(
    tables: Tables, config: Config, as_of: date = AS_OF, *, changed: Sequence[date] = (), unread: int = 0
) -> RunPlan:
    """Plan a run on a log whose days, up to the one before ``as_of``, have the rows of their tiles, unless changed."""
    days = [FIRST + timedelta(days=k) for k in range((as_of - FIRST).days)]
    log_days = [LogDay(day, 10, 0, "other" if day in changed else "f") for day in days]
    schedule = Schedule(config, tables, Inventory(log_days, 0, 3), as_of)
    return RunPlan(schedule, StageRates.of(tables), unread)


def outcomes(stages: Sequence[PlannedStage]) -> dict[str, bool]:
    return {stage.stage: stage.runs for stage in stages}


DAILY = ["take_inventory", "build_activity_tiles", "train_item_vectors", "refresh_user_features", "embed_users"]


def test_a_date_that_is_up_to_date_needs_only_the_inventory(tables: Tables, config: Config) -> None:
    add_features(tables, config, [AS_OF])
    add_snapshots(tables, config, [AS_OF])
    stages = plan(tables, config).daily()
    assert outcomes(stages) == dict.fromkeys([*DAILY, "publish_snapshot"], False) | {"take_inventory": True}
    assert stages[1].reason == "91 days up to date"
    assert stages[3].reason == "1 as-of date up to date"


def test_the_next_day_is_built_embedded_compared_and_published(tables: Tables, config: Config) -> None:
    add_features(tables, config, [AS_OF])
    add_snapshots(tables, config, [AS_OF])
    stages = plan(tables, config, AS_OF + timedelta(days=1)).daily()
    runs = dict.fromkeys([*DAILY, "monitor_drift", "publish_snapshot"], True)
    assert outcomes(stages) == runs | {"train_item_vectors": False}
    assert stages[1].reason == "1 day new or changed"


def test_a_changed_day_of_a_window_makes_its_date_stale_before_the_tiles_are_built(
    tables: Tables, config: Config
) -> None:
    add_features(tables, config, [AS_OF])
    add_snapshots(tables, config, [AS_OF])
    span = timedelta(days=14)  # the history, twice the longest window
    inside, outside = AS_OF - span, AS_OF - span - timedelta(days=1)
    assert outcomes(plan(tables, config, changed=[inside]).daily())["refresh_user_features"]
    stages = outcomes(plan(tables, config, changed=[outside]).daily())
    assert (stages["build_activity_tiles"], stages["refresh_user_features"]) == (True, False)


def test_files_of_unknown_days_may_change_every_date(tables: Tables, config: Config) -> None:
    add_features(tables, config, [AS_OF])
    add_snapshots(tables, config, [AS_OF])
    stages = plan(tables, config, unread=2).daily()
    assert outcomes(stages)["refresh_user_features"]
    assert stages[1].reason == "91 days up to date; days of 2 files not known yet"
    assert stages[1].expected.seconds is None


def test_a_staged_snapshot_is_published_without_being_embedded_again(tables: Tables, config: Config) -> None:
    add_features(tables, config, [AS_OF])
    add_snapshots(tables, config, [AS_OF], state="staged")
    stages = outcomes(plan(tables, config).daily())
    assert (stages["embed_users"], stages["monitor_drift"], stages["publish_snapshot"]) == (False, False, True)


def test_a_pipeline_trains_only_without_a_space_or_for_a_retraining(tables: Tables, config: Config) -> None:
    stages = outcomes(plan(tables, config).pipeline())
    assert (stages["train_autoencoder"], stages["embed_users"], stages["promote"]) == (False, True, False)
    stages = outcomes(plan(tables, config).pipeline(retrain=True))
    assert (stages["train_autoencoder"], stages["promote"]) == (True, False)
    assert "check_quality" not in stages  # off in this configuration


def test_a_retraining_predicts_dates_that_are_only_trained_on_by_the_share_of_their_users(
    tables: Tables, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    amounts: list[float] = []

    def predict(_: StageRates, stage: str, amount: float | None) -> Prediction:
        amounts.extend([amount or 0] if stage == "build_user_features" else [])
        return Prediction(None, None)

    monkeypatch.setattr(StageRates, "predict", predict)
    add_features(tables, config, [AS_OF])
    planned = plan(tables, config)
    sampled = planned.schedule.sampled_dates(None)
    others = {*planned.schedule.feature_dates(None)} - {*sampled, AS_OF}
    planned.pipeline(retrain=True)
    few = config.training.model_copy(update={"max_rows": 10 * len(planned.schedule.training_as_ofs)})
    sampling = plan(tables, config.model_copy(update={"training": few}))
    sampling.pipeline(retrain=True)
    assert sampling.schedule.num_sampled_buckets == math.ceil(NUM_BUCKETS / 10)
    assert sampled
    assert others
    assert amounts == [100 * (len(others) + len(sampled)), 100 * len(others) + 100 / 8 * len(sampled)]


def test_the_first_pipeline_runs_everything_and_predicts_nothing(tmp_path: Path) -> None:
    config = config_of(tmp_path, quality={"self_check": True})
    stages = plan(open_tables(config, None), config).pipeline()
    assert all(stage.runs and stage.expected == (None, None) for stage in stages)
    assert [stage.stage for stage in stages[-5:]] == [
        "check_quality", "train_autoencoder", "embed_users", "publish_snapshot", "promote",
    ]  # fmt: skip
    assert not (tmp_path / "root").exists()


def test_a_backfill_has_the_stages_of_a_group_of_eight_dates_together(tables: Tables, config: Config) -> None:
    dates = [AS_OF - timedelta(days=k) for k in range(10, 0, -1)]
    add_features(tables, config, dates[:3])
    add_snapshots(tables, config, dates[:3])
    stages = plan(tables, config).backfill(dates)
    built = [stage for stage in stages if stage.stage == "build_user_features"]
    assert [stage.reason for stage in built] == [
        "5 of 8 as-of dates: not built yet",
        "2 of 2 as-of dates: not built yet",
    ]


def test_only_published_dates_whose_days_changed_are_rebuilt_as_stale(tables: Tables, config: Config) -> None:
    dates = [AS_OF - timedelta(days=k) for k in (40, 2, 0)]
    add_features(tables, config, dates)
    add_snapshots(tables, config, dates)
    ((space, stale),) = plan(tables, config, changed=[AS_OF - timedelta(days=2)]).stale_published()
    assert (space.space_id, stale) == ("s000", [AS_OF])
    assert plan(tables, config).stale_published()[0][1] == []


def test_users_times_dates_scale_the_recorded_runs(tables: Tables, config: Config) -> None:
    add_features(tables, config, [AS_OF - timedelta(days=1)], num_users=100)
    row: dict[str, Any] = a_run("embed_users", "r1", NOW, spark={"task_seconds": 40.0})
    tables.add(JOB_RUNS, [row | {"num_rows": 200, "seconds": 20.0}])
    (stage,) = [stage for stage in plan(tables, config).daily() if stage.stage == "embed_users"]
    assert stage.expected == (10.0, 20.0)
