"""What an engineer has without any model: the user features themselves, or some of them. And the embedding.

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
    """The space's vector, by the encoder that makes snapshots. What its training took is in ``job_runs``."""

    name: str = "embedding"

    def fit(self, context: Context) -> None:
        """Load the encoder, and whatever its first call loads: ``matrix`` is to cost what the rows cost."""
        context.encoder.embed(context.rows.features.slice(0, 1))

    def matrix(self, context: Context) -> Floats32:
        """Encode the rows."""
        return context.encoder.embed(context.rows.features)


@dataclass(frozen=True)
class Nothing:
    """No user at all. Probes are left with the item's side in tasks of items, and with constants in all others."""

    name: str = "popularity"

    def fit(self, context: Context) -> None:
        """Need nothing."""

    def matrix(self, context: Context) -> Floats32:
        """Return one column of zeros."""
        return np.zeros((len(context.rows), 1), np.float32)


@dataclass(frozen=True)
class Blocks:
    """Some blocks of the inputs with their presence flags: counts and days as log1p, pooled vectors as they are."""

    name: str
    takes: Callable[[Block, Context], bool]

    def fit(self, context: Context) -> None:
        """Need nothing."""

    def matrix(self, context: Context) -> Floats32:
        """Pick the columns. Raises ValueError if the space has no such block."""
        taken = [block for block in context.layout.blocks if self.takes(block, context)]
        flags = [block.flag for block in taken if block.flag is not None]
        columns = [k for block in taken for k in range(block.start, block.stop)] + flags
        if not columns:
            raise ValueError(f"{self.name}: the space's inputs have no block of this kind")
        return np.ascontiguousarray(context.raw()[:, columns])


@dataclass(frozen=True)
class Raw:
    """All inputs of the encoder, scaled as it takes them, flags and all."""

    name: str = "raw"

    def fit(self, context: Context) -> None:
        """Need nothing."""

    def matrix(self, context: Context) -> Floats32:
        """Return the scaled inputs."""
        return context.scaled()


@dataclass
class Untrained:
    """The embedding as it would be without its training: the first weights in place of the learned ones.

    Scaler, propensities and all that is fitted without the network stay. What the embedding gains over this is what
    training is worth.
    """

    name: str = "untrained"
    _encoder: Encoder | None = None

    def fit(self, context: Context) -> None:
        """Draw the weights, and standardize their code on a sample of earlier rows. Cost: 20,000 rows on the driver."""
        manifest, tensors = context.artifact.manifest, context.artifact.tensors
        drawn = Autoencoder(context.layout, manifest.model, manifest.targets, seed=context.seed).state_dict()
        weights = {name: tensor.numpy() for name, tensor in drawn.items()}
        weights = standardized_code(weights, earlier_rows(context))
        learned = {name: tensor for name, tensor in weights.items() if not name.startswith("propensity")}
        self._encoder = Encoder(replace(context.artifact, tensors=tensors | learned))

    def matrix(self, context: Context) -> Floats32:
        """Encode the rows."""
        assert self._encoder is not None
        return self._encoder.embed(context.rows.features)


def is_count(block: Block, context: Context) -> bool:
    """Say whether a block is a count, a sum of weights, or days since something."""
    del context
    return block.kind == "scalar"


def is_recent_count(block: Block, context: Context) -> bool:
    """Say the same, the history's counts left out."""
    history_days = context.layout.spec.history_days
    return is_count(block, context) and not (history_days and block.name in counts_of(history_days))


def is_pooled(block: Block, context: Context) -> bool:
    """Say whether a block is a mean of item vectors."""
    del context
    return block.kind == "pooled"


def is_pooled_longest(block: Block, context: Context) -> bool:
    """Say whether a block is a mean of item vectors over the longest window."""
    spec = context.layout.spec
    return block.name in {pooled.column for pooled in spec.pooled if pooled.window_days == spec.longest}


def is_pick(block: Block, context: Context) -> bool:
    """Say whether a block is a mean of the vectors of what was picked at onboarding."""
    return block.name in {pooled.column for pooled in context.layout.spec.pooled if pooled.window_days is None}
