"""The content of a report as plain values. `gather` reads them; the page and the JSON file are made from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

from userrep.report.log_facts import LogFacts
from userrep.report.space_facts import DriftFacts, EvaluationFacts, Outcome, TrainingFacts
from userrep.report.user_map import MapFacts
from userrep.spaces.registry_state import Consumer
from userrep.spaces.snapshots import Snapshot

if TYPE_CHECKING:
    from userrep.report.explained import ExplanationFacts

BAD, WARN, NOTE, OK = "bad", "warn", "note", "ok"
NOUNS = {BAD: "problem", WARN: "warning"}  # levels of findings that need attention, the worst first


@dataclass(frozen=True)
class Stage:
    """One stage of a run, from ``job_runs``. ``command``: of the run; the stage itself if it was not recorded.

    ``core_hours``: run time of Spark's tasks; None if not measured. ``expected_seconds``: the duration that was
    predicted when the run started; None if none was.
    """

    run_id: str
    command: str
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
class Request:
    """A request to forget users that is not finished. ``due_at``: when it can be finished; None if it was cut off.

    ``has_begun``: whether its tombstones are written; if not, it continues only with its file of users.
    """

    request_id: str
    num_users: int
    due_at: datetime | None
    has_begun: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything in a report. The names of the fields are those of the JSON file.

    ``root``: the root, or catalog and schema. ``config``: the configuration file as the user named it. ``newest``: the
    last run of each stage. ``latest_run``: the stages of the newest daily run, or of the newest pipeline run if no
    daily run exists. ``storage``: bytes of each table's newest version, the largest first. ``max_age``: by level, the
    largest age of the serving snapshot and of the log; empty: not checked.

    ``space_id``: the space that the last fields describe, or None if no space exists. ``snapshots``: by as-of date and
    revision. ``artifact_fault``: why the space's artifact cannot be read.
    """

    made_at: datetime
    root: str
    config: str
    runs: Sequence[Run]
    newest: Sequence[Stage]
    latest_run: Sequence[Stage]
    latest_run_is_daily: bool
    log: LogFacts
    spaces: Sequence[SpaceFacts]
    consumers: Sequence[Consumer]
    training_stages: Sequence[Stage]
    storage: Mapping[str, int]
    requests: Sequence[Request]
    max_age: Mapping[str, timedelta]
    space_id: str | None = None
    snapshots: Sequence[Snapshot] = ()
    outcomes: Sequence[Outcome] = ()
    training: TrainingFacts | None = None
    artifact_fault: str | None = None
    drift: DriftFacts | None = None
    evaluation: EvaluationFacts | None = None
    user_map: MapFacts | None = None
    explanation: "ExplanationFacts | None" = None

    @property
    def space(self) -> SpaceFacts | None:
        return next((space for space in self.spaces if space.space_id == self.space_id), None)

    @property
    def serving(self) -> SpaceFacts | None:
        return next((space for space in self.spaces if space.state == "serving"), None)

    @property
    def late_as_of(self) -> date | None:
        """The date that a snapshot of the space is missing for although the log has its events; None if none is."""
        space, end = self.space, self.log.end
        if space is None or not space.in_use or space.newest_as_of is None or end is None:
            return None
        as_of = min(end, self.made_at.date())  # today is not over yet
        return as_of if space.newest_as_of < as_of else None

    def age(self, as_of: date) -> timedelta:
        """Return the time since 00:00 UTC of a date."""
        return self.made_at - datetime.combine(as_of, time())

    @property
    def latest_run_name(self) -> str:
        return "latest daily run" if self.latest_run_is_daily else "latest pipeline run"

    @property
    def latest_run_seconds(self) -> float:
        return sum(stage.seconds for stage in self.latest_run)

    @property
    def latest_run_core_hours(self) -> float:
        return sum(stage.core_hours or 0 for stage in self.latest_run)
