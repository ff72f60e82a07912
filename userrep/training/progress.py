"""Progress lines of a training, and its speed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass

REPORT_SECONDS = 10.0


@dataclass
class Progress:
    """Reports one line at the end of each epoch, and one every ``REPORT_SECONDS`` in between.

    ``taken``: steps before this process resumed the training, over all epochs. ``earlier``: the seconds they took.
    """

    report: Callable[[str], None]
    _: KW_ONLY
    steps: int
    max_epochs: int
    batch_size: int
    taken: int
    earlier: float

    def __post_init__(self) -> None:
        self._started_at = self._reported_at = self._step_started_at = time.monotonic()
        self._step_seconds = self._waiting_seconds = 0.0
        self._resumed = self.taken

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside the context as waiting for input."""
        start = time.monotonic()
        yield
        self._waiting_seconds += time.monotonic() - start

    def epoch_started(self) -> None:
        self._step_started_at = time.monotonic()

    def step_done(self, epoch: int, step: int, loss: float) -> None:
        """Record a step. ``loss``: the epoch's mean so far."""
        now = time.monotonic()
        self._step_seconds += now - self._step_started_at
        self._step_started_at = now
        self.taken += 1
        if now - self._reported_at >= REPORT_SECONDS and step < self.steps:
            self._report_line(now, epoch, step, f"loss {loss:.4f}")

    def epoch_done(self, epoch: int, loss: float, valid_loss: float | None) -> None:
        text = f"loss {loss:.4f}" + ("" if valid_loss is None else f", validation {valid_loss:.4f}")
        self._report_line(time.monotonic(), epoch, self.steps, text)

    @property
    def seconds(self) -> float:
        """Seconds spent on the training, including those before it was resumed."""
        return self.earlier + time.monotonic() - self._started_at

    @property
    def rows_per_second(self) -> float:
        """Rows per second of all ranks since this process started, without the time of validation."""
        return (self.taken - self._resumed) * self.batch_size / max(self._step_seconds, 1e-9)

    @property
    def waiting_share(self) -> float:
        """Share of the steps' time that this rank spent waiting for input."""
        return self._waiting_seconds / max(self._step_seconds, 1e-9)

    def _report_line(self, now: float, epoch: int, step: int, losses: str) -> None:
        left = self.steps * self.max_epochs - self.taken
        seconds = (now - self._started_at) / max(self.taken - self._resumed, 1) * left
        self.report(
            f"epoch {epoch}/{self.max_epochs} step {step}/{self.steps} {losses}, "
            f"{self.rows_per_second:,.0f} rows/s, at most {_duration(seconds)} left"
        )
        self._reported_at = now


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
