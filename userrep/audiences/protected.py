"""Removal of protected attributes from vectors, as far as a linear predictor can read them.

A linear predictor can do no better than a constant exactly if the vectors and the attribute's indicators have zero
covariance. LEACE (Belrose et al., NeurIPS 2023) projects whitened vectors onto the null space of that covariance, which
changes the vectors least. INLP (Ravfogel et al., ACL 2020) approaches it by fitting and projecting repeatedly.
Predictors that are not linear may still read the attribute.

Shapes: N users, D dimensions, W whitened dimensions, R removed dimensions, K values of an attribute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from userrep.errors import UsageError
from userrep.sources.categories import as_categories

MIN_USERS = 200  # with a known value
_MIN_OF_VALUE = 40  # users of a value; rarer values count as one
_MIN_TESTED = 10  # users of a value that a probe is tested on
_PROBE_C = 1.0  # inverse strength of the penalty
_SMALLEST = 1e-6  # variance or singular value that counts, relative to the largest
_SEED = 7
_NOTHING = 1e-5  # share of the variance, below which only rounding is left

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Guard:
    """A projection of vectors that removes protected attributes.

    ``read_DR`` reads the removed dimensions from a vector, ``write_DR`` turns them back into a vector. ``probes``: for
    each attribute, how well a linear model reads it from the vectors of users that it was not fitted on, as entries of
    a manifest. The AUC is the mean over the values that are not rare, each against the rest; 0.5 is chance.
    """

    read_DR: Floats
    write_DR: Floats
    probes: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def none(cls, num_dims: int) -> "Guard":
        """Return a projection that removes nothing."""
        return cls(np.zeros((num_dims, 0)), np.zeros((num_dims, 0)))

    @classmethod
    def fit(cls, x_ND: Floats, attributes: Sequence["_Attribute"], rows: Ints) -> "Guard":
        """Fit the projection on some users. Their covariance with all indicators is zero afterwards."""
        variance_D, axes_DD = np.linalg.eigh(np.cov(x_ND[rows], rowvar=False))
        used = variance_D > _SMALLEST * variance_D[-1]
        axes_DW, spread_W = axes_DD[:, used], np.sqrt(variance_D[used])
        spans = np.hstack([each.covariance(x_ND, rows) for each in attributes])
        basis_WR, size_R, _ = np.linalg.svd((axes_DW / spread_W).T @ spans, full_matrices=False)
        basis_WR = basis_WR[:, size_R > _SMALLEST * size_R[0]]
        return cls((axes_DW / spread_W) @ basis_WR, (axes_DW * spread_W) @ basis_WR)

    def project(self, x_ND: Floats) -> Floats:
        """Return the vectors without the removed dimensions."""
        return x_ND - (x_ND @ self.read_DR) @ self.write_DR.T if self.read_DR.size else x_ND

    def facts(self) -> dict[str, Any]:
        """Return the entries of a manifest."""
        return {"num_removed_dims": self.read_DR.shape[1], "probes": list(self.probes)}


def guard_of(x_ND: Floats, values: Mapping[str, pa.Array]) -> Guard:
    """Fit the projection on sampled users, and probe it.

    ``values``: of each attribute, the value of each user, as text or float64, null if unknown. The probes are of a
    projection that is fitted on half of the users; they are fitted and tested on the others, so they also show what a
    projection misses. The returned projection is fitted on all users.

    Raises
    ------
    UsageError
        If too few users of the sample have a value, or nothing would be left of the vectors.
    """
    attributes = [_Attribute.of(name, column) for name, column in values.items()]
    if faults := [fault for attribute in attributes if (fault := attribute.fault())]:
        raise UsageError(faults)
    shuffled = np.random.default_rng(_SEED).permutation(len(x_ND))
    guard = Guard.fit(x_ND, attributes, shuffled)
    if guard.project(x_ND).var(axis=0).sum() <= _NOTHING * x_ND.var(axis=0).sum():
        raise UsageError(
            f"users.protected: {', '.join(values)} span all {x_ND.shape[1]} dimensions of the vectors, so that nothing "
            "is left to score. Remove one of them."
        )
    fitted, probed = np.array_split(shuffled, 2)
    after_ND = Guard.fit(x_ND, attributes, fitted).project(x_ND)
    return replace(guard, probes=[each.probe(x_ND, after_ND, probed) for each in attributes])


@dataclass(frozen=True)
class _Attribute:
    """An attribute of N users: indicators of its values, zero in all columns if unknown, and the number if it is one.

    ``code_N``: index of the value, -1 if unknown; rare values share one index.
    """

    name: str
    code_N: Ints
    number_N: Floats | None

    @classmethod
    def of(cls, name: str, values: pa.Array) -> "_Attribute":
        number_N = values.to_numpy(zero_copy_only=False) if pa.types.is_floating(values.type) else None
        coded = as_categories(values).dictionary_encode()
        code_N = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        num_K = np.bincount(code_N[code_N >= 0], minlength=len(coded.dictionary))
        rare = np.flatnonzero(num_K < _MIN_OF_VALUE)
        if len(rare):
            code_N[np.isin(code_N, rare)] = rare[0]
        return cls(name, code_N, number_N)

    def fault(self) -> str | None:
        known = self.code_N[self.code_N >= 0]
        num_K = np.bincount(known)
        if len(known) >= MIN_USERS and (num_K >= _MIN_OF_VALUE).sum() > 1:
            return None
        return (
            f"users.protected: {len(known):,} sampled users of the snapshot have a value of {self.name}; removing it "
            f"needs {MIN_USERS}, and {_MIN_OF_VALUE} of each of two values. Complete users.path, or remove it."
        )

    def covariance(self, x_ND: Floats, rows: Ints) -> Floats:
        """Return the covariance of the inputs and the attribute's indicators over those rows that have a value."""
        rows = rows[self.code_N[rows] >= 0]
        z_NK = (self.code_N[rows, None] == np.unique(self.code_N[rows])).astype(np.float64)
        if self.number_N is not None:
            z_NK = np.column_stack([z_NK, self.number_N[rows]])
        z_NK = (z_NK - z_NK.mean(axis=0)) / np.maximum(z_NK.std(axis=0), 1e-12)
        covariance_DK: Floats = x_ND[rows].T @ z_NK / len(rows)
        return covariance_DK

    def probe(self, before_ND: Floats, after_ND: Floats, rows: Ints) -> dict[str, Any]:
        """Fit probes on half of those rows that have a value, and test them on the others."""
        known = rows[self.code_N[rows] >= 0]
        auc_before, auc_after = (_auc(x_ND[known], self.code_N[known]) for x_ND in (before_ND, after_ND))
        num_users = int((self.code_N >= 0).sum())
        return {"attribute": self.name, "num_users": num_users, "auc_before": auc_before, "auc_after": auc_after}


def _auc(x_ND: Floats, code_N: Ints) -> float:
    half = len(code_N) // 2
    model = LogisticRegression(C=_PROBE_C, max_iter=500).fit(x_ND[:half], code_N[:half])
    scores = model.decision_function(x_ND[half:])
    scores_NK = np.column_stack([-scores, scores]) if scores.ndim == 1 else scores
    is_value_NK = code_N[half:, None] == model.classes_
    num_K = is_value_NK.sum(axis=0)
    tested = np.flatnonzero((num_K >= _MIN_TESTED) & (num_K < len(is_value_NK)))
    return round(float(np.mean([roc_auc_score(is_value_NK[:, k], scores_NK[:, k]) for k in tested])), 4)
