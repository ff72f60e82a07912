"""Drift of user inputs from one date to the next: their distribution, and how well a space reconstructs them.

Population stability index: Siddiqi, Credit Risk Scorecards (2006).
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import ArrayLike, NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.features.spec import FeatureSpec
from userrep.model.artifact import Artifact, load_artifact
from userrep.model.autoencoder import Autoencoder
from userrep.model.losses import ReconstructionLoss
from userrep.monitoring.vector_drift import Metrics, Parts
from userrep.spark.sums import sum_over

_NUM_RANGES = 10
_WIDTH = 2 * _NUM_RANGES - 1
_LEAST = 1e-4  # share assumed for an empty range, so that the index stays finite
_FORWARD_ROWS = 1024  # rows per forward pass


@dataclass(frozen=True)
class Ranges:
    """Ranges of each column, bounded by the deciles of its earlier values.

    Values equal to a decile have their own range, since many counts and flags are 0. Nulls are one more range.
    """

    ends: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, before: DataFrame, names: list[str]) -> "Ranges":
        """Compute the deciles of numeric and boolean columns. Cost: one pass that shuffles only quantile sketches."""
        quantiles = [k / _NUM_RANGES for k in range(1, _NUM_RANGES)]
        aggregates = {name: F.percentile_approx(F.col(name).cast("double"), quantiles).alias(name) for name in names}
        row = before.agg(*aggregates.values()).first()
        assert row is not None
        deciles = {name: np.unique(np.array(row[name] or [], np.float64)) for name in names}
        return cls({name: np.sort(np.concatenate([np.nextafter(d, -np.inf), d])) for name, d in deciles.items()})

    def counts(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Count the values of each column in each range; return shape (columns, ranges), with nulls last."""
        total = np.zeros((len(self.ends), _WIDTH + 1), np.int64)
        for k, (name, ends) in enumerate(self.ends.items()):
            values = batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
            is_null = np.isnan(values)
            total[k, -1] = is_null.sum()
            total[k, :-1] = np.bincount(np.searchsorted(ends, values[~is_null]), minlength=_WIDTH)
        return total

    def indices(self, now: NDArray[Any], before: NDArray[Any]) -> dict[str, float]:
        """Return each column's population stability index between two counts of its ranges.

        0 means no difference; above 0.25 usually counts as a different population.
        """
        p, q = (np.maximum(counts / np.maximum(1, counts.sum(1, keepdims=True)), _LEAST) for counts in (now, before))
        return dict(zip(self.ends, ((p - q) * np.log(p / q)).sum(axis=1).tolist(), strict=True))


@lru_cache(maxsize=2)
def _loaded(folder: str, content_hash: str) -> tuple[Artifact, Autoencoder, ReconstructionLoss]:
    """Load a space's artifact. The cache makes each Python worker load it only once."""
    torch.set_num_threads(1)  # Spark runs one task per core
    artifact = load_artifact(folder, content_hash)
    return artifact, artifact.encoder(), ReconstructionLoss(artifact.layout)


def reconstruction_errors(batch: pa.RecordBatch, folder: str, content_hash: str) -> NDArray[np.float64]:
    """Return the squared error of each block of inputs, summed over rows of user features.

    The error of a row is the same as in the training loss. ``folder`` and ``content_hash`` name the space's artifact.
    """
    artifact, autoencoder, loss = _loaded(folder, content_hash)
    sum_K = np.zeros(len(artifact.layout.blocks))
    for start in range(0, batch.num_rows, _FORWARD_ROWS):
        x_BF = torch.from_numpy(artifact.inputs(batch.slice(start, _FORWARD_ROWS)))
        with torch.inference_mode():
            error_K = loss(autoencoder(x_BF).reconstruction_BF, x_BF)
        sum_K += len(x_BF) * error_K.numpy()
    return sum_K


def compare_inputs(
    features: DataFrame, *, now: date, before: date, spec: FeatureSpec, folder: str, content_hash: str
) -> tuple[Metrics, Parts]:
    """Compare the scalar inputs and flags of two dates, and the space's reconstruction errors.

    ``features`` are the stored user features of both dates; ``folder`` and ``content_hash`` name the space's artifact.
    Returns the metrics ``no_event_change``, ``psi`` and ``error_growth``; and the latter two by input and by block.

    Cost: one pass over the scalars of the date before, for their deciles; one pass over all features of each date,
    through encoder and decoder. A few numbers for each column, block and task reach the driver.
    """
    names = [*spec.scalars, *(f"has_{block.column}" for block in spec.pooled)]
    ranges = Ranges.of(features.where(F.col("as_of") == before), names)

    def sums_of(batch: pa.RecordBatch) -> dict[str, NDArray[np.float64] | float]:
        return {
            "num_rows": batch.num_rows,
            "idle": pc.sum(pc.equal(batch.column(f"num_events_{spec.longest}d"), 0)).as_py() or 0,
            "counts": ranges.counts(batch),
            "errors": reconstruction_errors(batch, folder, content_hash),
        }

    blocks = [block.name for block in load_artifact(folder, content_hash).layout.blocks]

    def means(day: date) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Return the share of users without an event, the counts, and the mean error of each block; 0 without users."""
        sums = sum_over(features.where(F.col("as_of") == day), sums_of)
        if not sums:
            return 0.0, np.zeros((len(names), _WIDTH + 1)), np.zeros(len(blocks))
        return float(sums["idle"] / sums["num_rows"]), sums["counts"], sums["errors"] / sums["num_rows"]

    (idle_a, counts_a, error_a), (idle_b, counts_b, error_b) = means(now), means(before)
    stability = ranges.indices(counts_a, counts_b)
    metrics = {
        "no_event_change": abs(idle_a - idle_b),
        "psi": max(stability.values()),
        "error_growth": max(0.0, float(_growth(error_a.sum(), error_b.sum()))),
    }
    growth = dict(zip(blocks, _growth(error_a, error_b).tolist(), strict=True))
    return metrics, {"psi": stability, "error_growth": growth}


def _growth(now: ArrayLike, before: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(np.asarray(now) / np.maximum(before, 1e-12) - 1)
