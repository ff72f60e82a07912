"""The configuration: one YAML file, every key known, all faults at once.

Paths are relative to the working directory, or any URI that Spark and pyarrow read.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from userrep.errors import UsageError
from userrep.ids import checked_name

Format = Literal["parquet", "delta", "json", "csv", "table"]


def _duration(value: Any) -> Any:
    """Read ``6h``, ``90m`` or ``1d`` as a duration; anything else is left to pydantic."""
    match = re.fullmatch(r"(\d+)\s*([dhms])", value.strip()) if isinstance(value, str) else None
    if match is None:
        return value
    unit = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}[match[2]]
    return timedelta(**{unit: int(match[1])})


def _windows(days: list[int]) -> list[int]:
    if len(set(days)) != len(days):
        raise ValueError("windows must differ")
    return sorted(days)


def _name(name: str) -> str:
    try:
        return checked_name(name, "name")
    except UsageError as error:
        raise ValueError(str(error)) from None


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Name = Annotated[str, AfterValidator(_name)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EventColumns(Section):
    """Which of the log's columns mean what. ``context`` columns are counted per value."""

    user_id: str
    item_id: str
    event_at: str
    event_id: str | None = None
    event_type: str | None = None
    weight: str | None = None
    context: list[str] = []

    def mapped(self) -> list[str]:
        return [
            name
            for name in (
                self.user_id, self.item_id, self.event_at, self.event_id, self.event_type, self.weight, *self.context,
            )
            if name is not None
        ]  # fmt: skip


class Source(Section):
    path: str
    format: Format = "parquet"


class Events(Source):
    """The event log. A day with a larger share of malformed rows than ``max_rejected_share`` fails."""

    columns: EventColumns
    max_rejected_share: Share = 0.05


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
    attributes: list[Name] = []


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
    refit_days: int = Field(28, ge=1)
    regularization: float = Field(0.05, gt=0)
    alpha: float = Field(10.0, gt=0)
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
    latent_dim: int = Field(120, ge=2, le=4096)
    hidden_dim: int = Field(512, ge=2)
    decoder_dim: int = Field(256, ge=2)
    dropout: float = Field(0.3, ge=0, lt=1)
    noise: float = Field(0.1, ge=0)
    feature_dropout: float = Field(0.2, ge=0, lt=1)
    block_dropout: float = Field(0.2, ge=0, lt=1)
    newcomer_share: float = Field(0.1, ge=0, lt=1)


class AsOfs(Section):
    """As-of dates that training sees: every ``every_days`` back from ``until``, ``max_dates`` at most.

    Neither inputs nor item vectors of a training row see an event at or after ``until``.
    """

    until: date | None = None
    every_days: int = Field(7, ge=1)
    max_dates: int = Field(26, ge=1)


class Training(Section):
    backend: Literal["local", "horovod"] = "local"
    num_workers: int = Field(1, ge=1)
    as_ofs: AsOfs = AsOfs()
    num_shards: int = Field(16, ge=1)
    batch_size: int = Field(512, ge=2)
    max_epochs: int = Field(8, ge=1)
    patience: int = Field(2, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    held_out_share: float = Field(0.05, gt=0, lt=0.5)
    threads: int = Field(1, ge=1)
    seed: int = 17

    @model_validator(mode="after")
    def _ranks_deal(self) -> "Training":
        if self.backend == "local" and self.num_workers != 1:
            raise ValueError("num_workers must be 1 with backend local; set backend: horovod for more")
        if self.num_shards % self.num_workers:
            raise ValueError(f"num_workers must divide num_shards ({self.num_shards}), so that all ranks step together")
        if self.batch_size % self.num_shards:
            raise ValueError(f"batch_size must be a multiple of num_shards ({self.num_shards})")
        return self


class Snapshots(Section):
    publish_delay: Duration = timedelta(hours=6)


class Gates(Section):
    """What a snapshot must pass before it is published."""

    min_rows_share: Share = 0.5
    min_live_dims_share: Share = 0.5


class Downstream(Section):
    """The example consumer: will this user have an event in the next ``horizon_days`` days?"""

    horizon_days: int = Field(7, ge=1)
    num_dates: int = Field(4, ge=1)


class Spark(Section):
    master: str | None = "local[*]"
    conf: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _text(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("conf"), dict):
            as_text = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in values["conf"].items()}
            return {**values, "conf": as_text}
        return values


