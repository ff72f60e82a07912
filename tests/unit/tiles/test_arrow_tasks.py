"""Which days of the log each task builds."""

from datetime import date, timedelta

import pytest

from userrep.tiles import arrow_tasks
from userrep.tiles.arrow_tasks import _tasks
from userrep.tiles.inventory.day_files import FileDay

pytestmark = pytest.mark.fast

DAYS = [date(2024, 5, 1) + timedelta(days=k) for k in range(8)]


def test_tasks_have_ranges_of_days_with_similar_numbers_of_rows() -> None:
    days = [FileDay(f"{k}", day, 100 if k else 700, 100 if k else 700) for k, day in enumerate(DAYS)]
    assert _tasks(days[::-1], 2) == [(int(k > 0), day, 0, f"{k}") for k, day in enumerate(DAYS)][::-1]
    assert {task for task, *_ in _tasks(days, 4)} == {0, 2, 3}
    assert _tasks([], 4) == []


def test_a_file_of_many_days_is_read_by_two_tasks_at_most() -> None:
    whole = [FileDay("all", day, 100, 800) for day in DAYS]
    tasks = [task for task, *_ in _tasks(whole, 8)]
    assert tasks == [0, 0, 0, 0, 1, 1, 1, 1]
    apart = [FileDay(f"{k}", day, 1000, 1000) for k, day in enumerate(DAYS)]
    assert {task for task, *_ in _tasks([*whole, *apart], 8)} == set(range(8))  # which read little more


def test_days_with_too_many_rows_and_logs_that_take_too_few_tasks_are_left_to_spark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrow_tasks, "MAX_ROWS", 300)
    days = [FileDay("a", DAYS[0], 100, 100), FileDay("b", DAYS[1], 200, 200), FileDay("c", DAYS[1], 200, 200)]
    assert [(day, path) for _, day, _, path in _tasks([*days, FileDay("d", DAYS[2], 1, 301)], 2)] == [(DAYS[0], "a")]
    mixed = [FileDay(f"{k}", day, 25, 200) for k in range(8) for day in DAYS]
    assert _tasks(mixed, 8) == []
    monkeypatch.setattr(arrow_tasks, "MAX_ROWS", 800)
    assert {task for task, *_ in _tasks(mixed, 8)} == {0, 1}
