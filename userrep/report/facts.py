"""The content of a report as plain values. `gather` reads them; the page and the JSON file are made from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from userrep.model.self_check import SelfCheck
from userrep.store.vector_storage import STORED

if TYPE_CHECKING:
    from userrep.report.explained import ExplanationFacts

BAD, WARN, NOTE, OK = "bad", "warn", "note", "ok"


@dataclass(frozen=True)
class Stage:
    """One stage of a run, from ``job_runs``.

    ``core_hours``: run time of Spark's tasks; None if not measured. ``expected_seconds``: the duration that was
    predicted when the run started; None if none was.
    """

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
    expected_seconds: float | None = None


@dataclass(frozen=True)
class Run:
    """One run, with the stages that were not skipped, in order. ``seconds``: sum over all its stages.

    ``is_daily``: whether it is a daily run. ``expected_seconds``: sum of the predicted durations of its stages, and of
    the actual ones of stages without a prediction; None if none was predicted.
    """

    run_id: str
    started_at: datetime
    seconds: float
    outcome: str
    stages: Sequence[str]
    is_daily: bool = False
    expected_seconds: float | None = None


@dataclass(frozen=True)
class Day:
    """One day of the log. ``is_missing``: it has no tiles.

    ``usual``: median number of events of the same weekday in the 8 weeks before, or None if there is no such number.
    """

    day: date
    num_events: int
    num_rejected: int
    is_missing: bool
    usual: float | None

    @property
    def is_small(self) -> bool:
        """Whether the day has far fewer events than usual for its weekday."""
        return self.usual is not None and self.num_events < SMALL * self.usual


SMALL = 0.2  # share of the usual events below which a day is small
RECENT_DAYS = 28  # days at the end of the log in which a small day causes a warning


@dataclass(frozen=True)
class LogFacts:
    """All days from the first to the last day of the log, and the number of rejected rows by reason."""

    days: Sequence[Day]
    rejected: Mapping[str, int]
    max_rejected_share: float

    @property
    def num_events(self) -> int:
        return sum(day.num_events for day in self.days)

    @property
    def num_missing(self) -> int:
        return sum(day.is_missing for day in self.days)

    @property
    def gaps(self) -> list[tuple[date, date]]:
        """The first and last day of each run of consecutive missing days."""
        spans: list[tuple[date, date]] = []
        for day in (day.day for day in self.days if day.is_missing):
            if spans and spans[-1][1] + timedelta(days=1) == day:
                spans[-1] = (spans[-1][0], day)
            else:
                spans.append((day, day))
        return spans

    @property
    def rejected_share(self) -> float:
        """Share of rows that were rejected, including rows whose time is unreadable."""
        num_rejected = sum(self.rejected.values())
        return num_rejected / max(1, self.num_events + num_rejected)


@dataclass(frozen=True)
class SpaceFacts:
    """A space and its newest published snapshot. ``stale``: dates published before days of the log changed."""

    space_id: str
    state: str
    in_use: str | None
    trained_until: date
    created_at: datetime
    num_snapshots: int
    newest_as_of: date | None
    newest_users: int
    available_as_of: date | None  # of the newest snapshot that is available to consumers
    available_at: datetime | None
    stale: Sequence[date]


@dataclass(frozen=True)
class SnapshotFacts:
    """A snapshot of the reported space. ``faults``: why the gates refused it, otherwise empty."""

    snapshot_id: str
    as_of: date
    revision: int
    state: str
    num_users: int
    available_at: datetime | None
    faults: Sequence[str]


@dataclass(frozen=True)
class ConsumerFacts:
    """A consumer. ``uses``: the space it is pinned to, or None if it follows the serving space."""

    name: str
    owner: str
    uses: str | None
    ready_for: str | None
    last_seen_at: datetime


@dataclass(frozen=True)
class Outcome:
    """Result of the example consumer with one input. All inputs are tested on the same rows."""

    input: str
    dims: int
    auc: float
    num_test: int


@dataclass(frozen=True)
class TrainingFacts:
    """The training of a space. ``curve``: losses by epoch. ``metrics``: losses of the kept epoch, and the cost."""

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
        """Whether the loss was measured on held-out users."""
        return "valid_users_loss" in self.metrics


@dataclass(frozen=True)
class DriftPoint:
    """A drift metric of one snapshot compared with the previous one."""

    as_of: date
    snapshot_id: str
    value: float
    outcome: str


@dataclass(frozen=True)
class DriftFacts:
    """Drift metrics over time, their limits (None: no limit), and the inputs that moved most in the newest snapshot."""

    points: Mapping[str, Sequence[DriftPoint]]
    warn: Mapping[str, float | None]
    fail: Mapping[str, float | None]
    inputs: Mapping[str, float]

    @property
    def newest(self) -> dict[str, DriftPoint]:
        """The points of the newest date, by metric."""
        last = {metric: points[-1] for metric, points in self.points.items()}
        as_of = max(point.as_of for point in last.values())
        return {metric: point for metric, point in last.items() if point.as_of == as_of}


@dataclass(frozen=True)
class Figure:
    """A representation on a task, with its 90% interval.

    ``ahead_by``: how far the embedding is ahead of it, or None for the embedding itself.
    """

    representation: str
    value: float
    low: float
    high: float
    ahead_by: float | None
    ahead_low: float | None
    ahead_high: float | None


@dataclass(frozen=True)
class TaskFacts:
    """All representations on a task, by the task's first metric.

    ``touched``: whether the space was trained with heads whose labels resemble the task's, or None if unknown.
    """

    task: str
    metric: str
    num_test: int
    touched: bool | None
    figures: Sequence[Figure]

    @property
    def nearest(self) -> Figure | None:
        """The other representation with the smallest lead of the embedding, if there is one."""
        others = [f for f in self.figures if f.ahead_by is not None and not f.representation.startswith(STORED)]
        return min(others, key=lambda figure: figure.ahead_by or 0.0, default=None)

    @property
    def verdict(self) -> str:
        """How the embedding compares with the best other: ahead, behind, or tied (the interval contains 0)."""
        low, high = (self.nearest.ahead_low, self.nearest.ahead_high) if self.nearest else (None, None)
        return "ahead" if low is not None and low > 0 else "behind" if high is not None and high < 0 else "tied"


@dataclass(frozen=True)
class EvaluationFacts:
    """The newest evaluation of a space."""

    evaluation_id: str
    evaluated_at: datetime
    tasks: Sequence[TaskFacts]


@dataclass(frozen=True)
class Group:
    """Users on the map that share a value, and their points."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class MapFacts:
    """Sampled users of a snapshot in the plane of its first two principal components, without ids.

    ``shares``: share of the variance in each of the two components. ``coloured_by``: name of the value that groups the
    users. ``is_ordered``: whether the groups are ranges of numbers, in order.
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
    """The size of a table's newest version."""

    name: str
    num_bytes: int


