"""What a report knows, as plain values: gathered by one module, turned into a page by others, written out as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, datetime
from math import isfinite
from typing import Any

from userrep.model.self_check import SelfCheck

BAD, WARN, NOTE, OK = "bad", "warn", "note", "ok"


@dataclass(frozen=True)
class Stage:
    """A stage of a run, as ``job_runs`` has it. ``core_hours``: of Spark's tasks; None: not counted."""

    run_id: str
    stage: str
    outcome: str
    reason: str
    started_at: datetime
    seconds: float
    num_rows: int
    core_hours: float | None
    shuffle_bytes: int
    inputs: Mapping[str, int]  # table -> version
    config_hash: str
    code_hash: str


@dataclass(frozen=True)
class Run:
    """A run: the stages that went together, in order. ``seconds``: of all."""

    run_id: str
    started_at: datetime
    seconds: float
    outcome: str
    stages: Sequence[str]


@dataclass(frozen=True)
class Day:
    """A day of the log, or missing in it. ``usual``: events of its weekday in the weeks before; None: too few yet."""

    day: date
    num_events: int
    num_rejected: int
    is_missing: bool
    usual: float | None

    @property
    def is_small(self) -> bool:
        """Say whether the day has far fewer events than its weekday had before."""
        return self.usual is not None and self.num_events < SMALL * self.usual


SMALL = 0.2  # of what is usual
RECENT_DAYS = 28  # of the log's end, in which a small day is worth a warning


@dataclass(frozen=True)
class LogFacts:
    """The log by day, from its first to its last, days without a row included; and its rejected rows by reason."""

    days: Sequence[Day]
    rejected: Mapping[str, int]
    max_rejected_share: float

    @property
    def num_events(self) -> int:
        return sum(of.num_events for of in self.days)

    @property
    def rejected_share(self) -> float:
        """The share of rows that were rejected, those without a readable time included."""
        num_rejected = sum(self.rejected.values())
        return num_rejected / max(1, self.num_events + num_rejected)


@dataclass(frozen=True)
class SpaceFacts:
    """A space, its newest published snapshot, and dates published before days of the log changed."""

    space_id: str
    state: str
    in_use: str | None
    trained_until: date
    created_at: datetime
    num_snapshots: int
    newest_as_of: date | None
    newest_users: int
    stale: Sequence[date]


@dataclass(frozen=True)
class SnapshotFacts:
    """A snapshot of the space in question. ``faults``: of the gates, of one that was refused."""

    snapshot_id: str
    as_of: date
    revision: int
    state: str
    num_users: int
    available_at: datetime | None
    faults: Sequence[str]


@dataclass(frozen=True)
class ConsumerFacts:
    """A consumer. ``uses``: the space that it is pinned to; None: the one that serves."""

    name: str
    owner: str
    uses: str | None
    ready_for: str | None
    last_seen_at: datetime


@dataclass(frozen=True)
class Outcome:
    """What the example consumer has reached with an input, on the same rows."""

    input: str
    dims: int
    auc: float
    num_test: int


@dataclass(frozen=True)
class TrainingFacts:
    """How a space was trained. ``curve``: losses by epoch; ``metrics``: of the epoch that was kept, and the cost."""

    created_at: datetime
    num_inputs: int
    num_blocks: int
    latent_dim: int
    max_epochs: int
    curve: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    self_check: SelfCheck | None = None

    @property
    def is_validated(self) -> bool:
        """Say whether rows of users that were held out have been looked at."""
        return "valid_users_loss" in self.metrics


@dataclass(frozen=True)
class DriftPoint:
    """A metric of a snapshot against the one before it."""

    as_of: date
    snapshot_id: str
    value: float
    outcome: str


@dataclass(frozen=True)
class DriftFacts:
    """Metrics over time, their limits (None: none), and the inputs that moved most to the newest snapshot."""

    points: Mapping[str, Sequence[DriftPoint]]
    warn: Mapping[str, float | None]
    fail: Mapping[str, float | None]
    inputs: Mapping[str, float]


@dataclass(frozen=True)
class Figure:
    """A representation at a task, with its 90 % interval; ``ahead_by``: of the embedding, over it."""

    representation: str
    value: float
    low: float
    high: float
    ahead_by: float | None
    ahead_low: float | None
    ahead_high: float | None


@dataclass(frozen=True)
class TaskFacts:
    """All representations at a task's first metric. ``touched``: by heads of the training; None: not known."""

    task: str
    metric: str
    num_test: int
    touched: bool | None
    figures: Sequence[Figure]

    @property
    def nearest(self) -> Figure | None:
        """The representation that the embedding is least ahead of."""
        others = [of for of in self.figures if of.ahead_by is not None]
        return min(others, key=lambda of: of.ahead_by or 0.0, default=None)

    @property
    def verdict(self) -> str:
        """Say where the embedding stands against the best other: ahead, behind, or level (the interval holds 0)."""
        low, high = (self.nearest.ahead_low, self.nearest.ahead_high) if self.nearest else (None, None)
        return "ahead" if low is not None and low > 0 else "behind" if high is not None and high < 0 else "level"


@dataclass(frozen=True)
class EvaluationFacts:
    """The newest evaluation of a space."""

    evaluation_id: str
    evaluated_at: datetime
    tasks: Sequence[TaskFacts]


@dataclass(frozen=True)
class Group:
    """Users of the map who have a value in common, and where they are."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class MapFacts:
    """Sampled users of a snapshot in the plane of the first two principal components. No ids.

    ``shares``: of the variance, that each of the two has. ``coloured_by``: what groups are made by.
    """

    snapshot_id: str
    as_of: date
    num_users: int
    shares: tuple[float, float]
    coloured_by: str
    is_ordered: bool
    groups: Sequence[Group]


@dataclass(frozen=True)
class Table:
    """A table as it is stored now."""

    name: str
    num_bytes: int


@dataclass(frozen=True)
class Request:
    """A request to forget users that has not come to its end. ``due_at``: from when on it can."""

    request_id: str
    num_users: int
    due_at: datetime | None


@dataclass(frozen=True)
class Facts:
    """All of it. ``space_id``: the space that training, drift, evaluation and map are about; None: there is none yet.

    ``config``: the configuration file as it was named. ``newest``: each stage's last run. ``night``: the stages of the
    newest daily run; without one, of the newest pipeline. ``artifact_fault``: why the training cannot be told.
    """

    made_at: datetime
    config: str
    space_id: str | None
    runs: Sequence[Run]
    newest: Sequence[Stage]
    night: Sequence[Stage]
    night_is_daily: bool
    log: LogFacts
    spaces: Sequence[SpaceFacts]
    snapshots: Sequence[SnapshotFacts]
    consumers: Sequence[ConsumerFacts]
    outcomes: Sequence[Outcome]
    training: TrainingFacts | None
    artifact_fault: str | None
    drift: DriftFacts | None
    evaluation: EvaluationFacts | None
    user_map: MapFacts | None
    training_stages: Sequence[Stage]
    storage: Sequence[Table]
    requests: Sequence[Request] = field(default_factory=tuple)

    @property
    def space(self) -> SpaceFacts | None:
        return next((of for of in self.spaces if of.space_id == self.space_id), None)


def as_tree(value: Any) -> Any:
    """Turn values into what JSON has: dates as text, numbers that are not finite as null."""
    if isinstance(value, SelfCheck):
        value = value.model_dump(mode="json")
    if is_dataclass(value):
        return {of.name: as_tree(getattr(value, of.name)) for of in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_tree(of) for key, of in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, date | datetime):
        return value.isoformat()
    return [as_tree(of) for of in value]
