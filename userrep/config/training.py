"""Configuration of the model and its training."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from userrep.config.values import Day, Days, Duration, Name, Section, ascending, refuse

_AUTOENCODER = {
    "hidden_dim": 512, "decoder_dim": 256, "noise": 0.1, "feature_dropout": 0.2, "block_dropout": 0.2,
    "newcomer_share": 0.1, "next_items_weight": 0.0, "next_days_weight": 0.0,
}  # fmt: skip

DEFAULT_ROOM = timedelta(days=28)  # between the end of training and the as-of date, if no end is configured
TRAINING_OF_AUTOENCODER = {"max_epochs": 16, "learning_rate": 1e-3, "weight_decay": 0.01}


class Model(Section):
    """The model and the noise added to its inputs in training (docs/explanation/training.md).

    The preset `autoencoder` changes these defaults: `hidden_dim` 512, `decoder_dim` 256, `noise` 0.1, `feature_dropout`
    and `block_dropout` 0.2, `newcomer_share` 0.1, `next_items_weight` and `next_days_weight` 0; and in `training`,
    `max_epochs` 16, `learning_rate` 0.001 and `weight_decay` 0.01.
    """

    preset: Literal["next_days", "autoencoder"] = "next_days"
    """Set of defaults: `next_days`, a linear encoder that predicts users' next days, or `autoencoder`, the paper's
    model."""
    latent_dim: int = Field(120, ge=2, le=4096)
    """Dimensions of the embedding."""
    hidden_dim: int = Field(0, ge=0)
    """Units in the encoder's hidden layer; 0 makes the encoder linear."""
    decoder_dim: int = Field(0, ge=0)
    """Units in the decoder's hidden layer; 0 makes the decoder linear."""
    reconstruction_weight: float = Field(1.0, gt=0)
    """Weight of the reconstruction loss, over all blocks together."""
    next_items_weight: float = Field(1.0, ge=0)
    """Weight of the loss for predicting the items of the next days."""
    next_days_weight: float = Field(0.3, ge=0)
    """Weight of the loss for predicting the activity of the next days: event counts, and whether the user returns."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout rate of the hidden layer."""
    noise: float = Field(0.0, ge=0)
    """Standard deviation of the Gaussian noise on the inputs, which are scaled to a standard deviation of 1."""
    feature_dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout rate of individual inputs; the remaining inputs are scaled up."""
    block_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout rate of whole feature blocks."""
    newcomer_share: float = Field(0.0, ge=0, lt=1)
    """Share of training rows that are presented as users without any event."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        """Apply the preset's values to settings that are not given."""
        if isinstance(values, dict) and values.get("preset") == "autoencoder":
            return _AUTOENCODER | values
        return values

    @property
    def looks_ahead(self) -> bool:
        """Whether the model predicts anything about the next days."""
        return bool(self.next_items_weight or self.next_days_weight)


class AsOfs(Section):
    """As-of dates of the training rows.

    The inputs, targets and item vectors of a training row use only events before ``until``.
    """

    until: Day | None = None
    """End of the training data (exclusive); defaults to 28 days before the run's as-of date."""
    every_days: Days = 7
    """Days between as-of dates, counted back from the last date whose targets end by `until`."""
    max_dates: int = Field(13, ge=1)
    """Largest number of as-of dates; a short log gives fewer. The self-check uses earlier dates, too: up to half as
    many."""

    @property
    def max_check_dates(self) -> int:
        """Largest number of as-of dates of a training together with those that only its self-check uses."""
        return self.max_dates * 3 // 2


class Training(Section):
    """Training of a space (docs/explanation/training.md)."""

    backend: Literal["local", "horovod", "torch_distributor"] = "local"
    """Backend that runs the ranks: `local` in the driver, or Horovod or Spark's TorchDistributor on the executors."""
    num_workers: int = Field(1, ge=1)
    """Number of ranks; must divide `num_shards`, and must be 1 with `local`."""
    as_ofs: AsOfs = AsOfs()
    """As-of dates of the training rows."""
    future_days: Annotated[list[Days], Field(min_length=1), AfterValidator(ascending)] | None = None
    """Prediction horizons in days, chosen from `windows_days`; defaults to the windows of at most 30 days, or to the
    shortest window if all are longer."""
    num_shards: int = Field(16, ge=1)
    """Number of virtual shards of the training rows, which is also the largest possible number of ranks."""
    batch_size: int = Field(512, ge=2)
    """Rows per step over all ranks, a multiple of `num_shards`; results do not depend on the number of ranks."""
    max_epochs: int = Field(8, ge=1)
    """Largest number of epochs; the learning rate decays to zero over them."""
    patience: int = Field(3, ge=1)
    """Epochs without a better validation loss after which training stops."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate; a linear warm-up over 5 % of all steps is followed by a cosine decay to 0."""
    weight_decay: float = Field(0.1, ge=0)
    """AdamW weight decay."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradient, which is clipped after averaging over ranks."""
    max_rows: int = Field(250_000, ge=1)
    """Approximate largest number of rows; above it, users are sampled by hash, with all of their dates, and features
    that are only trained on are built for these users alone."""
    held_out_share: float = Field(0.05, gt=0, lt=0.5)
    """Share of users held out for validation."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products; `auto` is bf16 on GPUs with support for it, else fp32. Weights and gradients are
    fp32."""
    threads: int = Field(1, ge=1)
    """Number of torch CPU threads per rank."""
    seed: int = Field(17, ge=0, lt=2**31)
    """Random seed for the split, the order of rows, the initial weights and the noise."""
    init_from: Name | None = None
    """Earlier space whose weights initialize the model where the inputs match. By default, training starts from
    principal components (`model.decoder_dim: 0`) or random weights."""
    max_restarts: int = Field(2, ge=0)
    """Number of automatic restarts after a rank has failed."""
    checkpoint_every: Duration = timedelta(minutes=2)
    """Time between checkpoints within an epoch; every epoch also ends with a checkpoint."""

    @property
    def recipe(self) -> dict[str, Any]:
        """All settings that affect the trained weights, without those of where and how the ranks run."""
        neutral = {"backend", "num_workers", "threads", "max_restarts", "checkpoint_every"}
        return self.model_dump(exclude=neutral)

    @model_validator(mode="after")
    def _check_ranks(self) -> "Training":
        faults = []
        if self.backend == "local" and self.num_workers != 1:
            faults.append("num_workers must be 1 with backend local. Set backend: horovod for more ranks")
        if self.num_shards % self.num_workers:
            faults.append(f"num_workers must divide num_shards ({self.num_shards}), so that all ranks take equal steps")
        if self.batch_size % self.num_shards:
            faults.append(f"batch_size must be a multiple of num_shards ({self.num_shards})")
        refuse(faults)
        return self
