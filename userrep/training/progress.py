"""What a training says while it runs, and what it cost."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

REPORT_SECONDS = 10.0


class Progress:
    """One line at each epoch's end, and one every ``REPORT_SECONDS`` between.

    ``total``: the loss that is trained on, of those of blocks. ``taken``: steps that were taken before, in this epoch
    and those before it. ``earlier``: seconds spent on them.
    """

    def __init__(
        self,
        report: Callable[[str], None],
        *,
        total: Callable[[Mapping[str, float]], float],
        steps: int,
        max_epochs: int,
        batch_size: int,
        taken: int,
        earlier: float,
    ) -> None:
        self._report, self._total, self._steps, self._max_epochs = report, total, steps, max_epochs
        self._batch_size = batch_size
        self._started = self._said = self._lap = time.monotonic()
        self._stepping = self._waited = 0.0  # seconds
        self._taken = self._resumed = taken
        self._earlier = earlier

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for input."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def epoch_started(self) -> None:
        self._lap = time.monotonic()

    def step_done(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        """Note a step; ``losses`` are the epoch's means so far, by block."""
        now = time.monotonic()
        self._stepping += now - self._lap
        self._lap = now
        self._taken += 1
        if now - self._said >= REPORT_SECONDS and step < self._steps:
            self._say(now, epoch, step, f"loss {self._total(losses):.4f} ({by_kind(losses)})")

    def epoch_done(self, epoch: int, losses: Mapping[str, float], valid_loss: float | None) -> None:
        said = f"loss {self._total(losses):.4f} ({by_kind(losses)})"
        if valid_loss is not None:
            said += f", validation {valid_loss:.4f}"
        self._say(time.monotonic(), epoch, self._steps, said)

    @property
    def seconds(self) -> float:
        """Seconds spent, those before a resumption included."""
        return self._earlier + time.monotonic() - self._started

    @property
    def rows_per_second(self) -> float:
        """Rows of all ranks a second, since this process began; validation is not counted."""
        return (self._taken - self._resumed) * self._batch_size / max(self._stepping, 1e-9)

    @property
    def waiting_share(self) -> float:
        """The share of the steps' time that this rank waited for input."""
        return self._waited / max(self._stepping, 1e-9)

    def _say(self, now: float, epoch: int, step: int, what: str) -> None:
        left = self._steps * self._max_epochs - self._taken
        seconds = (now - self._started) / max(self._taken - self._resumed, 1) * left
        self._report(
            f"epoch {epoch}/{self._max_epochs} step {step}/{self._steps} {what}, "
            f"{self.rows_per_second:,.0f} rows/s, at most {_duration(seconds)} left"
        )
        self._said = now


def by_kind(losses: Mapping[str, float]) -> str:
    """Tell the losses of blocks in a line: those that differ in their window only as one, their mean."""
    kinds: dict[str, list[float]] = {}
    for name, loss in losses.items():
        kinds.setdefault(re.sub(r"_\d+d$", "", name), []).append(loss)
    return " ".join(f"{kind} {_mean(values):.2f}" for kind, values in kinds.items())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
