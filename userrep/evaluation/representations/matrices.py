"""Non-negative factorization of the count matrix before ``plan.until``; rows are folded in by their history.

Shapes: U users, V items, N rows, D factors.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array
from sklearn.decomposition import NMF
from sklearn.preprocessing import normalize

from userrep.evaluation.representation import Context, Floats32
from userrep.evaluation.representations.als import flagged

_FACTORS = 80
_NMF_ROUNDS = 60


@dataclass
class Nmf:
    """Non-negative factors (Lee and Seung 1999) by scikit-learn.

    Input: log(1 + count), rows scaled to length 1, so that the choice of items matters and not their number. Output:
    square roots of the factors, because factors are skewed, then a 1; zeros without a history. Cost: 60 sweeps of
    coordinate descent over the sample, each about U x D^2 multiplications, and as many over the rows.
    """

    name: str = "nmf"
    _model: NMF | None = field(default=None, init=False)

    def fit(self, context: Context) -> None:
        """Factorize ``context.sample``."""
        self.fit_counts(context.sample.num_events_UV, seed=context.seed)

    def fit_counts(self, counts_UV: csr_array, *, seed: int) -> None:
        """Factorize these counts."""
        dim = min(_FACTORS, *counts_UV.shape)
        # tol=0: the stopping rule looks at all rows, and a row's result must not depend on the other rows.
        self._model = NMF(dim, init="nndsvd", max_iter=_NMF_ROUNDS, tol=0, random_state=seed)
        self._model.fit(_directions(counts_UV))

    def matrix(self, context: Context) -> Floats32:
        """Fold each row's history in."""
        return self.folded(context.history_of_sample())

    def folded(self, counts_NV: csr_array) -> Floats32:
        """Solve for the rows' factors with the item factors fixed."""
        assert self._model is not None
        return flagged(np.sqrt(self._model.transform(_directions(counts_NV))).astype(np.float32))


def _log_counts(counts: csr_array) -> csr_array:
    return csr_array((np.log1p(counts.data), counts.indices, counts.indptr), shape=counts.shape)


def _directions(counts: csr_array) -> csr_array:
    return csr_array(normalize(_log_counts(counts).astype(np.float32)))
