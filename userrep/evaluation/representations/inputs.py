"""The embedding, and baselines that need no other model: the user features, groups of them, principal components.

Shapes: B rows of a sample, N rows, F numbers, D components.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from sklearn.decomposition import PCA

from userrep.config import Storage
from userrep.evaluation.representation import Context, Fit, Matrix
from userrep.features.layout import VECTORS, Block, InputLayout
from userrep.features.spec import counts_of
from userrep.inference.encoder import Encoder
from userrep.model.artifact import Artifact
from userrep.model.autoencoder import drawn_weights
from userrep.model.frozen_folder import Tensors
from userrep.model.principal_start import principal_start, random_rotation
from userrep.model.standard import standardized_code
from userrep.model.weights import FITTED_OUTSIDE


def embedding(artifact_of: Callable[[Context], Artifact], storage: Storage = "float32") -> Fit:
    """Return the fit of an artifact's embedding, by the encoder that builds snapshots with this storage type."""

    def fit(context: Context) -> Matrix:
        encoder = Encoder(artifact_of(context), storage)
        encoder.embed(context.rows.features.slice(0, 1))  # so that vectors are timed without loading
        return lambda context: encoder.embed(context.rows.features)

    return fit


def trained(context: Context) -> Artifact:
    """Return the space's artifact, the one under test."""
    return context.artifact


def untrained(context: Context) -> Artifact:
    """Return the space's artifact with random weights instead of the trained ones."""
    manifest = context.artifact.manifest
    return _with_weights(context, drawn_weights(context.layout, manifest.model, manifest.targets, seed=context.seed))


def principal(context: Context) -> Artifact:
    """Return the space's artifact with the weights that a training starts from: see ``principal_start``.

    The difference to the embedding is the benefit of training.
    """
    manifest, x_BF = context.artifact.manifest, context.earlier_rows
    start = principal_start(context.layout, manifest.targets, manifest.model, x_BF, seed=context.seed)
    return _with_weights(context, start)


def _with_weights(context: Context, weights: Tensors) -> Artifact:
    """Replace the network's weights; scaler, tastes, propensities and all else fitted outside the network stay.

    Cost: 20,000 rows on the driver, to standardize the code.
    """
    network = {name: tensor for name, tensor in weights.items() if not name.startswith(FITTED_OUTSIDE)}
    standardized = standardized_code(network, context.earlier_rows)
    return replace(context.artifact, tensors=context.artifact.tensors | standardized)


def popularity(_: Context) -> Matrix:
    """No user information: one column of zeros. Probes see only the items in item tasks, and a constant in others."""
    return lambda context: np.zeros((len(context.rows), 1), np.float32)


def raw(_: Context) -> Matrix:
    """All inputs of the encoder, scaled, including presence flags."""
    return Context.scaled


def blocks(selected: Callable[[InputLayout], list[Block]]) -> Fit:
    """Return the fit of some blocks of the inputs with their presence flags.

    Counts and days are log1p values. Pooled vectors are unit vectors if the layout makes them so, otherwise unchanged.
    """

    def fit(context: Context) -> Matrix:
        chosen = selected(context.layout)
        flags = [block.flag for block in chosen if block.flag is not None]
        columns = [k for block in chosen for k in range(block.start, block.stop)] + flags
        return lambda context: np.ascontiguousarray(context.raw()[:, columns])

    return fit


def counts(layout: InputLayout) -> list[Block]:
    """Return the counts, sums of weights, and numbers of days."""
    return [block for block in layout.blocks if block.kind == "scalar"]


def recent_counts(layout: InputLayout) -> list[Block]:
    """Return the counts that are not computed over the whole history."""
    return [block for block in counts(layout) if block.name not in counts_of(layout.spec.history_days or 0)]


def pooled(layout: InputLayout) -> list[Block]:
    """Return the means of item vectors."""
    return [block for block in layout.blocks if block.kind in VECTORS]


def pooled_longest(layout: InputLayout) -> list[Block]:
    """Return the means of item vectors over the longest window."""
    return _pooled_over(layout, layout.spec.longest)


def picks(layout: InputLayout) -> list[Block]:
    """Return the means of the item vectors of onboarding picks."""
    return _pooled_over(layout, None)


def _pooled_over(layout: InputLayout, window_days: int | None) -> list[Block]:
    names = {vectors.column for vectors in layout.spec.pooled if vectors.window_days == window_days}
    return [block for block in layout.blocks if block.name in names]


def fit_pca(context: Context, num_components: int = 120) -> Matrix:
    """Fit the first principal components of the scaled inputs on a sample of rows up to ``plan.until``.

    There are at most as many as rows or inputs. Their coordinates are rotated at random: probes standardize each
    coordinate, which would give the last component the weight of the first. Cost: eigendecomposition of F x F.
    """
    x_BF = context.earlier_rows.astype(np.float64)
    model = PCA(min(num_components, *x_BF.shape), svd_solver="covariance_eigh").fit(x_BF)
    rotation_CC = random_rotation(model.n_components_, seed=context.seed)
    return lambda context: np.asarray(model.transform(context.scaled()) @ rotation_CC, np.float32)
