"""The configuration: one YAML file, every key known, all faults at once.

Paths are relative to the working directory, or any URI that Spark and pyarrow read.
"""

import difflib
import re
import reprlib
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import available_timezones

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from userrep.errors import UsageError, in_line
from userrep.ids import NAME_RULE, checked_name

_FUTURE_DAYS = 30  # at most, by default: a farther future costs as many days of training dates
_MOST_DAYS = 3650
_MOST_TEXT, _MOST_ALIASES = 1 << 20, 32  # of a file
_BRIEFLY = reprlib.Repr()  # a value of a few lines may be one of millions of parts
_BRIEFLY.maxlevel, _BRIEFLY.maxlist, _BRIEFLY.maxdict, _BRIEFLY.maxstring, _BRIEFLY.maxother = 3, 10, 10, 200, 200
Format = Literal["parquet", "delta", "json", "csv", "table"]


def _duration(value: Any) -> timedelta:
    """Read ``6h``, ``90m`` or ``1d`` as a duration."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d{1,6})\s*([dhms])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a number with d, h, m or s, for example 6h")
    unit = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}[match[2]]
    return timedelta(**{unit: int(match[1])})


def _day(value: Any) -> Any:
    """Take a date, or read ``YYYY-MM-DD``; a number is no date."""
    if isinstance(value, str):
        value = date.fromisoformat(value) if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else None
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError("write a date as YYYY-MM-DD")
    return value


def _ascending(numbers: list[int]) -> list[int]:
    if len(set(numbers)) != len(numbers):
        raise ValueError("numbers must differ")
    return sorted(numbers)


def _distinct(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is named twice")
    return names


def _part_of_name(column: str) -> str:
    """Write an owner's column as part of a name of ours: lower case, _ for all that is neither letter nor digit."""
    return re.sub(r"[^a-z0-9_]", "_", column.lower())


def _distinct_as_names(columns: list[str]) -> list[str]:
    _distinct(columns)
    _distinct([_part_of_name(column) for column in columns])
    return columns


def _name(name: str) -> str:
    try:
        return checked_name(name, "name")
    except UsageError:
        raise ValueError(f"not a valid name: {NAME_RULE}") from None


def _time_zone(name: str) -> str:
    if name not in available_timezones():
        near = difflib.get_close_matches(name, available_timezones(), n=1, cutoff=0.5)
        cure = f"did you mean {near[0]}?" if near else "write one such as Europe/Berlin or UTC"
        raise ValueError(f"no such time zone; {cure}")
    return name


