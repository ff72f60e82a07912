"""The embedding, and baselines that need no other model: the user features, groups of them, principal components.

Shapes: B rows of a sample, N rows, F numbers, D components.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.decomposition import PCA

from userrep.config import Storage
from userrep.evaluation.representation import Context, Floats32
from userrep.features.layout import Block, InputLayout
from userrep.features.spec import counts_of
from userrep.inference.encoder import Encoder
from userrep.model.artifact import Artifact
from userrep.model.autoencoder import Autoencoder
from userrep.model.standard import standardized_code


@dataclass
class Embedding:
    """The embedding of an artifact, by the encoder that builds snapshots with this storage type."""

    name: str
    artifact: Callable[[Context], Artifact]
    storage: Storage = "float32"
    _encoder: Encoder = field(init=False)

    def fit(self, context: Context) -> None:
        """Load the encoder and warm it up, so that ``matrix`` is timed without loading."""
        self._encoder = Encoder(self.artifact(context), self.storage)
        self._encoder.embed(context.rows.features.slice(0, 1))

    def matrix(self, context: Context) -> Floats32:
        """Encode the rows."""
        return self._encoder.embed(context.rows.features)


def trained(context: Context) -> Artifact:
    """Return the space's artifact, the one under test."""
    return context.artifact


def untrained(context: Context) -> Artifact:
    """Return the space's artifact with the network's initial weights instead of the trained ones.

    Scaler, propensities and everything else that is fitted outside the network stay. The difference to the embedding is
    the benefit of training. Cost: 20,000 rows on the driver, to standardize the code.
    """
    manifest, tensors = context.artifact.manifest, context.artifact.tensors
    initial = Autoencoder(context.layout, manifest.model, manifest.targets, seed=context.seed).state_dict()
    weights = {name: tensor.numpy() for name, tensor in initial.items() if not name.startswith("propensity")}
    return replace(context.artifact, tensors=tensors | standardized_code(weights, context.earlier_rows))


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
    selected: Callable[[InputLayout], list[Block]]

    def fit(self, context: Context) -> None:
        """Do nothing."""

    def matrix(self, context: Context) -> Floats32:
        """Select the columns. Raises ValueError if the space has no such block."""
        blocks = self.selected(context.layout)
        flags = [block.flag for block in blocks if block.flag is not None]
        columns = [k for block in blocks for k in range(block.start, block.stop)] + flags
        if not columns:
            raise ValueError(f"{self.name}: the space's inputs have no block of this kind")
        return np.ascontiguousarray(context.raw()[:, columns])


def counts(layout: InputLayout) -> list[Block]:
    """Return the counts, sums of weights, and numbers of days."""
    return [block for block in layout.blocks if block.kind == "scalar"]


def recent_counts(layout: InputLayout) -> list[Block]:
    """Return the counts that are not computed over the whole history."""
    return [block for block in counts(layout) if block.name not in counts_of(layout.spec.history_days or 0)]


def pooled(layout: InputLayout) -> list[Block]:
    """Return the means of item vectors."""
    return [block for block in layout.blocks if block.kind == "pooled"]


def pooled_longest(layout: InputLayout) -> list[Block]:
    """Return the means of item vectors over the longest window."""
    return _pooled_over(layout, layout.spec.longest)


def picks(layout: InputLayout) -> list[Block]:
    """Return the means of the item vectors of onboarding picks."""
    return _pooled_over(layout, None)


def _pooled_over(layout: InputLayout, window_days: int | None) -> list[Block]:
    names = {vectors.column for vectors in layout.spec.pooled if vectors.window_days == window_days}
    return [block for block in layout.blocks if block.name in names]


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
class Pca:
    """The first principal components of the scaled inputs, fitted on a sample of rows up to ``plan.until``."""

    name: str = "pca"
    num_components: int = 120
    _model: PCA = field(init=False)

    def fit(self, context: Context) -> None:
        """Fit the axes, at most as many as rows or inputs, by eigendecomposition of F x F."""
        x_BF = context.earlier_rows.astype(np.float64)
        self._model = PCA(min(self.num_components, *x_BF.shape), svd_solver="covariance_eigh").fit(x_BF)

    def matrix(self, context: Context) -> Floats32:
        """Project the rows onto the axes."""
        return np.asarray(self._model.transform(context.scaled()), np.float32)
