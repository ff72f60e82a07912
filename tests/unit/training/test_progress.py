"""Progress lines of a training: one per epoch and one every ten seconds, with speed and time left."""

from types import SimpleNamespace
from typing import Any

import pytest

from userrep.training import progress as module
from userrep.training.progress import Progress

pytestmark = pytest.mark.fast


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def progress_of(lines: list[str], **more: Any) -> Progress:
    """Start one of 3 epochs with 10 steps of 32 rows."""
    given: dict[str, Any] = {"steps": 10, "max_epochs": 3, "batch_size": 32, "taken": 0, "earlier": 0.0} | more
    progress = Progress(lines.append, **given)
    progress.epoch_started()
    return progress


LOSS = 2.0


def test_a_line_is_reported_every_ten_seconds_but_not_for_the_last_step(clock: Clock) -> None:
    lines: list[str] = []
    progress = progress_of(lines)
    for step in range(1, 11):
        clock.now += 4
        progress.step_done(1, step, LOSS)
    assert [line.split(" loss")[0] for line in lines] == [
        "epoch 1/3 step 3/10",
        "epoch 1/3 step 6/10",
        "epoch 1/3 step 9/10",
    ]
    assert lines[0] == "epoch 1/3 step 3/10 loss 2.0000, 8 rows/s, at most 108 s left"  # 27 steps of 4 s
    clock.now += 4
    progress.step_done(1, 10, LOSS)
    assert len(lines) == 3


def test_the_last_line_of_an_epoch_has_training_and_validation_loss(clock: Clock) -> None:
    lines: list[str] = []
    progress = progress_of(lines)
    for step in range(1, 11):
        clock.now += 0.5
        progress.step_done(1, step, LOSS)
    progress.epoch_done(1, LOSS, 1.23456)
    progress.epoch_done(2, LOSS, None)
    assert lines == [
        "epoch 1/3 step 10/10 loss 2.0000, validation 1.2346, 64 rows/s, at most 10 s left",
        "epoch 2/3 step 10/10 loss 2.0000, 64 rows/s, at most 10 s left",
    ]


def test_two_minutes_and_more_are_shown_in_minutes(clock: Clock) -> None:
    lines: list[str] = []
    for seconds in (119.0, 120.0):
        progress = progress_of(lines, max_epochs=2, steps=1)
        clock.now += seconds
        progress.step_done(1, 1, LOSS)
        progress.epoch_done(1, LOSS, None)
    assert [line.rpartition("at most ")[2] for line in lines] == ["119 s left", "2 min left"]


def test_the_speed_does_not_include_the_time_of_validation(clock: Clock) -> None:
    progress = progress_of([])
    for step in (1, 2):
        clock.now += 2
        progress.step_done(1, step, LOSS)
    clock.now += 1000  # validation
    progress.epoch_started()
    clock.now += 4
    progress.step_done(2, 1, LOSS)
    assert progress.rows_per_second == pytest.approx(3 * 32 / 8)
    assert progress.seconds == pytest.approx(1008)


def test_the_waiting_share_is_relative_to_the_time_of_steps(clock: Clock) -> None:
    progress = progress_of([])
    assert progress.waiting_share == 0
    for step in (1, 2):
        with progress.waiting():
            clock.now += 1
        clock.now += 3
        progress.step_done(1, step, LOSS)
    assert progress.waiting_share == pytest.approx(0.25)


def test_after_a_resume_the_speed_counts_new_steps_only_and_the_time_counts_all(clock: Clock) -> None:
    lines: list[str] = []
    progress = progress_of(lines, taken=15, earlier=600.0)
    for step in range(6, 11):
        clock.now += 2
        progress.step_done(2, step, LOSS)
    progress.epoch_done(2, LOSS, None)
    assert progress.rows_per_second == pytest.approx(16)
    assert progress.seconds == pytest.approx(610)
    assert lines == ["epoch 2/3 step 10/10 loss 2.0000, 16 rows/s, at most 20 s left"]
