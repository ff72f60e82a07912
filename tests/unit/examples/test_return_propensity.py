"""Label dates of the example consumer, and what it refuses to be trained on."""

from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from return_propensity.labels import LabelDates, label_dates
from return_propensity.training import _check_labels, _space, model_folder
from userrep.errors import UserrepError
from userrep.spaces.registry import add_candidate, find_space, mark_ready, promote
from userrep.spaces.registry_state import Space
from userrep.store.file_tables import FileTables

pytestmark = pytest.mark.fast

D = date(2024, 5, 1)


def days(*numbers: int) -> list[date]:
    """Return dates by their distance from D."""
    return [D + timedelta(days=number) for number in numbers]


def test_training_labels_end_before_the_first_test_label() -> None:
    until = date(2024, 5, 1)
    dates = label_dates(days(*range(60)), as_of=date(2024, 6, 12), until=until, num_dates=3)
    assert len(dates.train) == len(dates.test) == 3
    assert min(dates.train) == until
    assert max(dates.train) + timedelta(days=7) <= min(dates.test)
    assert max(dates.test) + timedelta(days=7) <= date(2024, 6, 12)


def test_there_are_no_label_dates_where_the_log_has_no_room_for_them() -> None:
    close = label_dates(days(*range(30)), as_of=date(2024, 5, 5), until=date(2024, 5, 1))
    young = label_dates(days(*range(2, 30)), as_of=date(2024, 5, 20), until=date(2024, 5, 1))
    assert (close.all, young.all) == ([], [])


@pytest.mark.parametrize(
    ("as_of", "num_dates", "test", "train"),
    [
        (35, 9, (21, 28), (0, 7, 14)),  # the last future ends at the as-of date itself
        (34, 9, (14, 21), (0, 7)),
        (42, 2, (28, 35), (14, 21)),
        (14, 2, (7,), (0,)),
        (13, 2, (), ()),
    ],
)
def test_label_dates_lie_on_a_grid_through_the_end_of_training(
    as_of: int, num_dates: int, test: tuple[int, ...], train: tuple[int, ...]
) -> None:
    found = label_dates(days(*range(50)), as_of=D + timedelta(days=as_of), until=D, num_dates=num_dates)
    assert (found.test, found.train) == (days(*test), days(*train))
    assert found.all == days(*train, *test)


def test_a_log_without_room_for_training_labels_has_no_test_labels_either() -> None:
    rest = {"as_of": D + timedelta(days=21), "until": D}
    assert label_dates(days(*range(7, 21)), **rest) == LabelDates(days(7), days(14))
    assert label_dates(days(*range(8, 21)), **rest) == LabelDates([], [])
    assert label_dates(days(0, 9, 14, 20), **rest) == LabelDates(days(0), days(14))  # only published dates


@given(ahead=st.integers(0, 90), back=st.integers(-20, 90), horizon=st.integers(1, 30), num_dates=st.integers(1, 6))
def test_no_training_label_reaches_into_the_test(ahead: int, back: int, horizon: int, num_dates: int) -> None:
    as_of, first = D + timedelta(days=ahead), D - timedelta(days=back)
    published = [first + timedelta(days=k) for k in range(180)]
    found = label_dates(published, as_of=as_of, until=D, horizon_days=horizon, num_dates=num_dates)
    future = timedelta(days=horizon)
    assert bool(found.train) == bool(found.test)
    if found.train:
        assert max(found.train) + future <= min(found.test)
        assert min(found.train) >= D
        assert max(found.test) + future <= as_of
        assert min(found.train) >= first
        assert max(len(found.train), len(found.test)) <= num_dates


def test_each_split_needs_labels_of_both_kinds() -> None:
    dates = LabelDates(days(0, 7), days(14))
    both = {(split, label): 1 for split in ("train", "test") for label in (0.0, 1.0)}
    _check_labels(both, dates)
    with pytest.raises(UserrepError, match="the test labels of 2024-05-15 to 2024-05-15 are all of one class"):
        _check_labels(both | {("test", 1.0): 0}, dates)
    del both["train", 0.0]
    with pytest.raises(UserrepError, match="the train labels of 2024-05-01 to 2024-05-08 are all of one class"):
        _check_labels(both, dates)


def test_each_space_has_a_model_of_its_own(tmp_path: Path) -> None:
    at = datetime(2024, 5, 1)
    space = Space("s001-a", "ready", "l1", D, "x", at, at)
    folder = model_folder(FileTables(None, str(tmp_path)), space)
    assert folder == f"{tmp_path}/artifacts/consumers/return_propensity/s001-a"


def test_a_space_that_was_trained_and_promoted_after_the_schedule_was_made_is_used(tmp_path: Path) -> None:
    """As in the demo, where one run trains the space and then the consumer."""
    tables = FileTables(None, str(tmp_path))
    work: Any = SimpleNamespace(tables=tables, schedule=SimpleNamespace(lineage_id="l1", space_to_use=lambda: "none"))
    assert _space(work) == "none"
    for number, lineage in enumerate(("l1", "l1", "l2"), start=1):
        space_id = f"s00{number}-a"
        add_candidate(tables, space_id=space_id, lineage_id=lineage, trained_until=D, content_hash="h")
        if number < 3:
            mark_ready(tables, find_space(tables, space_id))
            assert _space(work).space_id == space_id  # it waits to serve
        if number == 1:
            promote(tables, find_space(tables, space_id))
            assert _space(work).space_id == space_id
    promote(tables, find_space(tables, "s002-a"))
    assert _space(work).space_id == "s002-a"
