"""Targets of training rows: what users did in the days after, and nothing at or after ``until``."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from tests.support.builders import config_of, write_rows
from userrep.features.build import read_features
from userrep.features.training_rows import valid_dates, with_split
from userrep.spaces.training_inputs import TrainingInputs, TrainingPlan, training_folder, training_inputs
from userrep.store.arrow import unpacked
from userrep.store.buckets import NUM_BUCKETS
from userrep.store.file_tables import FileTables
from userrep.store.filesystem import delete_folder, exists
from userrep.store.schemas import TRAINING_ROWS, TableSchema
from userrep.store.xxhash import bucket_of
from userrep.workflows.data_stages import build_activity_tiles, build_user_features, train_item_vectors
from userrep.workflows.run_context import RunContext

pytestmark = pytest.mark.default

FIRST, NUM_DAYS = date(2024, 1, 1), 70
UNTIL = date(2024, 3, 1)
ITEMS = {f"i{k}": [0.25 * k, 1.0 - 0.5 * k, float(k % 3)] for k in range(6)}  # i6 has no vector
Event = tuple[str, str, datetime]
Rows = dict[tuple[str, date], tuple[str, np.ndarray]]


def random_events(seed: int, days: int = NUM_DAYS) -> list[Event]:
    """Draw a log: most users come now and then, some late or no more after a while."""
    random, events = np.random.default_rng(seed), []
    for user in range(30):
        begins, ends = (0, days) if user % 3 else sorted(random.integers(0, days, 2))
        for day in range(begins, ends):
            for _ in range(random.poisson(0.15 + 0.01 * user)):
                second = int(random.integers(86_400))
                at = datetime(2024, 1, 1) + timedelta(days=day, seconds=second)  # UTC, as in the log
                events.append((f"u{user:02d}", f"i{random.integers(7)}", at))
    return events


def pipeline_on(spark: SparkSession, folder: Path, events: Sequence[Event], **vectors: Any) -> RunContext:
    """Build tiles and features of a log, for trainings with heads and without."""
    write_rows(folder / "events" / "log.parquet", [{"user_id": u, "item_id": i, "event_at": at} for u, i, at in events])
    write_rows(folder / "items.parquet", [{"item_id": item, "vector": vector} for item, vector in ITEMS.items()])
    config = config_of(
        folder,
        items={"path": str(folder / "items.parquet"), "columns": {"item_id": "item_id", "vector": "vector"}},
        item_vectors={"own": {"kind": "vector", "dim": 3}, **vectors},
        training={"as_ofs": {"until": UNTIL, "every_days": 5, "max_dates": 4}, "num_shards": 3, "batch_size": 3},
    )
    work = RunContext(config, spark)
    dates = sorted({*work.schedule.feature_dates(None), *without_heads(work).schedule.training_as_ofs})
    build_activity_tiles(work)
    train_item_vectors(work, dates)
    build_user_features(work, dates)
    return work


def without_heads(work: RunContext) -> RunContext:
    weights = {"next_items_weight": 0.0, "next_days_weight": 0.0}
    config = work.config.model_copy(update={"model": work.config.model.model_copy(update=weights)})
    return RunContext(config, work.tables.spark)


def plan_of(work: RunContext) -> TrainingPlan:
    return TrainingPlan(work.schedule.versions, work.schedule.training_as_ofs, work.schedule.until)


def rows_of(work: RunContext) -> tuple[TrainingInputs, Rows]:
    """Make training rows; return by user and as-of date each row's split and numbers."""
    config, as_ofs, lineage_id = work.config, work.schedule.training_as_ofs, work.schedule.versions.lineage_id
    if exists(training_folder(work.tables, "s1")):
        delete_folder(training_folder(work.tables, "s1"))
    inputs = training_inputs(work.tables, config, plan_of(work), space_id="s1")
    features = with_split(
        read_features(work.tables, config, lineage_id, as_ofs),
        held_out_share=config.training.held_out_share,
        later_dates=valid_dates(as_ofs),
        seed=config.training.seed,
    )
    names = {row.row_key: (row.user_id, row.as_of) for row in features.collect()}
    rows = work.tables.read(TRAINING_ROWS).toArrow().combine_chunks()
    numbers = unpacked(rows.column("x").chunk(0), inputs.layout.width + inputs.targets.width)
    keyed = zip(rows.column("row_key").to_pylist(), rows.column("split").to_pylist(), numbers, strict=True)
    found = {names[key]: (split, x.copy()) for key, split, x in keyed}
    assert len(found) == len(names) == rows.num_rows  # who came later has no row, and all others have one
    return inputs, found


