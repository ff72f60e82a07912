"""Training dates of a log, windows that fit it, and verdicts on those that do not."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import config_of
from userrep.errors import UsageError
from userrep.workflows.log_fit import (
    OK,
    WARN,
    check_until,
    choose_fit,
    judge,
    least_days,
    needed_days,
    shortest_log,
    training_dates,
)

pytestmark = pytest.mark.fast

LAST = date(2024, 12, 31)
ALS = {"item_vectors": {"b": {"kind": "als"}}}  # refitted every 28 days


def first_of(num_days: int) -> date:
    return LAST - timedelta(days=num_days - 1)


def verdict(folder: Path, num_days: int, **sections: Any) -> list[tuple[str, str]]:
    sections = {"windows_days": [7, 30], "history_days": 0, **ALS, **sections}
    return [tuple(finding) for finding in judge(config_of(folder, **sections), first_of(num_days), LAST)]


@pytest.mark.parametrize(
    ("num_days", "windows", "room"),
    [(739, [7, 30, 180], 60), (298, [7, 30, 180], 60), (297, [7, 30, 90], 60), (200, [7, 30, 60], 60),
     (150, [7, 14, 30], 60), (100, [7, 14], 28), (63, [7], 14)],
)  # fmt: skip
def test_the_longest_windows_that_leave_room_for_training_and_evaluation_are_chosen(
    tmp_path: Path, num_days: int, windows: list[int], room: int
) -> None:
    fit = choose_fit(first_of(num_days), LAST)
    assert (fit.windows_days, fit.until) == (windows, LAST + timedelta(days=1 - room))


def test_every_log_that_is_long_enough_gets_settings_without_a_warning(tmp_path: Path) -> None:
    assert shortest_log() == 63
    for num_days in range(63, 800, 13):
        fit = choose_fit(first_of(num_days), LAST)
        levels = verdict(
            tmp_path, num_days, windows_days=fit.windows_days, history_days=fit.history_days,
            training={"as_ofs": {"until": fit.until}},
        )  # fmt: skip
        assert {level for level, _ in levels} == {OK}, (num_days, levels)


def test_a_shorter_log_gets_no_end_of_training() -> None:
    assert choose_fit(first_of(62), LAST) == ([7], 0, None)


def test_the_needed_days_are_those_of_windows_training_dates_future_and_room(tmp_path: Path) -> None:
    config = config_of(tmp_path, windows_days=[7, 30, 180], **ALS)
    assert needed_days(config) == 180 + 28 + 30 + 28
    assert least_days(config) == 14 + 28 + 30 + 28
    config = config_of(tmp_path, windows_days=[7, 90], training={"future_days": [7]})
    assert needed_days(config, timedelta(days=9)) == 90 + 28 + 7 + 9
    config = config_of(tmp_path, windows_days=[7], **ALS)
    assert needed_days(config) == least_days(config) == 14 + 28 + 7 + 28


@pytest.mark.parametrize("windows", [[7], [7, 30, 180]])
def test_a_log_of_the_named_length_has_a_training_date_whatever_its_last_day(
    tmp_path: Path, windows: list[int]
) -> None:
    config = config_of(tmp_path, windows_days=windows, **ALS)
    for k in range(40):
        last = LAST + timedelta(days=k)
        assert check_until(config, last - timedelta(days=least_days(config) - 1), last)


@pytest.mark.parametrize(
    ("num_days", "sections", "said"),
    [
        (180, {"windows_days": [365]}, "windows_days: 180 days of history, but a window of 365. Use [7, 30, 60]."),
        (40, {"windows_days": [365]}, "windows_days: 40 days of history, but a window of 365. Collect a longer log."),
        (
            200,
            {"windows_days": [7, 30, 180]},
            "windows_days: training with full windows needs 266 days of log (208 before the last training date + 30 "
            "that it looks ahead + 28 for the evaluation), got 200. Use [7, 30, 60].",
        ),
        (
            200,
            {"history_days": 400},
            "history_days: 400 days, but the log has 200. Set history_days: 0 or a shorter one.",
        ),
        (
            200,
            {"training": {"as_ofs": {"until": "2025-03-01"}}},
            "training.as_ofs.until 2025-03-01: after the log, whose days are 2024-06-15 to 2024-12-31. Choose "
            "2025-01-01 or earlier. init would choose 2024-11-02.",
        ),
        (
            200,
            {"training": {"as_ofs": {"until": "2024-12-31"}}},
            "evaluation: 1 day after 2024-12-31, too few for a horizon of 7 days. Set training.as_ofs.until: "
            "2024-12-18 or earlier.",
        ),
        (
            40,
            {},
            "training.as_ofs.until: not set, and its default, 28 days before the as-of date, leaves no training date "
            "in a log of 40 days. 100 days are enough.",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_named_with_a_cure(
    tmp_path: Path, num_days: int, sections: dict[str, Any], said: str
) -> None:
    assert (WARN, said) in verdict(tmp_path, num_days, **sections)


def test_a_horizon_that_is_too_long_is_left_out(tmp_path: Path) -> None:
    lines = verdict(tmp_path, 200, training={"as_ofs": {"until": "2024-12-04"}})
    assert (OK, "evaluation: 28 days after 2024-12-04, enough for horizons of 7 days; left out: 30.") in lines


def test_an_end_of_training_before_the_first_training_date_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, training={"as_ofs": {"until": "2024-05-01"}})
    with pytest.raises(UsageError, match=r"until 2024-05-01: no training date is possible, the log starts on"):
        check_until(config, first_of(200), LAST)


UNTIL = date(2024, 5, 1)


def dates(folder: Path, first: date, anchor: date | None = None, **sections: Any) -> list[date]:
    config = config_of(folder, training={"future_days": [7], "as_ofs": {"max_dates": 4}}, **sections)
    return training_dates(config, first=first, until=UNTIL, anchor=anchor)


def test_dates_go_back_from_the_end_less_the_longest_future(tmp_path: Path) -> None:
    last = UNTIL - timedelta(days=7)
    assert dates(tmp_path, date(2023, 1, 1)) == [last - timedelta(days=7 * k) for k in (3, 2, 1, 0)]


def test_dates_before_the_first_item_vectors_are_left_out(tmp_path: Path) -> None:
    first = UNTIL - timedelta(days=14 + 14)
    assert dates(tmp_path, first) == [UNTIL - timedelta(days=14), UNTIL - timedelta(days=7)]
    assert dates(tmp_path, first, anchor=UNTIL + timedelta(days=1)) == [UNTIL - timedelta(days=7)]


def test_a_log_that_starts_too_late_is_refused_with_the_earliest_end(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"until 2024-05-01: no training date is possible, .* Choose 2024-05-27 or l"):
        dates(tmp_path, UNTIL - timedelta(days=2))
