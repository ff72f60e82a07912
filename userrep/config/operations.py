"""Configuration of snapshots, gates, drift, evaluation, experiment tracking and the Spark session."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, field_validator, model_validator

from userrep.config.values import (
    Attributes,
    Days,
    Duration,
    Limit,
    Location,
    Name,
    Section,
    Share,
    WholeDays,
    ascending,
    part_of_name,
    refuse,
)

Storage = Literal["float32", "float16", "int8"]


class Snapshots(Section):
    """Publication times, retention and storage of snapshots."""

    publish_delay: Duration = timedelta(hours=6)
    """Delay from 00:00 UTC of the as-of date until a snapshot counts as available, where history is built as if on time
    (`pipeline`, `backfill`, `daily --as-if-on-time`, and the job `publish_snapshot`)."""
    keep_daily: WholeDays = timedelta(days=14)
    """Age up to which every snapshot is kept."""
    keep_weekly: WholeDays = timedelta(weeks=26)
    """Age up to which the first snapshot of each week is kept."""
    history_dates: int = Field(8, ge=0)
    """Number of past dates that a space also has snapshots of, so that consumers have vectors for their first training
    labels: the newest weekly dates from the end of its training on. `pipeline` builds them and retention keeps them."""
    storage: Storage = "float32"
    """Type that numbers of new snapshots and streamed vectors are rounded to: `float32`, `float16` or `int8`. Snapshots
    that exist stay as they are (docs/how-to/embeddings.md)."""


class Gates(Section):
    """Checks that a snapshot must pass before it is published."""

    min_rows_share: Share = 0.5
    """Smallest number of users, as a share of the previous snapshot's users."""
    min_live_dims_share: Share = 0.5
    """Smallest share of dimensions whose values vary between users."""


class DriftLimits(Section):
    """Limits on the drift from the previous snapshot, by metric; null means no limit."""

    rows_change: Limit = None
    """Relative change in the number of users."""
    new_share: Limit = None
    """New users, as a share of the previous snapshot's users."""
    vanished_share: Limit = None
    """Users missing from this snapshot, as a share of the previous snapshot's users."""
    no_event_change: Limit = None
    """Change in the share of users without an event in the longest window."""
    norm_change: Limit = None
    """Relative change in the mean norm of the vectors, which is mostly that of the tastes."""
    mean_shift: Limit = None
    """Largest difference between the means of a dimension, in standard deviations."""
    variance_change: Limit = None
    """Largest absolute log ratio between the variances of a dimension (0.7: twice or half)."""
    rank_loss: Limit = None
    """Relative loss of the effective rank of the dimensions' correlation matrix."""
    neighbours_lost: Limit = None
    """Share of the ten nearest neighbors by cosine that users have lost, among 2,000 users."""
    psi: Limit = None
    """Largest population stability index of an input (counts, days since an event, presence of blocks)."""
    error_growth: Limit = None
    """Relative growth of the reconstruction error."""


_WARN = DriftLimits(
    rows_change=0.2, new_share=0.2, vanished_share=0.1, no_event_change=0.1, norm_change=0.1, mean_shift=0.5,
    variance_change=0.7, rank_loss=0.1, neighbours_lost=0.7, psi=0.25, error_growth=0.1,
)  # fmt: skip


class Drift(Section):
    """Drift detection between snapshots (``monitor_drift``)."""

    warn: DriftLimits = _WARN
    """Limits above which a warning is logged; metrics that are left out keep their default limits."""
    fail: DriftLimits = DriftLimits()
    """Limits above which the snapshot is not published and the command exits with code 3."""
    sample_users: int = Field(100_000, ge=100)
    """Number of users in the sample that drift is measured on."""

    @field_validator("warn", mode="before")
    @classmethod
    def _with_default_limits(cls, values: Any) -> Any:
        return {**_WARN.model_dump(), **values} if isinstance(values, dict) else values


class Evaluation(Section):
    """Evaluation of an embedding (``userrep evaluate``)."""

    horizons_days: Annotated[list[Days], Field(min_length=1), AfterValidator(ascending)] = [7, 30]
    """Days after the as-of date that labels cover; one set of labels per value."""
    every_days: Days = 7
    """Days between as-of dates."""
    max_dates: int = Field(8, ge=1)
    """Largest number of as-of dates for fitting probes, and again for testing them; dates near the end of training come
    first."""
    max_rows: int = Field(60_000, ge=100)
    """Largest number of rows over all dates; above it, users are sampled by a hash of their id."""
    num_clusters: int = Field(20, ge=2)
    """Number of item clusters in the category tasks."""
    newcomer_events: Annotated[list[Annotated[int, Field(ge=0, le=1000)]], AfterValidator(ascending)] = [0, 1, 3, 10]
    """Numbers of known events of new users, with one task per number; `[]` disables these tasks."""
    attributes: Attributes = []
    """Columns of the users table that tasks predict; they must not be model inputs."""
    num_seeds: int = Field(3, ge=1)
    """Number of random draws for each task that samples its examples, such as user-item pairs."""
    num_bootstraps: int = Field(400, ge=20)
    """Number of bootstrap resamples of the users, for intervals."""
    seed: int = Field(17, ge=0, lt=2**31)
    """Random seed for all sampling."""

    @property
    def attribute_names(self) -> list[str]:
        """Attributes in the form used in task names."""
        return [part_of_name(name) for name in self.attributes]


