"""The embedding, and baselines that need no trained model: the user features or groups of them.

Shapes: N rows, F numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from userrep.evaluation.representation import Context, Floats32
from userrep.evaluation.representations.reduced import earlier_rows
from userrep.features.layout import Block
from userrep.features.spec import counts_of
from userrep.inference.encoder import Encoder
from userrep.model.autoencoder import Autoencoder
from userrep.model.standard import standardized_code


@dataclass(frozen=True)
class Embedding:
    """The space's embedding, by the encoder that builds snapshots. Its training cost is in ``job_runs``."""

    name: str = "embedding"

    def fit(self, context: Context) -> None:
        """Load the encoder and warm it up, so that ``matrix`` is timed without loading."""
        context.encoder.embed(context.rows.features.slice(0, 1))

    def matrix(self, context: Context) -> Floats32:
        """Encode the rows."""
        return context.encoder.embed(context.rows.features)


@dataclass(frozen=True)
class Popularity:
    """No user information. Probes see only the items in item tasks, and a constant in all others."""

    name: str = "popularity"

    def fit(self, context: Context) -> None:
        """Do nothing."""

    def matrix(self, context: Context) -> Floats32:
        """Return one column of zeros."""
        return np.zeros((len(context.rows), 1), np.float32)


@dataclass(frozen=True)
class Blocks:
    """Some blocks of the inputs with their presence flags.

    Counts and days are log1p values, pooled vectors are unchanged.
    """

    name: str
    takes: Callable[[Block, Context], bool]

    def fit(self, context: Context) -> None:
        """Do nothing."""

    def matrix(self, context: Context) -> Floats32:
        """Select the columns. Raises ValueError if the space has no such block."""
        blocks = [block for block in context.layout.blocks if self.takes(block, context)]
        flags = [block.flag for block in blocks if block.flag is not None]
        columns = [k for block in blocks for k in range(block.start, block.stop)] + flags
        if not columns:
            raise ValueError(f"{self.name}: the space's inputs have no block of this kind")
        return np.ascontiguousarray(context.raw()[:, columns])


@dataclass(frozen=True)
class Raw:
    """All inputs of the encoder, scaled, including presence flags."""

    name: str = "raw"

    def fit(self, context: Context) -> None:
        """Do nothing."""

    def matrix(self, context: Context) -> Floats32:
        """Return the scaled inputs."""
        return context.scaled()


@dataclass
class Untrained:
    """The embedding of the same network with its initial weights instead of the trained ones.

    Scaler, propensities and everything else that is fitted outside the network stay. The difference between the
    embedding and this baseline is the benefit of training.
    """

    name: str = "untrained"
    _encoder: Encoder | None = None

    def fit(self, context: Context) -> None:
        """Initialize the weights and standardize the code on earlier rows. Cost: 20,000 rows on the driver."""
        manifest, tensors = context.artifact.manifest, context.artifact.tensors
        initial = Autoencoder(context.layout, manifest.model, manifest.targets, seed=context.seed).state_dict()
        weights = {name: tensor.numpy() for name, tensor in initial.items()}
        weights = standardized_code(weights, earlier_rows(context))
        replaced = {name: tensor for name, tensor in weights.items() if not name.startswith("propensity")}
        self._encoder = Encoder(replace(context.artifact, tensors=tensors | replaced))

    def matrix(self, context: Context) -> Floats32:
        """Encode the rows."""
        assert self._encoder is not None
        return self._encoder.embed(context.rows.features)


def is_count(block: Block, context: Context) -> bool:
    """Return whether a block is a count, a sum of weights, or a number of days."""
    del context
    return block.kind == "scalar"


def is_recent_count(block: Block, context: Context) -> bool:
    """Return whether a block is a count that is not computed over the whole history."""
    history_days = context.layout.spec.history_days
    return is_count(block, context) and not (history_days and block.name in counts_of(history_days))


def is_pooled(block: Block, context: Context) -> bool:
    """Return whether a block is a mean of item vectors."""
    del context
    return block.kind == "pooled"


def is_pooled_longest(block: Block, context: Context) -> bool:
    """Return whether a block is a mean of item vectors over the longest window."""
    spec = context.layout.spec
    return block.name in {pooled.column for pooled in spec.pooled if pooled.window_days == spec.longest}


def is_pick(block: Block, context: Context) -> bool:
    """Return whether a block is a mean of the item vectors of onboarding picks."""
    return block.name in {pooled.column for pooled in context.layout.spec.pooled if pooled.window_days is None}