def _place(path: str) -> str:
    """Refuse what would tear a log's lines apart, and what no file system takes."""
    if not path.isprintable():
        raise ValueError("a path of printable characters was expected")
    if re.search(r"://[^/@]*:[^/@]*@", path):
        raise ValueError("no place for a password; the environment of driver and executors gives access")
    return path


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(lambda span: f"{span.total_seconds():.0f}s", when_used="json"),
]
Day = Annotated[date, BeforeValidator(_day)]
Days = Annotated[int, Field(ge=1, le=_MOST_DAYS)]
Name = Annotated[str, AfterValidator(_name)]
Place = Annotated[str, Field(min_length=1), AfterValidator(_place)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Limit = Annotated[float | None, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Attributes = Annotated[list[str], AfterValidator(_distinct_as_names)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(Section):
    """A table of the owner's. A column ``user.id`` is the one of that name, else field ``id`` of a struct ``user``."""

    path: Place
    format: Format = "parquet"


class EventColumns(Section):
    """Which of the log's columns mean what. ``context`` columns are counted per value."""

    user_id: str
    item_id: str
    event_at: str
    event_id: str | None = None
    event_type: str | None = None
    weight: str | None = None
    context: Annotated[list[str], AfterValidator(_distinct)] = []


class Partition(Section):
    """The column that the log is partitioned by: a date, ``2024-05-01`` or ``20240501``.

    It holds the events' UTC day, or the day on which they came in. Rows that came in before their day, or more than
    ``max_lateness`` (whole days count) after it, are rejected.
    """

    column: str
    holds: Literal["event_date", "ingestion_date"]
    max_lateness: Duration = timedelta(days=3)

    @model_validator(mode="after")
    def _only_what_comes_in_is_late(self) -> "Partition":
        if self.holds == "event_date" and "max_lateness" in self.model_fields_set:
            raise ValueError("max_lateness goes with holds: ingestion_date; leave it out with event_date")
        return self

    @property
    def late_days(self) -> int:
        """How many days after an event's day its partition may lie."""
        return self.max_lateness.days if self.holds == "ingestion_date" else 0


class LogSettings(Section):
    """What may be said of a log besides its columns; ``time_zone`` is that of times that carry none."""

    event_type: str | None = Field(None, min_length=1)
    partition: Partition | None = None
    time_zone: TimeZone = "UTC"


class EventSource(LogSettings, Source):
    """One log: where it is, which of its columns mean what, or which one event type all its rows have."""

    columns: EventColumns

    @model_validator(mode="after")
    def _one_event_type(self) -> "EventSource":
        _refuse(_event_type_faults(self.columns, self.event_type))
        return self

    @property
    def meaning(self) -> dict[str, Any]:
        """All that decides what the log's rows mean; settings that are not used leave no trace in it."""
        settings = self.model_dump(include=set(LogSettings.model_fields), exclude_defaults=True)
        return self.columns.model_dump() | settings


class Events(LogSettings):
    """The event log: one, or several ``sources`` as one.

    A day fails that has a larger share of malformed rows than ``max_rejected_share``, or, when it is built, less than
    ``min_day_share`` of the rows of the log's median day. Days missing within the log are refused with
    ``require_all_days``, else told.
    """

    path: Place | None = None
    format: Format = "parquet"
    columns: EventColumns | None = None
    sources: list[EventSource] = []
    max_rejected_share: Share = 0.05
    min_day_share: Share = 0.01
    require_all_days: bool = False

    @model_validator(mode="after")
    def _one_form(self) -> "Events":
        own = [name for name in EventSource.model_fields if name in self.model_fields_set]
        if self.sources:
            faults = [f"{', '.join(own)} beside sources: write it into each of the sources"] if own else []
        elif self.path is None and self.columns is None:
            faults = ["say where the log is: either path and columns, or sources"]
        elif self.path is None or self.columns is None:
            faults = ["path and columns go together"]
        else:
            faults = _event_type_faults(self.columns, self.event_type)
        _refuse(faults)
        return self

    @property
    def all_sources(self) -> dict[str, EventSource]:
        """The logs by their place in the configuration, whichever way they are written."""
        if self.sources:
            return {f"events.sources[{k}]": source for k, source in enumerate(self.sources)}
        settings = self.model_dump(include=set(EventSource.model_fields), exclude_unset=True)
        return {"events": EventSource(**settings)}

    @property
    def context(self) -> list[str]:
        """The context columns of all sources; a source without one of them has no value for it."""
        return list(dict.fromkeys(name for source in self.all_sources.values() for name in source.columns.context))

    @property
    def meaning(self) -> Any:
        """All that decides what the rows of the log mean, wherever they lie."""
        meanings = [source.meaning for source in self.all_sources.values()]
        return meanings[0] if len(meanings) == 1 else meanings


def _event_type_faults(columns: EventColumns, event_type: str | None) -> list[str]:
    both = event_type is not None and columns.event_type is not None
    return ["event_type and columns.event_type exclude each other; keep one"] if both else []


def _refuse(faults: list[str]) -> None:
    if faults:
        raise ValueError("\n".join(faults))


class ItemColumns(Section):
    item_id: str
    text: str | None = None
    vector: str | None = None


class Items(Source):
    columns: ItemColumns


class UserColumns(Section):
    user_id: str
    registered_at: str | None = None


class Users(Source):
    columns: UserColumns
    attributes: Attributes = []

    @property
    def attribute_names(self) -> list[str]:
        """The attributes as parts of column names."""
        return [_part_of_name(name) for name in self.attributes]


class OnboardingColumns(Section):
    user_id: str
    item_id: str
    event_at: str


class Onboarding(Source):
    """A new user's first picks."""

    columns: OnboardingColumns


class AlsVectors(Section):
    """Implicit-feedback ALS on all events before a version's date (Hu, Koren, Volinsky 2008)."""

    kind: Literal["als"]
    dim: int = Field(80, ge=2, le=512)
    refit_days: Days = 28
    regularization: float = Field(0.5, gt=0)
    alpha: float = Field(3.0, gt=0)
    iterations: int = Field(6, ge=1)
    seed: int = 17


class TextVectors(Section):
    """Hashed tf-idf of the item's text and its truncated SVD."""

    kind: Literal["text"]
    dim: int = Field(80, ge=2, le=512)
    seed: int = 17


class GivenVectors(Section):
    """The owner's own vectors: the column ``items.columns.vector``."""

    kind: Literal["vector"]
    dim: int = Field(ge=1, le=4096)


ItemVectors = Annotated[AlsVectors | TextVectors | GivenVectors, Field(discriminator="kind")]


class Model(Section):
    """The network. ``future_weight``: of the losses of what users do next, beside 1 of the reconstruction; 0: a plain
    autoencoder. ``contrast_weight``: of telling users' next days apart, among the rows that a step has of one shard.
    """

    latent_dim: int = Field(120, ge=2, le=4096)
    hidden_dim: int = Field(512, ge=2)
    decoder_dim: int = Field(256, ge=2)
    dropout: float = Field(0.3, ge=0, lt=1)
    noise: float = Field(0.1, ge=0)
    feature_dropout: float = Field(0.2, ge=0, lt=1)
    block_dropout: float = Field(0.2, ge=0, lt=1)
    newcomer_share: float = Field(0.1, ge=0, lt=1)
    future_weight: float = Field(1.0, ge=0)
    contrast_weight: float = Field(0.0, ge=0)


class AsOfs(Section):
    """As-of dates that training sees: every ``every_days``, ``max_dates`` at most, back from one whose future ends at
    ``until``.

    Neither inputs, nor targets, nor item vectors of a training row see an event at or after ``until``.
    """

    until: Day | None = None
    every_days: Days = 7
    max_dates: int = Field(26, ge=1)


class Training(Section):
    """How a space is trained.

    ``batch_size``: rows of a step, over all ranks; the result does not depend on the number of ranks. With
    ``batch_size_per_rank`` instead, more ranks take larger steps, and the learning rate grows with them (Goyal et al.
    2017). ``precision``: of products; auto is bf16 on a GPU that has it, fp16 on others, fp32 on CPUs. Weights and
    gradients are fp32. ``init_from``: an earlier space, whose weights it begins with as far as they fit.
    ``future_days``: how far the model looks ahead; windows, by default those of at most 30 days.
    ``checkpoint_every``: within an epoch; there is one at each epoch's end besides.
    """

    backend: Literal["local", "horovod", "torch_distributor"] = "local"
    num_workers: int = Field(1, ge=1)
    as_ofs: AsOfs = AsOfs()
    future_days: Annotated[list[Days], Field(min_length=1), AfterValidator(_ascending)] | None = None
    num_shards: int = Field(16, ge=1)
    batch_size: int = Field(512, ge=2)
    batch_size_per_rank: int | None = Field(None, ge=1)
    max_epochs: int = Field(16, ge=1)
    patience: int = Field(3, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    held_out_share: float = Field(0.05, gt=0, lt=0.5)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: int = Field(1, ge=1)
    seed: int = 17
    init_from: Name | None = None
    max_restarts: int = Field(2, ge=0)
    checkpoint_every: Duration = timedelta(minutes=2)

    @property
    def global_batch(self) -> int:
        """Rows of a step, over all ranks."""
        return self.batch_size if self.batch_size_per_rank is None else self.batch_size_per_rank * self.num_workers

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate * (1 if self.batch_size_per_rank is None else self.num_workers)

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides what comes out, whoever trains it and wherever."""
        neutral = {"backend", "num_workers", "threads", "max_restarts", "checkpoint_every"}
        derived = {"batch_size": self.global_batch, "learning_rate": self.peak_learning_rate}
        return self.model_dump(exclude={*neutral, "batch_size_per_rank"}) | derived

    @model_validator(mode="after")
    def _ranks_deal(self) -> "Training":
        faults = []
        if self.backend == "local" and self.num_workers != 1:
            faults.append("num_workers must be 1 with backend local; set backend: horovod for more")
        if self.num_shards % self.num_workers:
            faults.append(f"num_workers must divide num_shards ({self.num_shards}), so that all ranks step together")
        default = type(self).model_fields["batch_size"].default  # also written out, in the manifests of spaces
        if self.batch_size_per_rank is not None and self.batch_size != default:
            faults.append("batch_size and batch_size_per_rank exclude each other; keep one")
        elif self.global_batch % self.num_shards:
            named = "batch_size" if self.batch_size_per_rank is None else "batch_size_per_rank x num_workers"
            faults.append(f"{named} must be a multiple of num_shards ({self.num_shards})")
        _refuse(faults)
        return self


class Snapshots(Section):
    """How snapshots are stamped and kept: all of the last ``keep_daily``, one a week of the last ``keep_weekly``."""

    publish_delay: Duration = timedelta(hours=6)
    keep_daily: Duration = timedelta(days=14)
    keep_weekly: Duration = timedelta(weeks=26)


class Gates(Section):
    """What a snapshot must pass before it is published."""

    min_rows_share: Share = 0.5
    min_live_dims_share: Share = 0.5


class DriftLimits(Section):
    """How far a snapshot may move from the one before it, by metric; null: any distance."""

    rows_change: Limit = None
    new_share: Limit = None
    vanished_share: Limit = None
    no_event_change: Limit = None
    norm_change: Limit = None
    mean_shift: Limit = None
    variance_change: Limit = None
    rank_loss: Limit = None
    neighbours_lost: Limit = None
    psi: Limit = None
    error_growth: Limit = None


_WARN = DriftLimits(
    rows_change=0.2, new_share=0.2, vanished_share=0.1, no_event_change=0.1, norm_change=0.1, mean_shift=0.5,
    variance_change=0.7, rank_loss=0.1, neighbours_lost=0.7, psi=0.25, error_growth=0.1,
)  # fmt: skip


class Drift(Section):
    """Drift of snapshots (``monitor_drift``): what is told, what fails, and of how many users it is measured."""

    warn: DriftLimits = _WARN
    fail: DriftLimits = DriftLimits()
    sample_users: int = Field(100_000, ge=100)

    @field_validator("warn", mode="before")
    @classmethod
    def _beside_the_defaults(cls, values: Any) -> Any:
        return {**_WARN.model_dump(), **values} if isinstance(values, dict) else values


class Downstream(Section):
    """The example consumer: will this user have an event in the next ``horizon_days`` days?"""

    horizon_days: Days = 7
    num_dates: int = Field(4, ge=1)


class Evaluation(Section):
    """How an embedding is judged (``userrep evaluate``).

    Labels reach ``horizons_days`` past their as-of dates, which lie ``every_days`` apart: ``max_dates`` at most to
    train heads on, and as many to test them on. ``max_rows``: of sampled users and dates, all dates together.
    ``num_clusters``: of items, in tasks of categories. ``newcomer_events``: of new users, how many events are known,
    a task for each number. ``attributes``: columns of the users' table that tasks are made of, and that are no inputs.
    ``num_seeds``: trainings of each head; ``num_bootstraps``: resamplings of the users, for intervals.
    """

    horizons_days: Annotated[list[Days], Field(min_length=1), AfterValidator(_ascending)] = [7, 30]
    every_days: Days = 7
    max_dates: int = Field(8, ge=1)
    max_rows: int = Field(60_000, ge=100)
    num_clusters: int = Field(20, ge=2)
    newcomer_events: Annotated[list[Annotated[int, Field(ge=0, le=1000)]], AfterValidator(_ascending)] = [0, 1, 3, 10]
    attributes: Attributes = []
    num_seeds: int = Field(3, ge=1)
    num_bootstraps: int = Field(400, ge=20)
    seed: int = 17

    @property
    def attribute_names(self) -> list[str]:
        """The attributes as parts of names of tasks."""
        return [_part_of_name(name) for name in self.attributes]


class Tracking(Section):
    """Trainings are recorded with MLflow. ``uri``: of its store or server; ``${NAME}`` in it is a variable of the
    environment. Without one: MLFLOW_TRACKING_URI, on Databricks its own, else SQLite below a local ``root``.
    """

    mlflow: bool = True
    uri: str | None = Field(None, min_length=1)
    experiment: str = Field("userrep", min_length=1)
    model: Name = "userrep"


class StreamSource(Section):
    """Where events come from: a topic of Kafka with JSON values, or a folder of files or a Delta table that grows.

    Columns are those of the source of the same name in the batch, mapped as there.
    """

    topic: str | None = Field(None, min_length=1)
    path: Place | None = None
    format: Literal["parquet", "delta", "json", "csv"] = "parquet"

    @model_validator(mode="after")
    def _one_place(self) -> "StreamSource":
        _refuse(["name a topic, or a path, and not both"] if (self.topic is None) == (self.path is None) else [])
        return self


class Kafka(Section):
    """The broker. ``options`` are Kafka's own, without the prefix ``kafka.``; ``${NAME}`` in a value is a variable of
    the environment, for secrets.
    """

    bootstrap_servers: str = Field(min_length=1)
    options: dict[str, str] = {}


class Redis(Section):
    """The online store. ``url``: ``redis://`` or ``rediss://``; ``${NAME}`` in it is a variable of the environment.
    ``expires_after``: a vector that no event has renewed; the snapshots have newer ones by then.
    """

    url: Annotated[str, Field(pattern=r"^(rediss?|unix)://")]
    expires_after: Duration = timedelta(days=3)


class Stream(Section):
    """Near real time (``userrep stream``).

    ``events``, ``onboarding``, ``users``: where new rows come from; without ``events``, the files of the log itself.
    ``trigger``: how often a micro-batch begins; ``max_rows_per_batch`` and ``max_files_per_batch``: of Kafka's
    messages, and of files. ``open_days``: how many days, the last one included, the stream knows by itself alone; their
    late events count at once, and openings are made a day less ahead. ``late``: how long after its close a day is still
    corrected.
    """

    query_id: Name = "stream"
    events: StreamSource | None = None
    onboarding: StreamSource | None = None
    users: StreamSource | None = None
    kafka: Kafka | None = None
    redis: Redis | None = None
    trigger: Duration = timedelta(seconds=2)
    max_rows_per_batch: int = Field(20_000, ge=1)
    max_files_per_batch: int = Field(16, ge=1)
    open_days: int = Field(3, ge=2, le=7)
    late: Duration = timedelta(hours=6)

    @property
    def sources(self) -> dict[str, StreamSource]:
        """The sources that are named, by what they bring."""
        named = {"events": self.events, "onboarding": self.onboarding, "users": self.users}
        return {what: source for what, source in named.items() if source is not None}

    @model_validator(mode="after")
    def _broker_is_named(self) -> "Stream":
        topics = [what for what, source in self.sources.items() if source.topic is not None]
        _refuse([f"{topics[0]}.topic needs kafka.bootstrap_servers"] if topics and self.kafka is None else [])
        return self


class Spark(Section):
    """The session. ``item_vectors_bytes``: what a Python worker may hold of item vectors, such as 2GiB.

    Past that they are taken in parts: tasks hold the vectors of some items, and what they sum is added up by a shuffle.
    """

    master: str | None = "local[*]"
    conf: dict[str, str] = {}
    item_vectors_bytes: ByteSize = Field(ByteSize(2**31), gt=0)

    @model_validator(mode="before")
    @classmethod
    def _text(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("conf"), dict):
            as_text = {True: "true", False: "false"}
            texts = {
                k: as_text[v] if isinstance(v, bool) else str(v) if isinstance(v, int | float) else v
                for k, v in values["conf"].items()
            }
            return {**values, "conf": texts}
        return values


class Config(Section):
    """The whole file.

    ``windows_days``: features are sums over that many days before an as-of date; who has an event in the longest of
    them is in a snapshot. ``history_days``: one more window that features are summed over, for context, which decides
    nothing about who is in a snapshot; without it, twice the longest of ``windows_days``; 0: none.
    """

    root: Place | None = None
    catalog: Name | None = None
    schema_: Name | None = Field(None, alias="schema")
    events: Events
    items: Items | None = None
    users: Users | None = None
    onboarding: Onboarding | None = None
    windows_days: Annotated[list[Days], Field(min_length=1), AfterValidator(_ascending)] = [7, 30, 180]
    history_days: int | None = Field(None, ge=0, le=2 * _MOST_DAYS)
    item_vectors: dict[Name, ItemVectors] = Field(min_length=1)
    model: Model = Model()
    training: Training = Training()
    snapshots: Snapshots = Snapshots()
    gates: Gates = Gates()
    drift: Drift = Drift()
    downstream: Downstream = Downstream()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()
    stream: Stream | None = None
    spark: Spark = Spark()

    @model_validator(mode="before")
    @classmethod
    def _default_item_vectors(cls, values: Any) -> Any:
        if isinstance(values, dict) and "item_vectors" not in values:
            default: dict[str, Any] = {"behaviour": {"kind": "als"}}
            items = values.get("items")
            columns = items.get("columns") if isinstance(items, dict) else None
            if isinstance(columns, dict) and columns.get("text"):
                default["content"] = {"kind": "text"}
            return {**values, "item_vectors": default}
        return values

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        faults = []
        if (self.root is None) == (self.catalog is None):
            faults.append("say where tables live: either root: PATH, or catalog: NAME with schema: NAME")
        if (self.catalog is None) != (self.schema_ is None):
            faults.append("catalog and schema go together")
        for modality, vectors in self.item_vectors.items():
            column = {"text": "text", "vector": "vector"}.get(vectors.kind)
            if column and (self.items is None or getattr(self.items.columns, column) is None):
                faults.append(f"item_vectors.{modality} has kind {vectors.kind}, which needs items.columns.{column}")
        if self.history_days and self.history_days <= self.windows_days[-1]:
            faults.append(
                f"history_days: {self.history_days}: wanted more than the longest of windows_days, "
                f"{self.windows_days[-1]}; leave it out for twice that, or set it to 0 for no history"
            )
        strange = sorted({*(self.training.future_days or [])} - {*self.windows_days})
        if strange:
            faults.append(
                f"training.future_days: {', '.join(map(str, strange))}: choose among windows_days, "
                f"{', '.join(map(str, self.windows_days))}: the past of a later date is what is predicted"
            )
        faults += self._faults_of_left_out_attributes() + self._faults_of_stream()
        _refuse(faults)
        return self

    def _faults_of_left_out_attributes(self) -> list[str]:
        left_out = dict(zip(self.evaluation.attribute_names, self.evaluation.attributes, strict=True))
        if left_out and self.users is None:
            return [
                "evaluation.attributes are columns of the users' table: say where that is (users), or leave them out"
            ]
        inputs = self.users.attribute_names if self.users else []
        return [
            f"evaluation.attributes: {left_out[name]} is among users.attributes, and so an input; take it out of one "
            f"of the two: whether an input is still there is what neighbours_by_{name} asks"
            for name in left_out
            if name in inputs
        ]

    @property
    def streaming(self) -> Stream:
        """The section ``stream``, with its defaults where there is none."""
        return self.stream or Stream()

    def _faults_of_stream(self) -> list[str]:
        named = {} if self.stream is None else self.stream.sources
        faults = [
            f"stream.{what}: there is no section {what}, whose columns its rows have"
            for what in ("onboarding", "users")
            if what in named and getattr(self, what) is None
        ]
        if self.stream is not None and self.events.sources:
            faults.append("stream: a log of several sources cannot be streamed yet; leave the section out")
        if self.stream is not None and self.catalog is not None:
            faults.append("stream: looks users up in files below root, which tables in a catalog are not; set root")
        return faults

    @property
    def future_days(self) -> list[int]:
        """How far training rows look ahead, in days; nowhere with ``model.future_weight`` 0."""
        if not self.model.future_weight:
            return []
        near = [days for days in self.windows_days if days <= _FUTURE_DAYS]
        return self.training.future_days or near or self.windows_days[:1]

    @property
    def history_window(self) -> int | None:
        """The window beside ``windows_days``, in days; None: there is none."""
        return (2 * self.windows_days[-1] if self.history_days is None else self.history_days) or None

    @property
    def refit_days(self) -> int:
        """How long a version of the item vectors is used, in days."""
        days = [v.refit_days for v in self.item_vectors.values() if isinstance(v, AlsVectors)]
        return min(days, default=28)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file, apply ``key.path=value`` overrides, check it whole.

    Raises
    ------
    UsageError
        With every fault: unreadable file, unknown keys (and the nearest known one), wrong types, parts that don't fit.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MOST_TEXT + 1)
        values = _from_yaml(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}. Name a configuration file with --config.") from None
    except ValueError as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a mapping of keys was expected at the top, got {type(values).__name__}.")
    faults: list[str] = []
    for override in overrides:
        try:
            _apply(values, override)
        except UsageError as error:
            faults += error.faults
    if faults:
        raise UsageError(faults)
    return parse_config(values, str(path))


def _from_yaml(text: str) -> Any:
    """Read YAML; raises ValueError, in one line, whatever is wrong with it.

    Texts are small, and say little twice: a few hundred bytes of aliases of aliases may stand for gigabytes.
    """
    if len(text) > _MOST_TEXT:
        raise ValueError(f"more than {_MOST_TEXT} characters, which no configuration has")
    try:
        if text.count("*") > _MOST_ALIASES:
            aliases = sum(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
            if aliases > _MOST_ALIASES:
                raise ValueError(f"{aliases} aliases (*name), more than {_MOST_ALIASES}: write the values out")
        return yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.MarkedYAMLError as error:  # its text shows the line, and the line may hold a secret
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem or error.context}{where}") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter: a date that does not exist
        raise ValueError(" ".join(str(error).split())) from None
    except (LookupError, AttributeError, TypeError) as error:  # a tag (!!int) on a value that is no such thing
        raise ValueError(f"a value that its tag does not fit ({type(error).__name__})") from None


def parse_config(values: dict[str, Any], origin: str) -> Config:
    """Check configuration values; ``origin`` stands before each fault."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UsageError([f"{origin}: {fault}" for fault in _faults(error)]) from None


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one ``key.path=value``; whatever follows ``spark.conf.`` is one key, dots and all."""
    key, equals, text = override.partition("=")
    shown = f"{in_line(key)}{equals and '=...'}"  # the value may be a secret
    parts = key.split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {shown}: write key.path=value, for example --set model.latent_dim=64.")
    if parts[:2] == ["spark", "conf"] and len(parts) > 2:
        parts = ["spark", "conf", ".".join(parts[2:])]
    for part in parts[:-1]:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            raise UsageError(f"--set {shown}: {in_line(part)} is no section, it has no keys below it.")
    try:
        values[parts[-1]] = _from_yaml(text)
    except ValueError:
        raise UsageError(f"--set {shown}: the value is not readable as YAML.") from None


_SECRET = {("spark", "conf"), ("tracking", "uri"), ("stream", "redis"), ("stream", "kafka", "options")}  # may hold one
_KINDS: dict[int | str, type[Section]] = {"als": AlsVectors, "text": TextVectors, "vector": GivenVectors}


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        location = fault["loc"]
        place = ".".join(_spelt(location))
        is_secret = location[:2] in _SECRET or location[:3] in _SECRET
        if fault["type"] == "extra_forbidden":
            known = _known_keys(location[:-1])
            near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
            cure = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}."
            yield f"unknown key {place}; {cure}"
        elif fault["type"] == "missing":
            yield f"{place} is missing."
        elif fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
            yield f"{place}.kind: one of {', '.join(map(str, _KINDS))} was expected{_got(fault['input'], 'kind')}."
        elif fault["type"] in ("model_type", "dict_type"):
            yield f"{place}: keys were expected below it{'' if is_secret else _got(fault['input'])}."
        else:
            got = "" if is_secret or location[-1:] == ("[key]",) else _got(fault["input"])
            for message in fault["msg"].removeprefix("Value error, ").splitlines():
                yield f"{place}: {message.rstrip('.')}{got}." if place else f"{message}."


def _spelt(location: tuple[int | str, ...]) -> list[str]:
    """Write a fault's location as the file has it: without pydantic's marks for a key and for a kind of vectors."""
    is_kind = len(location) > 3 and location[0] == "item_vectors"
    parts = [str(part) for k, part in enumerate(location) if part != "[key]" and not (is_kind and k == 2)]
    return [in_line(part) for part in parts]


def _got(value: Any, key: str | None = None) -> str:
    """Show what was got, in brief; a section's contents are not shown."""
    if isinstance(value, dict):
        value = value.get(key)
        if value is None:
            return ""
    try:
        shown = _BRIEFLY.repr(value)
    except ValueError:  # Python writes no numbers of more than 4,300 digits
        return ", got a number of thousands of digits"
    shown = re.sub(r"://[^/@\s]*@", "://***@", shown)
    return f", got {shown if len(shown) <= 80 else shown[:77] + '...'}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """List the keys of the section at ``location`` of the configuration."""
    section: Any = Config
    for k, part in enumerate(location):
        if location[0] == "item_vectors" and k == 2:
            section = _KINDS[part]
        elif isinstance(part, int):
            continue  # of a list, whose sections are all of one kind
        elif isinstance(section, type) and issubclass(section, Section):
            field = section.model_fields.get(str(part))
            if field is None:
                return []
            options = [field.annotation, *get_args(field.annotation)]
            section = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
    if section is None:
        return []
    return [field.alias or name for name, field in section.model_fields.items()]
