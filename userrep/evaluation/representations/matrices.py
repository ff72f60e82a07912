"""Two factorisations of the matrix of counts before ``plan.until``, into which each row's history is folded.

Shapes: U users, V items, N rows, D factors.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array
from sklearn.decomposition import NMF
from sklearn.preprocessing import normalize

from userrep.evaluation.representation import Context, Floats32
from userrep.evaluation.representations.als import flagged
from userrep.evaluation.representations.least_squares import Floats, factors_of_rows

_FACTORS = 80
_NMF_ROUNDS = 60
_PMF_ROUNDS, _PMF_RIDGE = 10, 0.02


@dataclass
class Nmf:
    """Non-negative factors (Lee and Seung 1999), by scikit-learn, of the logarithms of 1 + counts, rows of length 1.

    Rows are brought to length 1 so that what a user buys counts, and not how much; square roots of the factors are
    given, since they are skewed. Then 1, or zeros without a history. Cost: 60 sweeps of coordinate
    descent over the sample, each some U x D^2 multiplications, and as many over the rows.
    """

    name: str = "nmf"
    _model: NMF | None = field(default=None, init=False)

    def fit(self, context: Context) -> None:
        """Factorise ``context.sample``."""
        self.fit_counts(context.sample.num_events_UV, seed=context.seed)

    def fit_counts(self, counts_UV: csr_array, *, seed: int) -> None:
        """Factorise these counts."""
        dim = min(_FACTORS, *counts_UV.shape)
        # No tolerance: when to stop is decided by all rows together, and a row must not depend on those beside it.
        self._model = NMF(dim, init="nndsvd", max_iter=_NMF_ROUNDS, tol=0, random_state=seed)
        self._model.fit(_directions(counts_UV))

    def matrix(self, context: Context) -> Floats32:
        """Fold each row's history in."""
        return self.folded(context.history_of_sample())

    def folded(self, counts_NV: csr_array) -> Floats32:
        """Solve for the rows' factors with the items' held fast."""
        assert self._model is not None
        return flagged(np.sqrt(self._model.transform(_directions(counts_NV))).astype(np.float32))


@dataclass
class Pmf:
    """Probabilistic matrix factorisation (Mnih and Salakhutdinov 2007): Gaussian, of the logarithms of 1 + counts.

    The maximum of the posterior, by alternating ridge regressions. Items that a user has not met are zeros, of which as
    many as it has met would be drawn: instead of a draw, all of them count with that chance, which is what draws come
    to on average. Then 1, or zeros without a history. Cost: 10 times U + V systems of D x D.
    """

    name: str = "pmf"
    _item_VD: Floats = field(default_factory=lambda: np.zeros((0, 0)), init=False)

    def fit(self, context: Context) -> None:
        """Factorise ``context.sample``."""
        self.fit_counts(context.sample.num_events_UV, seed=context.seed)

    def fit_counts(self, counts_UV: csr_array, *, seed: int) -> None:
        """Factorise these counts."""
        target_UV = _log_counts(counts_UV)
        target_VU, zeros_U = csr_array(target_UV.T), self._zeros(target_UV)
        ones_V = np.ones(target_UV.shape[1])
        self._item_VD = np.random.default_rng(seed).normal(0, _FACTORS**-0.5, (target_UV.shape[1], _FACTORS))
        for _ in range(_PMF_ROUNDS):
            user_UD = self._users(target_UV)
            gram_DD = (user_UD * zeros_U[:, None]).T @ user_UD
            self._item_VD = factors_of_rows(
                target_VU, np.ones(target_VU.nnz), target_VU.data, user_UD,
                zeros_N=ones_V, gram_DD=gram_DD, ridge=_PMF_RIDGE,
            )  # fmt: skip

    def matrix(self, context: Context) -> Floats32:
        """Fold each row's history in."""
        return self.folded(context.history_of_sample())

    def folded(self, counts_NV: csr_array) -> Floats32:
        """Solve for the rows' factors with the items' held fast."""
        return flagged(self._users(_log_counts(counts_NV)).astype(np.float32))

    def _users(self, target_NV: csr_array) -> Floats:
        return factors_of_rows(
            target_NV, np.ones(target_NV.nnz), target_NV.data, self._item_VD,
            zeros_N=self._zeros(target_NV), gram_DD=self._item_VD.T @ self._item_VD, ridge=_PMF_RIDGE,
        )  # fmt: skip

    @staticmethod
    def _zeros(target_NV: csr_array) -> Floats:
        """Return the chance of each of a row's zeros to be drawn."""
        chance_N: Floats = np.diff(target_NV.indptr) / target_NV.shape[1]
        return chance_N


def _log_counts(counts: csr_array) -> csr_array:
    return csr_array((np.log1p(counts.data), counts.indices, counts.indptr), shape=counts.shape)


def _directions(counts: csr_array) -> csr_array:
    return csr_array(normalize(_log_counts(counts).astype(np.float32)))
