"""What becomes of an embedding: snapshots, gates, drift, evaluation, records; and the session that does it."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, ByteSize, Field, field_validator, model_validator

from userrep.config.values import (
    Attributes,
    Days,
    Duration,
    Limit,
    Name,
    Section,
    Share,
    ascending,
    part_of_name,
    refuse,
)


class Snapshots(Section):
    """How snapshots are stamped and kept."""

    publish_delay: Duration = timedelta(hours=6)
    """How long after its as-of date's 00:00 UTC a snapshot counts as available, where history is built."""
    keep_daily: Duration = timedelta(days=14)
    """Keep all snapshots of so long back."""
    keep_weekly: Duration = timedelta(weeks=26)
    """Keep the first snapshot of each week of so long back."""


class Gates(Section):
    """What a snapshot must pass before it is published."""

    min_rows_share: Share = 0.5
    """Least users, as a share of those of the snapshot before."""
    min_live_dims_share: Share = 0.5
    """Least share of dimensions that vary."""


class DriftLimits(Section):
    """How far a snapshot may move from the one before it, by metric; null: any distance."""

    rows_change: Limit = None
    """Change in the number of users, as a share."""
    new_share: Limit = None
    """Users who were not there before, over all who were."""
    vanished_share: Limit = None
    """Users who are there no more, over all who were."""
    no_event_change: Limit = None
    """Change in the share of users without an event in the longest window."""
    norm_change: Limit = None
    """Change in the mean length of vectors, as a share."""
    mean_shift: Limit = None
    """Of the dimension that moved most: the distance of its means, in standard deviations."""
    variance_change: Limit = None
    """Of the dimension that changed most: the logarithm of the ratio of its variances (0.7: twice or half)."""
    rank_loss: Limit = None
    """Share of the effective rank that is lost."""
    neighbours_lost: Limit = None
    """Share of their ten nearest neighbours that users have no more, among 2,000 users."""
    psi: Limit = None
    """Population stability index of the input that moved most: counts, days since, presence of blocks."""
    error_growth: Limit = None
    """Growth of the error with which the space gives its inputs back, as a share."""


_WARN = DriftLimits(
    rows_change=0.2, new_share=0.2, vanished_share=0.1, no_event_change=0.1, norm_change=0.1, mean_shift=0.5,
    variance_change=0.7, rank_loss=0.1, neighbours_lost=0.7, psi=0.25, error_growth=0.1,
)  # fmt: skip


class Drift(Section):
    """Drift of snapshots (``monitor_drift``)."""

    warn: DriftLimits = _WARN
    """Past these it is told; those left out keep their defaults."""
    fail: DriftLimits = DriftLimits()
    """Past these nothing is published, with exit code 3."""
    sample_users: int = Field(100_000, ge=100)
    """Of how many users it is measured."""

    @field_validator("warn", mode="before")
    @classmethod
    def _beside_the_defaults(cls, values: Any) -> Any:
        return {**_WARN.model_dump(), **values} if isinstance(values, dict) else values


class Downstream(Section):
    """The example consumer: will this user have an event in the next ``horizon_days`` days?"""

    horizon_days: Days = 7
    """How far its labels look ahead."""
    num_dates: int = Field(4, ge=1)
    """As-of dates of its training labels, and as many of its test labels, at most."""


class Evaluation(Section):
    """How an embedding is judged (``userrep evaluate``)."""

    horizons_days: Annotated[list[Days], Field(min_length=1), AfterValidator(ascending)] = [7, 30]
    """Days that labels reach past their as-of dates."""
    every_days: Days = 7
    """Days from one as-of date to the next."""
    max_dates: int = Field(8, ge=1)
    """As-of dates to fit probes on, and as many to test them on, at most: those nearest to the end of training."""
    max_rows: int = Field(60_000, ge=100)
    """Rows, of sampled users and all dates together; users are drawn by a hash of their id."""
    num_clusters: int = Field(20, ge=2)
    """Clusters of items, in tasks of categories."""
    newcomer_events: Annotated[list[Annotated[int, Field(ge=0, le=1000)]], AfterValidator(ascending)] = [0, 1, 3, 10]
    """How many events of new users are known, a task for each; none with `[]`."""
    attributes: Attributes = []
    """Columns of the users' table that tasks are made of, and that are no inputs."""
    num_seeds: int = Field(3, ge=1)
    """Draws of the examples of each task that draws any, such as pairs of users and items."""
    num_bootstraps: int = Field(400, ge=20)
    """Resamplings of the users, for intervals."""
    seed: int = 17
    """Of all that is drawn."""

    @property
    def attribute_names(self) -> list[str]:
        """The attributes as parts of names of tasks."""
        return [part_of_name(name) for name in self.attributes]


class Quality(Section):
    """The self-check that a training begins with (docs/training.md)."""

    self_check: bool = True
    """Before each training, train a model on earlier dates and compare it with simple baselines on later days."""
    min_gain: float | None = None
    """The least mean lead over the best baseline, for example 0.01 for 1 %. A training below it, or without a check, is
    refused with exit code 3."""

    @model_validator(mode="after")
    def _gate_has_a_check(self) -> "Quality":
        if self.min_gain is not None and not self.self_check:
            refuse(["min_gain needs the self-check: set self_check to true, or leave min_gain out"])
        return self


class Tracking(Section):
    """Trainings are recorded with MLflow; ``${NAME}`` in ``uri`` is a variable of the environment, for secrets."""

    mlflow: bool = True
    """Record trainings at all."""
    uri: str | None = Field(None, min_length=1)
    """Of the store or server; without one MLFLOW_TRACKING_URI, on Databricks its own, else SQLite below a local
    `root`."""
    experiment: str = Field("userrep", min_length=1)
    """The experiment that trainings are runs of."""
    model: Name = "userrep"
    """The registered model that spaces are versions of."""


class Spark(Section):
    """The session.

    Past ``item_vectors_bytes`` tasks hold the vectors of some items, and what they sum is added up by a shuffle.
    """

    master: str | None = "local[*]"
    """Where Spark runs when userrep starts it; null: the session of spark-submit or of the notebook."""
    conf: dict[str, str] = {}
    """Settings of the session."""
    item_vectors_bytes: ByteSize = Field(ByteSize(2**31), gt=0)
    """What a Python worker may hold of item vectors, such as 2GiB; past it they are taken in parts."""

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
