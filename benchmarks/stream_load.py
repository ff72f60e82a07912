"""A load on a running stream, and the latency until it shows, in a process of its own without Spark.

Events are sent to Kafka at an even rate in real time, of users by their activity. Optionally, new users arrive too,
alternately with an onboarding pick and with a first event. Some are watched: from the moment before one is sent until
Redis has a vector of its user that includes it or a later event.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer

from benchmarks.inference_data import SPACE
from benchmarks.report import progress
from benchmarks.stream_data import EVENTS, PICKS, Base, StreamSize, message, user_id
from userrep.streaming.redis_store import OnlineStore
from userrep.utc import utc_now

EVENT, NEW_EVENT, NEW_PICK = "event", "new_user_event", "new_user_pick"
_WATCH_EVERY = 10  # events
_LOOK_EVERY = 0.1  # seconds; the last look before an answer counts as waiting
_START_SECONDS, _LAST_SECONDS = 300, 120


@dataclass(frozen=True)
class Load:
    """Events and new users per second, for ``warm`` seconds after the first is seen and ``seconds`` that count."""

    seconds: float
    warm: float
    rate: float = 200.0
    new_rate: float = 0.0

    def facts(self) -> dict[str, float]:
        return {"events_per_second": self.rate, "new_users_per_second": self.new_rate, "seconds": self.seconds}


def latencies(base: Base, load: Load) -> dict[str, list[float]]:
    """Run the stream until the load ends, and return seconds from event to vector, by kind.

    Raises
    ------
    AssertionError
        If the stream ends before the load, or a watched event is not seen within two minutes.
    """
    asked = {
        "load": asdict(load), "size": asdict(base.size), "bootstrap": base.broker.bootstrap,
        "redis_url": base.redis_server.url,
    }  # fmt: skip
    with _process(asked) as process:
        base.stream(until_empty=False, is_stopping=lambda: process.poll() is not None)
        output, _ = process.communicate(timeout=_LAST_SECONDS)
    found = json.loads(output) if process.returncode == 0 else None
    if found is None or found["unseen"]:
        raise AssertionError(f"the load ended with {process.returncode}: {found and found['unseen']} were never seen")
    seconds: dict[str, list[float]] = found["latencies"]
    return seconds


@contextmanager
def _process(asked: dict[str, Any]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.stream_load", json.dumps(asked)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass
class Watched:
    """A watched event. ``counts``: it was sent after the warm-up."""

    kind: str
    user: str
    at: datetime
    sent: float
    counts: bool


@dataclass
class Sender:
    """Sends events when they are due, and checks which have been seen."""

    load: Load
    size: StreamSize
    producer: Producer
    store: OnlineStore
    num: int = 0
    num_new: int = 0
    watched: list[Watched] = field(default_factory=list)
    latencies: dict[str, list[float]] = field(default_factory=dict)
    seen_first: float | None = None

    def __post_init__(self) -> None:
        self._random = np.random.default_rng([self.size.seed, 3])
        self._cdf = np.cumsum(self.size.activity())

    def run(self) -> dict[str, Any]:
        """Send until the time is over, then wait until all events that count have been seen."""
        begun = time.monotonic()
        next_look = begun
        while True:
            now = time.monotonic()
            end = (self.seen_first or now) + self.load.warm + self.load.seconds
            late = now > (end + _LAST_SECONDS if self.seen_first else begun + _START_SECONDS)
            is_over = self.seen_first is not None and now > end
            if late or (is_over and not any(of.counts for of in self.watched)):
                break
            self._send_due(now - begun, counts=self.seen_first is not None and end - self.load.seconds < now <= end)
            if now >= next_look:
                self._look()
                next_look = now + _LOOK_EVERY
            time.sleep(0.002)
        unseen = sum(of.counts for of in self.watched) if self.seen_first else len(self.watched)
        return {"latencies": self.latencies, "unseen": unseen}

    def _send_due(self, elapsed: float, *, counts: bool) -> None:
        while self.num < elapsed * self.load.rate:
            self.num += 1
            user = int(np.searchsorted(self._cdf, self._random.random() * self._cdf[-1]))
            self._send(EVENT, user, counts=counts, watches=self.num % _WATCH_EVERY == 0)
        while self.num_new < elapsed * self.load.new_rate:
            self.num_new += 1
            kind = NEW_PICK if self.num_new % 2 else NEW_EVENT
            self._send(kind, self.size.users + self.num_new, counts=counts, watches=True)
        self.producer.poll(0)

    def _send(self, kind: str, user: int, *, counts: bool, watches: bool) -> None:
        topic, column = (PICKS, "picked_at") if kind == NEW_PICK else (EVENTS, "event_at")
        sent, at = time.monotonic(), utc_now()
        text = at.isoformat(timespec="microseconds")
        self.producer.produce(topic, message(user, int(self._random.integers(self.size.items)), column, text))
        if watches:
            self.watched.append(Watched(kind, user_id(user), at, sent, counts))

    def _look(self) -> None:
        found = self.store.read(SPACE, [of.user for of in self.watched])
        now, waiting = time.monotonic(), []
        for of, vector in zip(self.watched, found, strict=True):
            if vector is None or vector.event_at < of.at:
                waiting.append(of)
                continue
            self.seen_first = self.seen_first or now
            if of.counts:
                self.latencies.setdefault(of.kind, []).append(now - of.sent)
        self.watched = waiting


def main() -> None:
    """Run the load given by the only argument, and print the result as JSON."""
    asked = json.loads(sys.argv[1])
    producer = Producer({"bootstrap.servers": asked["bootstrap"], "linger.ms": 5})
    store = OnlineStore(asked["redis_url"], timedelta(days=1))
    sender = Sender(Load(**asked["load"]), StreamSize(**asked["size"]), producer, store)
    found = sender.run()
    producer.flush(10)
    counted = {kind: len(seconds) for kind, seconds in found["latencies"].items()}
    progress(f"load: {sender.num:,} events and {sender.num_new:,} new users sent; seen of those counted: {counted}")
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
