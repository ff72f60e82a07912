"""Which space a run works on, and which dates it needs snapshots of, given the spaces that there are."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from tests.support.embedding_tables import snapshot
from userrep.config import Config
from userrep.errors import UsageError
from userrep.items.versions import lineage_of
from userrep.spaces.registry import change_registry, next_space_id
from userrep.spaces.registry_state import Registry, Space
from userrep.spaces.snapshots import record_snapshots
from userrep.store.open import open_tables
from userrep.store.schemas import FEATURE_SETS
from userrep.store.tables import Tables
from userrep.tiles.inventory.inventory import Inventory
from userrep.tiles.inventory.log_days import LogDay
from userrep.workflows.schedule import Schedule

pytestmark = pytest.mark.fast

AS_OF, UNTIL = date(2024, 5, 31), date(2024, 5, 3)
HISTORY = [UNTIL + timedelta(days=7 * k) for k in range(4)]  # none before the end of training


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path, item_vectors={"behaviour": {"kind": "als", "dim": 4}})


@pytest.fixture
def tables(config: Config) -> Tables:
    return open_tables(config, None)


def schedule_of(tables: Tables, config: Config, as_of: date = AS_OF, *, gap: int = 7) -> Schedule:
    """Lay out the dates of a log of some months with an event every ``gap`` days."""
    first = date(2024, 1, 1)
    dates = [first + timedelta(days=days) for days in range(0, (AS_OF - first).days, gap)]
    days = [LogDay(day, 10, 0, "f") for day in (*dates, AS_OF)]
    return Schedule(config, tables, Inventory(days, 0, 0), as_of)


def register(tables: Tables, config: Config, *spaces: tuple[str, str], lineage_id: str = "") -> list[Space]:
    """Register spaces (id, state); the number of an id is the hour at which the space was created."""
    made = [
        Space(space_id, state, lineage_id or lineage_of(config), UNTIL, "hash", at, at)
        for space_id, state in spaces
        for at in [datetime(2024, 5, 1, int(space_id[1:4]))]
    ]
    change_registry(tables, lambda known: Registry((*known.spaces, *made)))
    return made


def test_a_run_goes_on_with_the_spaces_that_it_began_with(tables: Tables, config: Config) -> None:
    (first,) = register(tables, config, ("s000", "serving"))
    schedule = schedule_of(tables, config)
    assert schedule.registry.serving == first
    register(tables, config, ("s001", "candidate"))
    assert schedule.space_to_use() == first
    assert schedule.unfinished_candidate() is None


@pytest.mark.parametrize(
    ("states", "used"),
    [
        ((), None),
        (("retired",), None),
        (("candidate",), "s000"),
        (("ready", "candidate"), "s001"),
        (("serving", "ready", "candidate"), "s000"),
        (("retired", "ready", "retired"), "s001"),
    ],
)
def test_a_run_works_on_the_serving_space_or_else_on_the_newest_that_is_not_retired(
    tables: Tables, config: Config, states: tuple[str, ...], used: str | None
) -> None:
    register(tables, config, *((f"s{k:03d}", state) for k, state in enumerate(states)))
    schedule = schedule_of(tables, config)
    if used is None:
        assert schedule.usable_space is None
        with pytest.raises(UsageError, match=r"no usable space\. Run `userrep pipeline --as-of DATE`"):
            schedule.space_to_use()
    else:
        assert schedule.space_to_use().space_id == used


def test_spaces_of_another_lineage_are_not_used(tables: Tables, config: Config) -> None:
    register(tables, config, ("s000", "serving"), lineage_id="l-other")
    assert schedule_of(tables, config).usable_space is None
    register(tables, config, ("s001", "candidate"))
    assert schedule_of(tables, config).space_to_use().space_id == "s001"


@pytest.mark.parametrize(
    ("state", "snapshots", "is_unfinished"),
    [
        ("candidate", [], True),
        ("candidate", ["staged"], True),
        ("candidate", ["published"], True),  # its run was killed before it became ready
        ("candidate", ["refused"], False),
        ("ready", [], False),
    ],
)
def test_a_candidate_without_a_refused_snapshot_is_unfinished(
    tables: Tables, config: Config, state: str, snapshots: list[str], is_unfinished: bool
) -> None:
    register(tables, config, ("s000", "serving"), ("s001", state))
    record_snapshots(tables, [snapshot(AS_OF), snapshot(AS_OF, space="s000")])
    record_snapshots(tables, [snapshot(AS_OF, space="s001", state=of) for of in snapshots])
    found = schedule_of(tables, config).unfinished_candidate()
    assert (found.space_id if found else None) == ("s001" if is_unfinished else None)


def test_a_candidate_of_other_settings_is_not_resumed(tables: Tables, config: Config) -> None:
    register(tables, config, (next_space_id(tables, config, UNTIL), "candidate"))
    assert schedule_of(tables, config).space_of_pipeline(retrain=True) is not None
    other = config.model_copy(update={"model": config.model.model_copy(update={"latent_dim": 64})})
    assert schedule_of(tables, other).unfinished_candidate() is not None
    assert schedule_of(tables, other).space_of_pipeline(retrain=True) is None


def test_only_the_newest_space_can_be_unfinished_and_only_of_this_lineage(tables: Tables, config: Config) -> None:
    assert schedule_of(tables, config).unfinished_candidate() is None
    register(tables, config, ("s000", "candidate"), ("s001", "ready"))
    assert schedule_of(tables, config).unfinished_candidate() is None
    other = config_of(Path(tables.artifacts_root), windows_days=[3])
    register(tables, config, ("s002", "candidate"))
    assert schedule_of(tables, config).unfinished_candidate() is not None
    assert schedule_of(tables, other).unfinished_candidate() is None


def test_the_serving_space_needs_snapshots_of_the_as_of_date_and_of_its_history(tables: Tables, config: Config) -> None:
    (serving,) = register(tables, config, ("s000", "serving"))
    record_snapshots(tables, [snapshot(date(2024, 5, 6), space="s000")])
    assert schedule_of(tables, config).snapshot_dates(serving) == [*HISTORY, AS_OF]


def test_another_space_also_needs_the_dates_that_the_serving_one_has_published(tables: Tables, config: Config) -> None:
    _, ready = register(tables, config, ("s000", "serving"), ("s001", "ready"))
    published = [snapshot(day, space="s000") for day in (date(2024, 5, 6), AS_OF, AS_OF + timedelta(days=1))]
    record_snapshots(tables, [*published, snapshot(date(2024, 5, 7), space="s000", state="staged")])
    wanted = sorted([*HISTORY, date(2024, 5, 6), AS_OF])
    schedule = schedule_of(tables, config)
    assert schedule.snapshot_dates(ready) == wanted
    assert schedule.snapshot_dates(None) == wanted  # one that is trained next


def test_a_history_has_the_latest_weeks_that_end_by_the_as_of_date(tables: Tables, tmp_path: Path) -> None:
    config = config_of(tmp_path, snapshots={"history_dates": 3})
    assert schedule_of(tables, config).history_dates(None) == HISTORY[1:]
    assert schedule_of(tables, config, AS_OF - timedelta(days=1)).history_dates(None)[-1] < HISTORY[-1]
    assert schedule_of(tables, config, gap=14).history_dates(None) != HISTORY[1:]  # a week without an event is left out
    early = config_of(tmp_path, training={"as_ofs": {"until": date(2024, 1, 1)}})
    first = date(2024, 1, 15)  # two weeks after the log's first day
    assert schedule_of(tables, early, date(2024, 1, 29)).history_dates(None) == [first, first + timedelta(days=7)]


def test_the_history_of_a_serving_space_of_another_lineage_is_not_made_again(tables: Tables, config: Config) -> None:
    register(tables, config, ("s000", "serving"), lineage_id="l-other")
    record_snapshots(tables, [snapshot(date(2024, 5, 6), space="s000")])
    assert schedule_of(tables, config).snapshot_dates(None) == [*HISTORY, AS_OF]


def test_dates_of_training_need_features_only_where_a_space_is_trained(tables: Tables, config: Config) -> None:
    register(tables, config, ("s000", "serving"))
    schedule = schedule_of(tables, config)
    space = schedule.space_of_pipeline(retrain=False)
    assert schedule.feature_dates(space) == [*HISTORY, AS_OF]
    retrained = schedule.feature_dates(schedule.space_of_pipeline(retrain=True))
    assert set(schedule.training_as_ofs) <= set(retrained)
    assert set(retrained) > set(schedule.feature_dates(space))
    sampled = schedule.sampled_dates(None)
    assert {*sampled} == {*retrained} - {*schedule.snapshot_dates(None)}
    built = {"lineage_id": schedule.lineage_id, "num_users": 10}
    schedule.tables.add(FEATURE_SETS, [built | {"as_of": sampled[0]}, built | {"as_of": sampled[1], "num_buckets": 4}])
    assert schedule.sampled_dates(None) == sampled[1:]  # features of all users are kept up
    assert schedule.sampled_dates(space) == []


def test_training_ends_28_days_before_the_as_of_date_by_default_and_never_after_it(
    tables: Tables, config: Config, tmp_path: Path
) -> None:
    assert schedule_of(tables, config).until == AS_OF - timedelta(days=28)
    fixed: dict[str, Any] = {"training": {"as_ofs": {"until": AS_OF}}}
    assert schedule_of(tables, config_of(tmp_path, **fixed)).until == AS_OF
    with pytest.raises(UsageError, match=r"training\.as_ofs\.until 2024-05-31 is after --as-of 2024-05-30"):
        _ = schedule_of(tables, config_of(tmp_path, **fixed), AS_OF - timedelta(days=1)).until