class Freshness(Section):
    """Largest ages of the serving space's newest snapshot and of the log, for `userrep check` and the report.

    A snapshot's age is counted from 00:00 UTC of its as-of date; the log's, from the end of its last day.
    """

    warn_after: Duration | None = None
    """Age above which there is a warning, such as 26h. By default, there is none."""
    error_after: Duration | None = None
    """Age above which `userrep check` exits with code 3, such as 50h. By default, there is none. Also the longest time
    after the log's end for which a later as-of date means "log not complete yet" (exit code 4); if it is not set, that
    time is 50h."""

    @property
    def retry_within(self) -> timedelta:
        """The longest time after the log's end for which a later as-of date means that the log is not complete yet."""
        return timedelta(hours=50) if self.error_after is None else self.error_after

    @model_validator(mode="after")
    def _in_order(self) -> "Freshness":
        warn, error = self.warn_after, self.error_after
        if warn is not None and error is not None and warn > error:
            refuse(["warn_after must not be longer than error_after. Swap them"])
        return self


class Alerts(Section):
    """Where runs and `userrep check` report the state of the tables (docs/how-to/operate.md)."""

    prometheus_file: Annotated[Location, Field(pattern=r"\.prom$")] | None = None
    """Local file for node exporter's textfile collector, rewritten by each run and each `userrep check`. Its name must
    end in `.prom`, and its folder must exist."""
    webhook: str | None = Field(None, pattern=r"^(https?://|\$\{\w+\})", repr=False)
    """URL to which a JSON object is posted if a run fails, a gate refuses, a snapshot has drifted or is too old;
    `${NAME}` refers to an environment variable, for secrets."""


class Quality(Section):
    """The self-check before each training, and the gate on its result (docs/explanation/training.md)."""

    self_check: bool = True
    """Whether each training is preceded by a check: a model trained on earlier dates is compared with simple baselines
    on later days."""
    min_gain: float | None = None
    """Smallest mean gain over the best baseline, such as 0.01 for 1 %. A training with a smaller gain, or whose check
    could not run, is refused with exit code 3. By default, no gain is required."""

    @model_validator(mode="after")
    def _gate_has_a_check(self) -> "Quality":
        if self.min_gain is not None and not self.self_check:
            refuse(["min_gain needs the self-check. Set self_check to true, or remove min_gain"])
        return self


class Retraining(Section):
    """When `userrep nightly` trains a candidate, and whether it promotes it. Without this section, it never does."""

    every: WholeDays = timedelta(days=28)
    """Age of the newest space, in days from its training to the as-of date, from which another training is due."""
    on_drift: bool = True
    """Whether drift of the serving space past a limit of `drift` makes a training due, unless a newer space waits to
    serve."""
    promote: Literal["never", "when_all_pass"] = "never"
    """`when_all_pass` promotes a ready space once each consumer that follows has the verdict `pass` and is ready for
    it. Without such consumers, nothing is promoted."""

    @model_validator(mode="after")
    def _waits_a_day(self) -> "Retraining":
        if self.every < timedelta(days=1):
            refuse(["every must be at least 1d. Set a number of days, such as 28d"])
        return self


class Tracking(Section):
    """Experiment tracking with MLflow; ``${NAME}`` in ``uri`` refers to an environment variable, for secrets."""

    mlflow: bool = True
    """Whether trainings are recorded."""
    uri: str | None = Field(None, min_length=1)
    """Tracking URI. Defaults to `MLFLOW_TRACKING_URI`; without it, to the workspace on Databricks, else to SQLite below
    a local `root`."""
    experiment: str = Field("userrep", min_length=1)
    """MLflow experiment of the training runs."""
    model: Name = "userrep"
    """Registered MLflow model; each space is one of its versions."""


class Lineage(Section):
    """OpenLineage events of stages. Without this section, events are sent only if OPENLINEAGE_URL is set."""

    namespace: str = Field("userrep", min_length=1)
    """Namespace of the jobs; each stage is one job."""
    transport: dict[str, Any] | None = Field(None, repr=False)
    """Transport of OpenLineage's Python client, such as `{type: http, url: https://…}` or `{type: file, log_file_path:
    events.jsonl, append: true}`. By default, the client's own configuration file and environment variables apply; keep
    secrets there."""


def _as_text(value: Any) -> Any:
    """Convert a number or boolean to the text that Spark expects."""
    return str(value).lower() if isinstance(value, bool | int | float) else value


class Spark(Section):
    """The Spark session and its limits.

    If the item vectors exceed ``item_vectors_bytes``, each task loads the vectors of a range of items, and a shuffle
    adds up the partial sums.
    """

    master: str | None = "local[*]"
    """Spark master of a session that userrep starts; null uses the session of spark-submit or of the notebook."""
    conf: dict[str, Annotated[str, BeforeValidator(_as_text)]] = {}
    """Spark settings of the session."""
    item_vectors_bytes: ByteSize = Field(ByteSize(2**31), gt=0)
    """Memory for item vectors in each Python worker, such as 2GiB; more item vectors are processed in parts."""