@pytest.fixture(scope="module")
def work(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    return pipeline_on(spark, tmp_path_factory.mktemp("log"), random_events(seed=1))


@pytest.fixture(scope="module")
def plans() -> list[str]:
    """The plans by which the rows of ``made`` were written."""
    return []


@pytest.fixture(scope="module")
def made(work: RunContext, plans: list[str]) -> tuple[TrainingInputs, Rows]:
    replace = FileTables.replace

    def planned(self: FileTables, rows: DataFrame, table: TableSchema, where: str) -> None:
        if table is TRAINING_ROWS:
            plans.append(rows._jdf.queryExecution().executedPlan().toString())  # type: ignore[operator]
        replace(self, rows, table, where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileTables, "replace", planned)
        return rows_of(work)


def test_targets_are_what_plain_python_finds_in_the_days_after(
    work: RunContext, made: tuple[TrainingInputs, Rows]
) -> None:
    events, config = random_events(seed=1), work.config
    inputs, rows = made
    assert config.future_days == [2, 7]
    layout, targets, scaler = inputs.layout, inputs.targets, inputs.scaler
    part, as_ofs = {b.name: slice(b.start, b.stop) for b in targets.blocks}, work.schedule.training_as_ofs
    seen = {"active": 0, "absent": 0, "without a vector": 0}
    for (user, as_of), (_, x) in rows.items():
        y = x[layout.width :]
        for days in config.future_days:
            mine = [
                (item, at)
                for who, item, at in events
                if who == user and as_of <= at.date() < as_of + timedelta(days=days)
            ]
            vectors = [ITEMS[item] for item, _ in mine if item in ITEMS]
            raw = {
                "num_events": np.log1p(len(mine)),
                "weight": np.log1p(len(mine)),
                "num_active_days": np.log1p(len({at.date() for _, at in mine})),
            }
            for name, value in raw.items():
                source = next(b for b in layout.blocks if b.name == f"{name}_{days}d")
                scaled = (value - scaler.center_F[source.start]) / scaler.scale_F[source.start]
                assert y[part[f"{name}_next_{days}d"]] == pytest.approx(np.clip(scaled, -8, 8), abs=1e-5)
            assert y[part[f"active_next_{days}d"]] == bool(mine)
            if days == config.future_days[0]:
                mean = np.mean(vectors, axis=0) if vectors else np.zeros(targets.item_width)
                np.testing.assert_allclose(y[part["own_next_2d"]], mean, atol=1e-5)
                place = as_ofs.index(as_of) if mine else 0
                assert y[part["items_next_2d"]].tolist() == [min(len(mine), 10) if vectors else 0, place]
            seen["active"] += bool(mine)
            seen["absent"] += not mine
            seen["without a vector"] += bool(mine) and not vectors
    assert min(seen.values()) > 5


def with_another_future(seed: int) -> list[Event]:
    """Return the log of seed 1 until ``UNTIL``, and from then on another one."""
    before = [event for event in random_events(seed=1) if event[2].date() < UNTIL]
    return before + [event for event in random_events(seed=seed) if event[2].date() >= UNTIL]


def test_nothing_at_or_after_until_changes_a_training_row(
    spark: SparkSession, tmp_path: Path, made: tuple[TrainingInputs, Rows]
) -> None:
    inputs, rows = rows_of(pipeline_on(spark, tmp_path, with_another_future(seed=4)))
    np.testing.assert_array_equal(inputs.scaler.center_F, made[0].scaler.center_F)
    assert_same(rows, made[1])


@pytest.mark.full
def test_nothing_at_or_after_until_changes_a_training_row_by_way_of_item_vectors(
    spark: SparkSession, tmp_path: Path
) -> None:
    als = {"kind": "als", "dim": 4, "iterations": 1}
    one, other = (
        rows_of(pipeline_on(spark, tmp_path / str(seed), with_another_future(seed), behaviour=als)) for seed in (3, 4)
    )
    np.testing.assert_array_equal(one[0].scaler.center_F, other[0].scaler.center_F)
    assert_same(one[1], other[1])


def test_rows_do_not_depend_on_the_number_of_tasks(
    work: RunContext, made: tuple[TrainingInputs, Rows], shuffle_into: Callable[[int], None]
) -> None:
    shuffle_into(7)  # made in one
    assert_same(rows_of(work)[1], made[1])


def assert_same(rows: Rows, expected: Rows) -> None:
    assert rows.keys() == expected.keys()
    for key, (split, x) in rows.items():
        assert split == expected[key][0]
        np.testing.assert_array_equal(x, expected[key][1])


def test_without_heads_rows_are_inputs_alone_and_reach_up_to_until(work: RunContext) -> None:
    inputs, rows = rows_of(without_heads(work))
    assert inputs.targets.width == 0
    assert {len(x) for _, x in rows.values()} == {inputs.layout.width}
    assert max(as_of for _, as_of in rows) == UNTIL


def test_of_more_rows_than_are_wanted_those_of_some_users_are_taken_at_all_dates(
    work: RunContext, made: tuple[TrainingInputs, Rows]
) -> None:
    _, whole = made
    training = work.config.training.model_copy(update={"max_rows": len(whole) // 2})
    config = work.config.model_copy(update={"training": training})
    inputs = training_inputs(work.tables, config, plan_of(work), space_id="s1")
    assert inputs.files
    users = sorted({user for user, _ in whole})
    few = {user for user, bucket in zip(users, bucket_of(pa.array(users)), strict=True) if bucket < NUM_BUCKETS / 2}
    assert 0 < work.tables.read(TRAINING_ROWS).count() == sum(user in few for user, _ in whole) < len(whole)


@pytest.mark.usefixtures("made")
def test_inputs_and_targets_meet_in_one_shuffle(plans: list[str]) -> None:
    (plan,) = plans
    assert plan.count("Exchange") == 1
    assert "Join" not in plan