@dataclass(frozen=True)
class Request:
    """A request to forget users that is not finished. ``due_at``: when it can be finished; None if it was cut off."""

    request_id: str
    num_users: int
    due_at: datetime | None


@dataclass(frozen=True)
class Facts:
    """Everything in a report. The names of the fields are those of the JSON file.

    ``config``: the configuration file as the user named it. ``space_id``: the space that training, drift, evaluation
    and map describe, or None if no space exists. ``newest``: the last run of each stage. ``night``: the stages of the
    newest daily run, or of the newest pipeline run if no daily run exists. ``artifact_fault``: why the space's artifact
    cannot be read. ``max_age``: by level, the largest age of the serving snapshot and of the log; empty: not checked.
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
    explanation: "ExplanationFacts | None"
    training_stages: Sequence[Stage]
    storage: Sequence[Table]
    requests: Sequence[Request] = field(default_factory=tuple)
    max_age: Mapping[str, timedelta] = field(default_factory=dict)

    @property
    def space(self) -> SpaceFacts | None:
        return next((space for space in self.spaces if space.space_id == self.space_id), None)

    @property
    def night_name(self) -> str:
        return "latest daily run" if self.night_is_daily else "latest pipeline run"

    @property
    def night_seconds(self) -> float:
        return sum(stage.seconds for stage in self.night)

    @property
    def night_core_hours(self) -> float:
        return sum(stage.core_hours or 0 for stage in self.night)


def as_tree(value: Any) -> Any:
    """Convert values to JSON types: dates to text, spans to seconds, infinite numbers to None, dataclasses to dicts."""
    return to_jsonable_python(value, inf_nan_mode="null", timedelta_mode="float")
