"""The network and its training."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from userrep.config.values import Day, Days, Duration, Name, Section, ascending, refuse

_AUTOENCODER = {
    "hidden_dim": 512, "decoder_dim": 256, "noise": 0.1, "feature_dropout": 0.2, "block_dropout": 0.2,
    "newcomer_share": 0.1, "next_items_weight": 0.0, "next_days_weight": 0.0,
}  # fmt: skip

TRAINING_OF_AUTOENCODER = {"max_epochs": 16, "learning_rate": 1e-3, "weight_decay": 0.01}


class Model(Section):
    """The model, and what is done to its inputs in training (docs/training.md).

    The preset `autoencoder` has `hidden_dim` 512, `decoder_dim` 256, `noise` 0.1, `feature_dropout` and `block_dropout`
    0.2, `newcomer_share` 0.1, and both weights of the next days 0, where nothing else is set; and of `training`
    `max_epochs` 16, `learning_rate` 0.001 and `weight_decay` 0.01.
    """

    preset: Literal["next_days", "autoencoder"] = "next_days"
    """`next_days`: a linear code that predicts what users do next; `autoencoder`: the paper's model."""
    latent_dim: int = Field(120, ge=2, le=4096)
    """Dimensions of an embedding."""
    hidden_dim: int = Field(0, ge=0)
    """Units of the encoder's hidden layer; 0: the encoder is linear."""
    decoder_dim: int = Field(0, ge=0)
    """Units of the hidden layer of the decoder that gives back the inputs; 0: it is linear."""
    reconstruction_weight: float = Field(1.0, gt=0)
    """Weight of giving back the inputs, all blocks together."""
    next_items_weight: float = Field(1.0, ge=0)
    """Weight of predicting the items of the next days."""
    next_days_weight: float = Field(0.3, ge=0)
    """Weight of predicting how much users do in the next days: their counts together, and whether they return."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share of the hidden layer's units that are dropped."""
    noise: float = Field(0.0, ge=0)
    """Standard deviation of Gaussian noise on inputs, which have 1."""
    feature_dropout: float = Field(0.5, ge=0, lt=1)
    """Share of single inputs that are dropped; the others are scaled up."""
    block_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of whole blocks that are dropped."""
    newcomer_share: float = Field(0.0, ge=0, lt=1)
    """Share of rows that are shown as if the user had no events yet."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        """Fill in the preset's values where nothing else is set."""
        if isinstance(values, dict) and values.get("preset") == "autoencoder":
            return _AUTOENCODER | values
        return values

    @property
    def looks_ahead(self) -> bool:
        """Return whether the model predicts anything about the next days."""
        return bool(self.next_items_weight or self.next_days_weight)


class AsOfs(Section):
    """As-of dates that training sees.

    Neither inputs, nor targets, nor item vectors of a training row see an event at or after ``until``.
    """

    until: Day | None = None
    """Training sees nothing from this date on; without it, 28 days before the run's as-of date."""
    every_days: Days = 7
    """Days from one as-of date of training rows to the next, back from the last whose future ends by `until`."""
    max_dates: int = Field(26, ge=1)
    """As many dates at most; fewer where the log begins later."""


class Training(Section):
    """How a space is trained (docs/training.md)."""

    backend: Literal["local", "horovod", "torch_distributor"] = "local"
    """Where ranks run: in the driver, or on executors by Horovod or by Spark's TorchDistributor."""
    num_workers: int = Field(1, ge=1)
    """Ranks; must divide `num_shards`, and is 1 with `local`."""
    as_ofs: AsOfs = AsOfs()
    """The dates of training rows."""
    future_days: Annotated[list[Days], Field(min_length=1), AfterValidator(ascending)] | None = None
    """How far the model looks ahead, some of `windows_days`; without it, those of at most 30 days, else the
    shortest."""
    num_shards: int = Field(16, ge=1)
    """Virtual shards of the rows: the most ranks that can ever train on them."""
    batch_size: int = Field(512, ge=2)
    """Rows of a step over all ranks, a multiple of `num_shards`; the result does not depend on the number of ranks."""
    max_epochs: int = Field(8, ge=1)
    """The learning rate falls to zero over this many epochs."""
    patience: int = Field(3, ge=1)
    """Epochs without a better validation loss before training ends."""
    learning_rate: float = Field(3e-3, gt=0)
    """The highest of the schedule: up over 5 % of all steps, then a half cosine down to 0."""
    weight_decay: float = Field(0.1, ge=0)
    """Of AdamW."""
    clip_norm: float = Field(1.0, gt=0)
    """The longest gradient, after averaging over ranks."""
    max_rows: int = Field(100_000_000, ge=1)
    """How many rows, about, at most: those of users with the lowest hashes, at all dates."""
    held_out_share: float = Field(0.05, gt=0, lt=0.5)
    """Of the users, for validation."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of products; `auto` is bf16 on a GPU that has it, else fp32. Weights and gradients are fp32."""
    threads: int = Field(1, ge=1)
    """Cores that torch uses in each rank."""
    seed: int = 17
    """Of the split, the order of rows, the first weights and the noise."""
    init_from: Name | None = None
    """An earlier space, whose weights the training begins with as far as they fit."""
    max_restarts: int = Field(2, ge=0)
    """How often a training goes on by itself after a rank has failed."""
    checkpoint_every: Duration = timedelta(minutes=2)
    """Time between checkpoints within an epoch; there is one at each epoch's end besides."""

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides what comes out, whoever trains it and wherever."""
        neutral = {"backend", "num_workers", "threads", "max_restarts", "checkpoint_every"}
        return self.model_dump(exclude=neutral)

    @model_validator(mode="after")
    def _ranks_deal(self) -> "Training":
        faults = []
        if self.backend == "local" and self.num_workers != 1:
            faults.append("num_workers must be 1 with backend local; set backend: horovod for more")
        if self.num_shards % self.num_workers:
            faults.append(f"num_workers must divide num_shards ({self.num_shards}), so that all ranks step together")
        if self.batch_size % self.num_shards:
            faults.append(f"batch_size must be a multiple of num_shards ({self.num_shards})")
        refuse(faults)
        return self
