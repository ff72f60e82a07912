"""The whole configuration: its sections, and how they fit together."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from userrep.config.items import AlsVectors, Items, ItemVectors
from userrep.config.log import Events
from userrep.config.operations import Downstream, Drift, Evaluation, Gates, Quality, Snapshots, Spark, Tracking
from userrep.config.stream import Stream
from userrep.config.training import TRAINING_OF_AUTOENCODER, Model, Training
from userrep.config.users import Onboarding, Users
from userrep.config.values import MOST_DAYS, Days, Name, Place, Section, ascending, refuse
from userrep.config.variables import on_databricks

_FUTURE_DAYS = 30  # at most, by default: a farther future costs as many days of training dates


class Config(Section):
    """All sections; what is left out has its default."""

    root: Place | None = None
    """Where tables and artifacts live: a folder or a URI."""
    catalog: Name | None = None
    """In the place of `root`: a catalog, with `schema`."""
    schema_: Name | None = Field(None, alias="schema")
    """The catalog's schema."""
    artifacts: Place | None = None
    """With `catalog`: the folder or URI of models, leases and checkpoints, which the driver and all tasks can reach. On
    Databricks it defaults to `/Volumes/CATALOG/SCHEMA/userrep`. With `root`, they are below it."""
    events: Events
    """The event log."""
    items: Items | None = None
    """The items, for vectors of their texts or of the owner's."""
    users: Users | None = None
    """The users, for attributes and registrations."""
    onboarding: Onboarding | None = None
    """New users' first picks."""
    windows_days: Annotated[list[Days], Field(min_length=1), AfterValidator(ascending)] = [7, 30, 180]
    """Features are sums over that many days before an as-of date; who has an event in the longest is in a snapshot."""
    history_days: int | None = Field(None, ge=0, le=2 * MOST_DAYS)
    """One more window, for context, which decides nothing about who is in a snapshot; without it, twice the longest of
    `windows_days`; 0: none."""
    item_vectors: dict[Name, ItemVectors] = Field(min_length=1)
    """Kinds of item vectors by a name of yours; without it, `behaviour` of kind `als`, and `content` of kind `text`
    where items have a text."""
    model: Model = Model()
    """The network."""
    training: Training = Training()
    """How a space is trained."""
    snapshots: Snapshots = Snapshots()
    """How snapshots are stamped and kept."""
    gates: Gates = Gates()
    """What a snapshot must pass."""
    drift: Drift = Drift()
    """How far a snapshot may move."""
    downstream: Downstream = Downstream()
    """The example consumer."""
    evaluation: Evaluation = Evaluation()
    """How an embedding is judged."""
    quality: Quality = Quality()
    """The quality gate of a training."""
    tracking: Tracking = Tracking()
    """Where trainings are recorded."""
    stream: Stream | None = None
    """Near real time; without the section, its defaults, and `userrep daily` makes no openings."""
    spark: Spark = Spark()
    """The session."""

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

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        """Fill in how a preset's model is trained, where nothing else is set."""
        model = values.get("model") if isinstance(values, dict) else None
        training = values.get("training", {}) if isinstance(values, dict) else None
        if isinstance(model, dict) and model.get("preset") == "autoencoder" and isinstance(training, dict):
            return {**values, "training": TRAINING_OF_AUTOENCODER | training}
        return values

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        faults = []
        if (self.root is None) == (self.catalog is None):
            faults.append("say where tables live: either root: PATH, or catalog: NAME with schema: NAME")
        if (self.catalog is None) != (self.schema_ is None):
            faults.append("catalog and schema go together")
        if self.artifacts is not None and self.root is not None:
            faults.append("artifacts goes with catalog; with root, models are below it")
        if self.catalog and self.schema_ and not (self.root or self.artifacts or on_databricks()):
            faults.append("artifacts: a catalog holds tables only; name a folder or URI for models")
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
        refuse(faults)
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
        """How far training rows look ahead, in days; nowhere if the model predicts nothing of the next days."""
        if not self.model.looks_ahead:
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
