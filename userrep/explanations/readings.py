"""Linear readings between vectors, inputs and scores: ridge regressions, judged on held-out users.

Shapes: N users, D dimensions of a vector, F inputs of the encoder, K targets.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from userrep.features.layout import InputLayout

if TYPE_CHECKING:
    from sklearn.linear_model import RidgeCV

_PENALTIES = 10.0 ** np.arange(-6, 2)  # per fitted user, for inputs with a variance of about 1
_LEAST_USERS = 20  # fitted, and held out

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Reading:
    """How well a block of inputs can be read linearly from the vector.

    ``r2``: share of the block's variance that the reading explains for held-out users, over all its ``width`` numbers;
    0 is no better than their mean, and below 0 worse. None if too few users have the block, or if it does not vary.
    ``num_users``: sampled users who have the block; only these are read. The block ``flags`` has the marks of which
    blocks a user has.
    """

    block: str
    kind: str
    width: int
    num_users: int
    r2: float | None


def read_blocks(layout: InputLayout, x_NF: Floats32, z_ND: Floats32, is_held_out_N: Flags) -> list[Reading]:
    """Fit a ridge regression from the vector to each block of scaled inputs.

    Cost: one singular value decomposition of N x D per block.
    """
    readings = []
    for block in layout.blocks:
        has_N = x_NF[:, block.flag] > 0 if block.flag is not None else np.ones(len(x_NF), bool)
        y_NK = x_NF[:, block.inputs]
        r2 = _held_out_r2(z_ND[has_N], y_NK[has_N], is_held_out_N[has_N])
        readings.append(Reading(block.name, block.kind, block.width, int(has_N.sum()), r2))
    return readings


def _held_out_r2(x_NF: Floats32, y_NK: Floats32, is_held_out_N: Flags) -> float | None:
    fitted, test_K = ~is_held_out_N, y_NK[is_held_out_N].astype(np.float64)
    if min(fitted.sum(), is_held_out_N.sum()) < _LEAST_USERS:
        return None
    total = np.square(test_K - test_K.mean(axis=0)).sum()
    if total <= 1e-9 * len(test_K):
        return None
    error_NK = test_K - _ridge(x_NF[fitted], y_NK[fitted]).predict(x_NF[is_held_out_N]).reshape(test_K.shape)
    return float(1 - np.square(error_NK).sum() / total)


def attribute(
    layout: InputLayout, x_NF: Floats32, score_N: Floats, is_held_out_N: Flags
) -> tuple[Floats, dict[str, float]]:
    """Read a score linearly from the scaled inputs, and divide its variance among their blocks.

    Returns the score's weights on the scaled inputs, and the share of each block.

    The reading is ridge regression: score = sum over blocks of (inputs of the block x their weights) + rest. The share
    of a block is cov(its part, score) / var(score), for held-out users; the rest to 1 is unexplained. Shorrocks
    (Econometrica 50, 1982) derives this as the only rule that treats all parts alike and does not depend on how finely
    they are divided; Pratt (1987) derives the same measure for single inputs. A share is negative if a block corrects
    another one that it is correlated with. A block's presence mark belongs to the block.

    Cost: one singular value decomposition of N x F.
    """
    model = _ridge(x_NF[~is_held_out_N], score_N[~is_held_out_N])
    weight_F = np.asarray(model.coef_, np.float64).ravel()
    x_NF, score_N = x_NF[is_held_out_N], score_N[is_held_out_N]
    score_N = score_N - score_N.mean()
    variance = float(score_N @ score_N) or 1.0
    covariance_F = (score_N @ (x_NF - x_NF.mean(axis=0))) * weight_F / variance
    shares = {}
    for block in layout.blocks[:-1]:
        flags = [] if block.flag is None else [block.flag]
        shares[block.name] = float(covariance_F[[*range(block.start, block.stop), *flags]].sum())
    return weight_F, shares


def _ridge(x_NF: Floats32, y_NK: NDArray[np.floating]) -> "RidgeCV":
    """Fit a ridge regression, whose penalty generalized cross-validation chooses for all targets together."""
    from sklearn.linear_model import RidgeCV  # takes 2 s, so a report without a sample does not import it

    return RidgeCV(alphas=_PENALTIES * len(x_NF)).fit(x_NF.astype(np.float64), y_NK)