class Config(Section):
    root: str | None = None
    catalog: str | None = None
    schema_: str | None = Field(None, alias="schema")
    events: Events
    items: Items | None = None
    users: Users | None = None
    onboarding: Onboarding | None = None
    windows_days: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(_windows)] = [
        7,
        30,
        180,
    ]
    item_vectors: dict[Name, ItemVectors] = Field(min_length=1)
    model: Model = Model()
    training: Training = Training()
    snapshots: Snapshots = Snapshots()
    gates: Gates = Gates()
    downstream: Downstream = Downstream()
    spark: Spark = Spark()

    @model_validator(mode="before")
    @classmethod
    def _default_item_vectors(cls, values: Any) -> Any:
        if isinstance(values, dict) and "item_vectors" not in values:
            default: dict[str, Any] = {"behaviour": {"kind": "als"}}
            if isinstance(columns := (values.get("items") or {}).get("columns"), dict) and columns.get("text"):
                default["content"] = {"kind": "text"}
            return {**values, "item_vectors": default}
        return values

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        if (self.root is None) == (self.catalog is None):
            raise ValueError("say where tables live: either root: PATH, or catalog: NAME with schema: NAME")
        if (self.catalog is None) != (self.schema_ is None):
            raise ValueError("catalog and schema go together")
        for modality, vectors in self.item_vectors.items():
            column = {"text": "text", "vector": "vector"}.get(vectors.kind)
            if column and (self.items is None or getattr(self.items.columns, column) is None):
                raise ValueError(f"item_vectors.{modality} has kind {vectors.kind}, which needs items.columns.{column}")
        return self

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
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}. Name a configuration file with --config.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a mapping of keys was expected at the top, got {type(values).__name__}.")
    for override in overrides:
        _apply(values, override)
    return parse_config(values, str(path))


def parse_config(values: dict[str, Any], origin: str) -> Config:
    """Check configuration values; ``origin`` stands before each fault."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UsageError([f"{origin}: {fault}" for fault in _faults(error)]) from None


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one ``key.path=value``; whatever follows ``spark.conf.`` is one key, dots and all."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override}: write key.path=value, for example --set model.latent_dim=64.")
    parts = key.split(".")
    if parts[:2] == ["spark", "conf"] and len(parts) > 2:
        parts = ["spark", "conf", ".".join(parts[2:])]
    for part in parts[:-1]:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            raise UsageError(f"--set {override}: {part} is a single value, it has no keys below it.")
    try:
        values[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {override}: the value is not readable as YAML.") from None


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        place = ".".join(
            str(part) for part in fault["loc"] if part not in ("als", "text", "vector") or part == fault["loc"][-1]
        )
        if fault["type"] == "extra_forbidden":
            key = str(fault["loc"][-1])
            near = difflib.get_close_matches(key, _known_keys(fault["loc"][:-1]), n=1, cutoff=0.5)
            yield f"unknown key {place}" + (
                f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(_known_keys(fault['loc'][:-1]))}."
            )
        elif fault["type"] == "missing":
            yield f"{place} is missing."
        else:
            message = fault["msg"].removeprefix("Value error, ")
            got = "" if isinstance(fault["input"], dict) else f", got {fault['input']!r}"
            yield f"{place}: {message}{got}." if place else f"{message}."


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """List the keys of the section at ``location`` of the configuration."""
    section: Any = Config
    kinds = {"als": AlsVectors, "text": TextVectors, "vector": GivenVectors}
    for part in location:
        if part in kinds:
            section = kinds[str(part)]
        elif isinstance(section, type) and issubclass(section, Section):
            field = section.model_fields.get(str(part))
            if field is None:
                return []
            options = [field.annotation, *get_args(field.annotation)]
            section = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)
    if section is None:
        return []
    return [field.alias or name for name, field in section.model_fields.items()]
