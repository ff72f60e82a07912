"""Removal of protected attributes from vectors, as far as a linear predictor can read them.

A linear predictor can do no better than a constant exactly if the vectors and the attribute's indicators have zero
covariance (Belrose et al., LEACE, NeurIPS 2023). So one orthogonal projection onto the null space of that covariance
suffices (Shao et al., SAL, EACL 2023). INLP (Ravfogel et al., ACL 2020) approaches it by fitting and projecting
repeatedly. Predictors that are not linear may still read the attribute.

Shapes: N users, D dimensions, R removed dimensions, K values of an attribute.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
_SMALLEST = 1e-6  # singular value that counts, relative to the largest
_SEED = 7

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """How well a linear model reads an attribute from the vectors of users that it was not fitted on.

    The AUC is the mean over the values that are not rare, each against the rest; 0.5 is chance.
    """

    attribute: str
    num_users: int
    auc_before: float
    auc_after: float


@dataclass(frozen=True)
class Guard:
    """A projection of vectors that removes protected attributes, with a probe of each attribute."""

    basis_DR: Floats
    probes: tuple[Probe, ...] = ()

    def project(self, x_ND: Floats) -> Floats:
        """Return the vectors without their component along the removed dimensions."""
        return x_ND - (x_ND @ self.basis_DR) @ self.basis_DR.T if self.basis_DR.size else x_ND

    def facts(self) -> dict[str, Any]:
        """Return the entries of a manifest."""
        return {"num_removed_dims": self.basis_DR.shape[1], "probes": [asdict(probe) for probe in self.probes]}


def guard_of(x_ND: Floats, values: Mapping[str, pa.Array]) -> Guard:
    """Fit the projection on sampled users, and probe it.

    ``values``: of each attribute, the value of each user, as text or float64, null if unknown. The projection is fitted
    on half of the users. Probes are fitted and tested on the others, so they also show what the projection misses.

    Raises
    ------
    UsageError
        If too few users of the sample have a value, or nothing would be left of the vectors.
    """
    attributes = [_Attribute.of(name, column) for name, column in values.items()]
    if faults := [fault for attribute in attributes if (fault := attribute.fault())]:
        raise UsageError(faults)
    is_fitted_N = np.random.default_rng(_SEED).permutation(len(x_ND)) % 2 == 0
    spans = [np.zeros((x_ND.shape[1], 0)), *(each.covariance(x_ND, is_fitted_N) for each in attributes)]
    basis_DR, size_R, _ = np.linalg.svd(np.hstack(spans), full_matrices=False)
    guard = Guard(basis_DR[:, size_R > _SMALLEST * size_R.max(initial=0)])
    if guard.basis_DR.shape[1] == x_ND.shape[1]:
        raise UsageError(
            f"users.protected: {', '.join(values)} span all {x_ND.shape[1]} dimensions of the vectors, so that nothing "
            "is left to score. Remove one of them."
        )
    after_ND = guard.project(x_ND)
    probes = [each.probe(x_ND[~is_fitted_N], after_ND[~is_fitted_N], ~is_fitted_N) for each in attributes]
    return Guard(guard.basis_DR, tuple(probes))


@dataclass(frozen=True)
class _Attribute:
    """An attribute of N users: indicators of its values, zero in all columns if unknown, and the number if it is one.

    ``code_N``: index of the value, -1 if unknown; rare values share one index.
    """

    name: str
    code_N: NDArray[np.int64]
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

    def covariance(self, x_ND: Floats, is_fitted_N: NDArray[np.bool_]) -> Floats:
        """Return the covariance of the inputs and the attribute's indicators over the fitted users with a value."""
        rows = np.flatnonzero(is_fitted_N & (self.code_N >= 0))
        z_NK = (self.code_N[rows, None] == np.unique(self.code_N[rows])).astype(np.float64)
        if self.number_N is not None:
            z_NK = np.column_stack([z_NK, self.number_N[rows]])
        z_NK = (z_NK - z_NK.mean(axis=0)) / np.maximum(z_NK.std(axis=0), 1e-12)
        covariance_DK: Floats = x_ND[rows].T @ z_NK / len(rows)
        return covariance_DK

    def probe(self, before_ND: Floats, after_ND: Floats, is_probed_N: NDArray[np.bool_]) -> Probe:
        """Fit probes on half of the probed users with a value, and test them on the others."""
        code_N = self.code_N[is_probed_N]
        known = np.flatnonzero(code_N >= 0)
        auc_before, auc_after = (_auc(x_ND[known], code_N[known]) for x_ND in (before_ND, after_ND))
        return Probe(self.name, int((self.code_N >= 0).sum()), auc_before, auc_after)


def _auc(x_ND: Floats, code_N: NDArray[np.int64]) -> float:
    half = len(code_N) // 2
    model = LogisticRegression(C=_PROBE_C, max_iter=500).fit(x_ND[:half], code_N[:half])
    scores = model.decision_function(x_ND[half:])
    scores_NK = np.column_stack([-scores, scores]) if scores.ndim == 1 else scores
    is_value_NK = code_N[half:, None] == model.classes_
    num_K = is_value_NK.sum(axis=0)
    tested = np.flatnonzero((num_K >= _MIN_TESTED) & (num_K < len(is_value_NK)))
    return round(float(np.mean([roc_auc_score(is_value_NK[:, k], scores_NK[:, k]) for k in tested])), 4)
