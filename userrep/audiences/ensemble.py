"""The score of a seed list: a classifier and the similarity to seed clusters, combined and calibrated.

deWet and Ou (Finding Users Who Act Alike, KDD 2019) found that a classifier per list and a similarity to the list's
users complement each other. Here the classifier alone is about as good (docs/decisions/quality-measurements.md), so it
is the default that the similarity has to improve.

Shapes: B users of a batch, N users, D dimensions, K clusters, F features (2).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import normalize

from userrep.audiences.protected import Guard
from userrep.store.arrow import combined, stacked

_FOLDS = 5
_C = 0.03  # inverse strength of the classifier's penalty, relative to the number of seeds
_PRECISELY = {"maxiter": 500, "gtol": 1e-9, "ftol": 1e-12}  # probabilities are small
_MAX_STEPS = 500
_LEAST_SCALE = 1e-3  # relative to the largest: a dimension that varies less carries rounding errors only
_MOST_CLUSTERS = 20
_SEED = 7
_CLASSIFIER = np.array([1.0, 0.0])  # weights of standardized features if nothing is known
_PRIOR = 3.0  # strength of these weights: that of about three seeds
_LEAST = 1e-2  # so that equal scores are only those of users with equal features

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class InputTransform(NamedTuple):
    """How vectors become inputs: standardized over a population sample, and without protected attributes.

    Each dimension is scaled on its own, since tastes are much longer than the others and would be all that a penalized
    classifier uses.
    """

    mean_D: Floats
    scale_D: Floats
    guard: Guard

    @classmethod
    def of(cls, sample: pa.ChunkedArray) -> "InputTransform":
        """Return inputs without a guard from a column of sampled vectors."""
        sample_ND = stacked(combined(sample), len(sample[0]))
        mean_D, spread_D = sample_ND.mean(axis=0, dtype=np.float64), sample_ND.std(axis=0, dtype=np.float64)
        scale_D = np.maximum(spread_D, _LEAST_SCALE * max(spread_D.max(), 1e-6))
        return cls(mean_D, scale_D, Guard.none(len(mean_D)))

    def __call__(self, vectors: pa.ChunkedArray) -> Floats:
        """Return the inputs of a column of vectors. Raises ValueError if one has another width."""
        x_BD = stacked(combined(vectors), len(self.mean_D))
        inputs_BD: Floats = (x_BD - self.mean_D) / self.scale_D
        return self.guard.project(inputs_BD)


class Member(NamedTuple):
    """A linear classifier of seeds against other users, and the centers of the seeds' clusters, of length 1."""

    weight_D: Floats
    bias: float
    center_KD: Floats

    @classmethod
    def fit(cls, x_ND: Floats, is_seed_N: Flags) -> "Member":
        """Fit both. In the classifier, all other users together weigh as much as the seeds."""
        num_seeds = int(is_seed_N.sum())
        weight_N = np.where(is_seed_N, 1.0, num_seeds / (len(is_seed_N) - num_seeds))
        model = LogisticRegression(C=_C, max_iter=_MAX_STEPS).fit(x_ND, is_seed_N, weight_N)
        num_clusters = min(_MOST_CLUSTERS, max(1, round(np.sqrt(num_seeds / 2))))  # Mardia's rule of thumb
        with catch_warnings():
            simplefilter("ignore", ConvergenceWarning)  # fewer distinct seeds than clusters: some centers are equal
            clusters = KMeans(num_clusters, n_init=3, random_state=_SEED).fit(normalize(x_ND[is_seed_N]))
        return cls(model.coef_[0], float(model.intercept_[0]), normalize(clusters.cluster_centers_))

    def features(self, x_BD: Floats) -> Floats:
        """Return the classifier's logit, and the cosine to the nearest center: B x F."""
        similarity_B = (normalize(x_BD) @ self.center_KD.T).max(axis=1)
        return np.column_stack([x_BD @ self.weight_D + self.bias, similarity_B])


