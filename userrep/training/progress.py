"""What a training says while it runs, and what it cost."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REPORT_SECONDS = 10.0


class Progress:
    """One line at each epoch's end, and one every ``REPORT_SECONDS`` between."""

    def __init__(self, report: Callable[[str], None], *, steps: int, max_epochs: int, batch_size: int) -> None:
        self._report, self._steps, self._max_epochs, self._batch_size = report, steps, max_epochs, batch_size
        self._started = self._said = self._lap = time.monotonic()
        self._stepping = self._waited = 0.0  # seconds
        self._taken = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for input."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def epoch_started(self) -> None:
        self._lap = time.monotonic()

    def step_done(self, epoch: int, step: int, loss: float) -> None:
        """Note a step; ``loss`` is the epoch's mean so far."""
        now = time.monotonic()
        self._stepping += now - self._lap
        self._lap = now
        self._taken += 1
        if now - self._said >= REPORT_SECONDS and step < self._steps:
            self._say(now, f"epoch {epoch}/{self._max_epochs} step {step}/{self._steps} loss {loss:.4f}")

    def epoch_done(self, epoch: int, metrics: dict[str, float]) -> None:
        losses = [f"loss {metrics['train_loss']:.4f}"]
        if "valid_loss" in metrics:
            losses.append(f"validation {metrics['valid_loss']:.4f}")
        self._say(time.monotonic(), f"epoch {epoch}/{self._max_epochs} done {' '.join(losses)}")

    def cost(self) -> dict[str, float]:
        """Return seconds in all, rows a second (all ranks, validation not counted), and the share waited for input."""
        return {
            "seconds": time.monotonic() - self._started,
            "rows_per_second": self._rows_per_second,
            "waiting_share": self._waited / max(self._stepping, 1e-9),
        }

    @property
    def _rows_per_second(self) -> float:
        return self._taken * self._batch_size / max(self._stepping, 1e-9)

    def _say(self, now: float, what: str) -> None:
        left = (now - self._started) / self._taken * (self._steps * self._max_epochs - self._taken)
        self._report(f"{what}, {self._rows_per_second:,.0f} rows/s, at most {_duration(left)} left")
        self._said = now


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
