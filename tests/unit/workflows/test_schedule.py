"""Which dates a training is about: each with its futures before ``until``."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from userrep.errors import UsageError
from userrep.store.file_tables import FileTables
from userrep.tiles.inventory.inventory import Inventory
from userrep.tiles.inventory.log_days import LogDay
from userrep.workflows.schedule import Schedule

pytestmark = pytest.mark.fast

FIRST, LAST = date(2024, 1, 1), date(2024, 12, 31)
UNTIL = date(2024, 10, 1)
ALS = {"behaviour": {"kind": "als", "dim": 4}}


def schedule_of(folder: Path, until: date = UNTIL, windows: tuple[int, ...] = (7, 30, 90), **training: Any) -> Schedule:
    """Lay out the dates of a log of a year."""
    model, quality = training.pop("model", {}), {"self_check": training.pop("self_check", False)}
    config = config_of(
        folder, windows_days=list(windows), item_vectors=ALS, model=model, quality=quality,
        training={"as_ofs": {"until": until, "max_dates": 8}, **training},
    )  # fmt: skip
    days = [LogDay(FIRST + timedelta(days=k), 10, 0, "f") for k in range((LAST - FIRST).days + 1)]
    return Schedule(config, FileTables(None, str(folder)), Inventory(days, 0, 0), until + timedelta(days=14))


def test_the_future_of_the_last_training_date_ends_at_until(tmp_path: Path) -> None:
    dates = schedule_of(tmp_path).training_as_ofs
    assert dates == [UNTIL - timedelta(days=30 + 7 * k) for k in range(7, -1, -1)]
    assert schedule_of(tmp_path, future_days=[7]).training_as_ofs[-1] == UNTIL - timedelta(days=7)
    assert schedule_of(tmp_path, model={"preset": "autoencoder"}).training_as_ofs[-1] == UNTIL


def test_features_are_needed_where_futures_end_and_nowhere_at_or_after_until(tmp_path: Path) -> None:
    schedule = schedule_of(tmp_path)
    trained = {day + timedelta(days=days) for day in schedule.training_as_ofs for days in (0, 7, 30)}
    assert trained | set(schedule.snapshot_dates(None)) == set(schedule.feature_dates(None))
    assert max(trained) == UNTIL
    assert len(trained) == 8 + 1 + 8
    assert schedule.history_dates(None) == [UNTIL, UNTIL + timedelta(days=7)]  # none is before it


@pytest.mark.parametrize("every_days", [1, 7, 28])
@pytest.mark.parametrize("max_dates", [1, 2, 3, 13, 99_999])
def test_features_of_the_self_check_are_built_with_those_of_the_training(
    tmp_path: Path, every_days: int, max_dates: int
) -> None:
    dates = {"until": UNTIL, "every_days": every_days, "max_dates": max_dates}
    schedule = schedule_of(tmp_path, self_check=True, as_ofs=dates)
    built, check = {*schedule.feature_dates(None)}, schedule.check_plan
    assert {day + timedelta(days=d) for day in schedule.training_as_ofs for d in (0, 7, 30)} <= built
    assert check is not None or max_dates < 3 or every_days == 1
    if check is not None:
        assert {day + timedelta(days=d) for day in check.as_ofs for d in (0, 7, 30)} | {*check.plan.dates} <= built
        assert len(check.as_ofs) >= len(schedule.training_as_ofs) / 2


@pytest.mark.parametrize(("future_days", "extra"), [([7], 1), ([28], 4), ([7, 28], 4)])
def test_futures_of_whole_steps_end_on_dates_of_training(tmp_path: Path, future_days: list[int], extra: int) -> None:
    schedule = schedule_of(tmp_path, windows=(7, 28), future_days=future_days)
    needed = {day + timedelta(days=d) for day in schedule.training_as_ofs for d in (0, *future_days)}
    assert len(needed) == len(schedule.training_as_ofs) + extra


def test_a_log_too_short_for_the_future_names_a_date_that_will_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the log starts on 2024-01-01\. Choose 2024-03-13 or later") as caught:
        _ = schedule_of(tmp_path, until=date(2024, 2, 20)).training_as_ofs
    named = date.fromisoformat(str(caught.value).rpartition("Choose ")[2].split()[0])
    assert schedule_of(tmp_path, until=named).training_as_ofs
