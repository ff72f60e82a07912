"""The whole configuration: all sections, and the checks across sections."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from userrep.config.environment import on_databricks
from userrep.config.items import AlsVectors, Items, ItemVectors
from userrep.config.log import Events
from userrep.config.operations import (
    Alerts,
    Drift,
    Evaluation,
    Freshness,
    Gates,
    Lineage,
    Quality,
    Retraining,
    Snapshots,
    Spark,
    Tracking,
)
from userrep.config.stream import Stream
from userrep.config.training import TRAINING_OF_AUTOENCODER, Model, Training
from userrep.config.users import Onboarding, Users
from userrep.config.values import MOST_DAYS, Days, Location, Name, Section, ascending, refuse

# Names of features besides pooled vectors, which a modality must not have.
_FEATURES = {"num_events", "weight", "num_active_days", "num_by_context", "part_of_day", "weekday"}
_FUTURE_DAYS = 30  # longest default horizon; each day of it shortens the range of training dates by one day


def _part(values: Any, *keys: str) -> Any:
    """Return a value of an unchecked configuration, or None."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


class Config(Section):
    """All sections; settings that are left out have their defaults."""

    root: Location | None = None
    """Folder or URI of all tables and artifacts; required unless `catalog` is set."""
    catalog: Name | None = None
    """Catalog of the tables, instead of `root`; requires `schema`."""
    schema_: Name | None = Field(None, alias="schema")
    """Schema of the tables in `catalog`."""
    artifacts: Location | None = None
    """Folder or URI of models, leases and checkpoints, reachable by the driver and all tasks; only with `catalog`.
    Defaults to `/Volumes/CATALOG/SCHEMA/userrep` on Databricks. With `root`, artifacts are stored below it."""
    events: Events
    """Event log."""
    items: Items | None = None
    """Items table, for item vectors from texts or for your own vectors."""
    users: Users | None = None
    """Users table, for attributes and registration times."""
    onboarding: Onboarding | None = None
    """Onboarding picks of new users."""
    windows_days: Annotated[list[Days], Field(min_length=1), AfterValidator(ascending)] = [7, 30, 180]
    """Lengths of the feature windows, in days before the as-of date. A snapshot contains the users with an event in the
    longest window, and the users with a registration or an onboarding pick before the as-of date."""
    history_days: int | None = Field(None, ge=0, le=2 * MOST_DAYS)
    """Length of an additional, longer window for context, in days; it does not affect which users a snapshot contains.
    Defaults to twice the longest of `windows_days`; 0 disables it."""
    item_vectors: dict[Name, ItemVectors] = Field(min_length=1)
    """Item vectors by modality, a name of your choice. Defaults to `behaviour` of kind `als` and, if items have a text,
    `content` of kind `text`."""
    model: Model = Model()
    """Model and its preset."""
    training: Training = Training()
    """Training of a space."""
    snapshots: Snapshots = Snapshots()
    """Publication times, retention and storage of snapshots."""
    gates: Gates = Gates()
    """Checks before a snapshot is published."""
    drift: Drift = Drift()
    """Limits on the drift of a snapshot."""
    freshness: Freshness = Freshness()
    """Largest ages of the newest snapshot and of the log."""
    alerts: Alerts = Alerts()
    """Metrics and messages for monitoring."""
    evaluation: Evaluation = Evaluation()
    """Evaluation of an embedding."""
    quality: Quality = Quality()
    """Self-check and quality gate of a training."""
    retraining: Retraining | None = None
    """Automatic retraining by `userrep nightly`; off without this section."""
    tracking: Tracking = Tracking()
    """Experiment tracking with MLflow."""
    lineage: Lineage | None = None
    """OpenLineage events of stages."""
    stream: Stream | None = None
    """Near-real-time updates. Without this section, `userrep stream` uses its defaults and `userrep daily` prepares no
    stream base."""
    spark: Spark = Spark()
    """Spark session and its limits."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Fill in the item vectors, and the training settings of the model's preset, where they are not given."""
        text, preset = _part(values, "items", "columns", "text"), _part(values, "model", "preset")
        if isinstance(values, dict) and "item_vectors" not in values:
            content = {"content": {"kind": "text"}} if text else {}
            values = {**values, "item_vectors": {"behaviour": {"kind": "als"}, **content}}
        if preset == "autoencoder" and isinstance(training := values.get("training", {}), dict):
            values = {**values, "training": TRAINING_OF_AUTOENCODER | training}
        return values

    @model_validator(mode="after")
    def _check_across_sections(self) -> "Config":
        faults = []
        if (self.root is None) == (self.catalog is None):
            faults.append("set either root: PATH, or catalog: NAME with schema: NAME, as the location of tables")
        if (self.catalog is None) != (self.schema_ is None):
            faults.append("catalog and schema must be set together")
        if self.artifacts is not None and self.root is not None:
            faults.append("artifacts applies only with catalog; with root, they are below it. Remove artifacts")
        if self.catalog and self.schema_ and not (self.root or self.artifacts or on_databricks()):
            faults.append("artifacts must be set with catalog, which stores only tables. Name a folder or URI")
        for modality, vectors in self.item_vectors.items():
            column = {"text": "text", "vector": "vector"}.get(vectors.kind)
            if modality in _FEATURES or modality == "attribute" or modality.startswith("has_"):
                faults.append(f"item_vectors.{modality}: this is the name of another feature. Choose another name")
            if column and (self.items is None or getattr(self.items.columns, column) is None):
                faults.append(f"item_vectors.{modality}: kind {vectors.kind} needs items.columns.{column}")
        if self.history_days and self.history_days <= self.windows_days[-1]:
            faults.append(
                f"history_days: must be longer than the longest of windows_days ({self.windows_days[-1]}), got "
                f"{self.history_days}. Remove it for twice that length, or set it to 0 for no history"
            )
        unknown = sorted({*(self.training.future_days or [])} - {*self.windows_days})
        if unknown:
            faults.append(
                f"training.future_days: must be among windows_days ({', '.join(map(str, self.windows_days))}), got "
                f"{', '.join(map(str, unknown))}. Targets are the windows of a later as-of date"
            )
        faults += self._faults_of_task_attributes() + self._faults_of_stream()
        refuse(faults)
        return self

    def _faults_of_task_attributes(self) -> list[str]:
        attributes = dict(zip(self.evaluation.attribute_names, self.evaluation.attributes, strict=True))
        if attributes and self.users is None:
            return ["evaluation.attributes: there is no users table to read them from. Set users, or remove them"]
        inputs = self.users.attribute_names if self.users else []
        return [
            f"evaluation.attributes: {attributes[name]} is a model input (users.attributes), which no task should "
            f"predict. Remove it from one of the two; neighbours_by_{name} shows how well an input is preserved"
            for name in attributes
            if name in inputs
        ]

    @property
    def streaming(self) -> Stream:
        """The section ``stream``, or its defaults if there is none."""
        return self.stream or Stream()

    def _faults_of_stream(self) -> list[str]:
        sources = {} if self.stream is None else self.stream.sources
        faults = [
            f"stream.{name}: there is no section {name}, which defines the columns. Add it"
            for name in ("onboarding", "users")
            if name in sources and getattr(self, name) is None
        ]
        if self.stream is not None and self.events.sources:
            faults.append("stream: a log of several sources cannot be streamed yet. Remove this section")
        if self.stream is not None and self.catalog is not None:
            faults.append("stream: not supported with a catalog: it looks users up in files below root. Set root")
        return faults

    @property
    def future_days(self) -> list[int]:
        """Prediction horizons in days; empty if the model predicts nothing about the next days."""
        if not self.model.looks_ahead:
            return []
        near = [days for days in self.windows_days if days <= _FUTURE_DAYS]
        return self.training.future_days or near or self.windows_days[:1]

    @property
    def longest_future(self) -> int:
        """Longest prediction horizon in days; 0 if the model predicts nothing about the next days."""
        return max(self.future_days, default=0)

    @property
    def history_window(self) -> int | None:
        """Length of the additional window in days; None if it is disabled."""
        return (2 * self.windows_days[-1] if self.history_days is None else self.history_days) or None

    @property
    def refit_days(self) -> int:
        """Days between versions of the item vectors; the shortest interval of all modalities."""
        days = [v.refit_days for v in self.item_vectors.values() if isinstance(v, AlsVectors)]
        return min(days, default=28)