def weights_of(features_NF: Floats, is_seed_N: Flags) -> Floats:
    """Fit the weight of each feature in the score, which no feature lowers.

    A logistic regression of standardized features, in which all seeds weigh as much as all others. With few seeds, the
    weights stay near those of the classifier alone: its order of users is the default, and similarity needs evidence.
    """
    scale_F = np.maximum(features_NF.std(axis=0), 1e-12)
    x_NG = np.column_stack([(features_NF - features_NF.mean(axis=0)) / scale_F, np.ones(len(features_NF))])
    num_seeds = int(is_seed_N.sum())
    weight_N = np.where(is_seed_N, 0.5 / num_seeds, 0.5 / (len(is_seed_N) - num_seeds))
    penalty = _PRIOR / num_seeds

    def loss(flat: Floats) -> tuple[float, Floats]:
        z_N, moved_F = x_NG @ flat, flat[:2] - _CLASSIFIER
        value = -float(weight_N @ log_expit(np.where(is_seed_N, z_N, -z_N))) + penalty * float(moved_F @ moved_F)
        return value, x_NG.T @ (weight_N * (expit(z_N) - is_seed_N)) + np.append(2 * penalty * moved_F, 0)

    start, bounds = np.append(_CLASSIFIER, 0), [(_LEAST, None), (0, None), (None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=_PRECISELY).x
    weight_F: Floats = found[:2] / scale_F
    return weight_F


class Calibration(NamedTuple):
    """The probability that a user is on the seed list: ``share`` x the logistic function of slope x score + bias.

    ``share`` estimates which share of the users alike the list has: however alike a user is, the probability does not
    exceed it (Elkan and Noto, KDD 2008).
    """

    slope: float
    bias: float
    share: float

    @classmethod
    def fit(cls, score_N: Floats, is_seed_N: Flags, weight_N: Floats) -> "Calibration":
        """Maximize the likelihood. The probability never falls with the score."""
        scale = max(float(score_N.std()), 1e-12)
        x_NG = np.column_stack([score_N / scale, np.ones(len(score_N))])
        weight_N = weight_N / weight_N.sum()

        def loss(flat: Floats) -> tuple[float, Floats]:
            z_N, share = x_NG @ flat[:-1], np.exp(flat[-1])
            p_N = np.minimum(share * expit(z_N), 1 - 1e-9)
            likelihood_N = np.where(is_seed_N, flat[-1] + log_expit(z_N), np.log1p(-p_N))
            error_N = weight_N * np.where(is_seed_N, -1, p_N / (1 - p_N))
            return -float(weight_N @ likelihood_N), np.append(x_NG.T @ (error_N * expit(-z_N)), error_N.sum())

        start = np.array([1.0, np.log(weight_N[is_seed_N].sum()), np.log(0.5)])
        bounds = [(_LEAST, 1 / _LEAST), (None, None), (np.log(1e-6), 0)]
        slope, bias, share = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=_PRECISELY).x
        return cls(float(slope / scale), float(bias), float(np.exp(share)))

    def probabilities(self, score_B: Floats) -> Floats:
        """Return the probability of each score."""
        probability_B: Floats = self.share * expit(self.slope * score_B + self.bias)
        return probability_B


class Ensemble(NamedTuple):
    """A fitted score of inputs: the weighted sum of a member's features."""

    member: Member
    weight_F: Floats
    calibration: Calibration

    def scores(self, x_BD: Floats) -> Floats:
        """Return the score of each user."""
        score_B: Floats = self.member.features(x_BD) @ self.weight_F
        return score_B


@dataclass(frozen=True)
class HeldOut:
    """Scores of seeds and sampled users by models that were fitted without them.

    ``weight_N``: the number of users of the snapshot that each stands for.
    """

    score_N: Floats
    is_seed_N: Flags
    weight_N: Floats

    @property
    def auc(self) -> float:
        """Area under the ROC curve of seeds against sampled users."""
        return round(float(roc_auc_score(self.is_seed_N, self.score_N)), 4)

    def facts(self, size: int, num_users: int) -> dict[str, Any]:
        """Return the AUC, and rows for a quarter, half, all, twice and four times the size, up to all users."""
        sizes = sorted({min(num_users, max(1, n)) for n in (size // 4, size // 2, size, 2 * size, 4 * size)})
        return {"auc": self.auc, "sizes": [self.at_size(n) for n in sizes]}

    def at_size(self, size: int) -> dict[str, Any]:
        """Return a row of the size table: what the ``size`` users with the highest held-out scores contain.

        seeds_found : share of the seeds among them. precision : share of them that are seeds. lift : precision
        divided by the share of seeds in the snapshot.
        """
        group_N = np.unique(-self.score_N, return_inverse=True)[1]  # users with equal scores, in no order
        weight_G = np.bincount(group_N, self.weight_N)
        seeds_G = np.bincount(group_N, self.weight_N * self.is_seed_N)
        taken_G = np.clip(size - (np.cumsum(weight_G) - weight_G), 0, weight_G)
        num_seeds = float((seeds_G * taken_G / weight_G).sum())
        total = float(self.weight_N[self.is_seed_N].sum())
        precision = num_seeds / size
        lift = precision * float(self.weight_N.sum()) / total
        return {
            "size": size,
            "seeds_found": round(num_seeds / total, 4),
            "precision": round(precision, 6),
            "lift": round(lift, 2),
        }


def fit_ensemble(seeds_ND: Floats, others_ND: Floats, *, num_seeds: int, num_others: int) -> tuple[Ensemble, HeldOut]:
    """Fit the score of seeds, and calibrate it on scores of users that the fitted models had not seen.

    Parameters
    ----------
    seeds_ND, others_ND : inputs of the seeds, or of some of them, and of sampled users who are not seeds. num_seeds,
    num_others : the numbers of users of the snapshot that they stand for.

    Returns
    -------
    The score, and the held-out scores. Cost: six fits on all users; seconds for 30,000.
    """
    x_ND = np.concatenate([seeds_ND, others_ND])
    is_seed_N = np.arange(len(x_ND)) < len(seeds_ND)
    weight_N = np.where(is_seed_N, num_seeds / len(seeds_ND), num_others / len(others_ND))
    features_NF = np.empty((len(x_ND), 2))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED)
    for fitted, held_out in folds.split(x_ND, is_seed_N):
        features_NF[held_out] = Member.fit(x_ND[fitted], is_seed_N[fitted]).features(x_ND[held_out])
    weight_F = weights_of(features_NF, is_seed_N)
    score_N = features_NF @ weight_F
    ensemble = Ensemble(Member.fit(x_ND, is_seed_N), weight_F, Calibration.fit(score_N, is_seed_N, weight_N))
    return ensemble, HeldOut(score_N, is_seed_N, weight_N)
