"""A non-negative factorization of the matrix of counts before ``plan.until``, into which each row's history is folded.

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


def _log_counts(counts: csr_array) -> csr_array:
    return csr_array((np.log1p(counts.data), counts.indices, counts.indptr), shape=counts.shape)


def _directions(counts: csr_array) -> csr_array:
    return csr_array(normalize(_log_counts(counts).astype(np.float32)))
