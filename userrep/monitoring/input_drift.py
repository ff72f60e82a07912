"""Drift of user inputs from one date to the next: their distribution, and how well a space reconstructs them.

Population stability index: Siddiqi, Credit Risk Scorecards (2006).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from userrep.features.spec import FeatureSpec
from userrep.model.artifact import Artifact, load_artifact
from userrep.model.autoencoder import Autoencoder
from userrep.model.losses import ReconstructionLoss
from userrep.monitoring.vector_drift import Metrics, Parts

_NUM_RANGES = 10
_WIDTH = 2 * _NUM_RANGES - 1
_LEAST = 1e-4  # share assumed for an empty range, so that the index stays finite
_FORWARD_ROWS = 1024  # rows per forward pass
_SUMS = "as_of DATE, num_rows BIGINT, idle BIGINT, counts ARRAY<BIGINT>, errors ARRAY<DOUBLE>"


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

    def zero_counts(self) -> NDArray[np.int64]:
        """Return counts of 0, of shape (columns, ranges)."""
        return np.zeros((len(self.ends), _WIDTH + 1), np.int64)

    def counts(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Count the values of each column in each range; return shape (columns, ranges), with nulls last."""
        total = self.zero_counts()
        for k, (name, ends) in enumerate(self.ends.items()):
            values = batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
            is_null = np.isnan(values)
            total[k, -1] = is_null.sum()
            total[k, :-1] = np.bincount(np.searchsorted(ends, values[~is_null]), minlength=_WIDTH)
        return total

    def indices(self, now: NDArray[np.int64], before: NDArray[np.int64]) -> dict[str, float]:
        """Return each column's population stability index between two counts of its ranges.

        0 means no difference; above 0.25 usually counts as a different population.
        """
        p, q = (np.maximum(counts / np.maximum(1, counts.sum(1, keepdims=True)), _LEAST) for counts in (now, before))
        return dict(zip(self.ends, ((p - q) * np.log(p / q)).sum(axis=1).tolist(), strict=True))


@dataclass(frozen=True)
class Reconstruction:
    """The encoder and decoder of a space's artifact, for use within a Spark task."""

    artifact: Artifact
    autoencoder: Autoencoder
    loss: ReconstructionLoss

    def errors(self, batch: pa.RecordBatch) -> NDArray[np.float64]:
        """Return the squared error of each block of inputs, summed over rows of user features.

        The error of a row is the same as in the training loss.
        """
        sum_K = np.zeros(len(self.artifact.layout.blocks))
        for start in range(0, batch.num_rows, _FORWARD_ROWS):
            raw_BF = self.artifact.layout.raw(batch.slice(start, _FORWARD_ROWS))
            x_BF = torch.from_numpy(self.artifact.scaler.apply(self.artifact.layout, raw_BF))
            with torch.inference_mode():
                error_K = self.loss(self.autoencoder(x_BF).reconstruction_BF, x_BF)
            sum_K += len(x_BF) * error_K.numpy()
        return sum_K


@lru_cache(maxsize=2)
def reconstruction_of(folder: str, content_hash: str) -> Reconstruction:
    """Load a space's artifact. The cache makes each Python worker load it only once."""
    torch.set_num_threads(1)  # Spark runs one task per core
    artifact = load_artifact(folder, content_hash)
    return Reconstruction(artifact, artifact.encoder(), ReconstructionLoss(artifact.layout))


@dataclass(frozen=True)
class Inputs:
    """Statistics of the features of one date. ``errors``: mean reconstruction error by block."""

    idle_share: float
    counts: NDArray[np.int64]
    errors: dict[str, float]

    @classmethod
    def of(cls, parts: Sequence[Row], blocks: Sequence[str], ranges: Ranges) -> "Inputs":
        """Combine the partial sums of the tasks."""
        num = max(1, sum(part.num_rows for part in parts))
        counts, error_K = ranges.zero_counts(), np.zeros(len(blocks))
        for part in parts:
            counts += np.reshape(part.counts, counts.shape)
            error_K += part.errors
        idle_share = sum(part.idle for part in parts) / num
        return cls(idle_share, counts, dict(zip(blocks, (error_K / num).tolist(), strict=True)))


def compare_inputs(
    features: DataFrame, *, now: date, before: date, spec: FeatureSpec, folder: str, content_hash: str
) -> tuple[Metrics, Parts]:
    """Compare the scalar inputs and flags of two dates, and the space's reconstruction errors.

    ``features`` are the stored user features of both dates; ``folder`` and ``content_hash`` name the space's artifact.
    Returns the metrics ``no_event_change``, ``psi`` and ``error_growth``; and the latter two by input and by block.

    Cost: one pass over the scalars of the date before, for their deciles; one pass over all features of both dates,
    through encoder and decoder. A few numbers for each column, block and batch reach the driver.
    """
    names = [*spec.scalars, *(f"has_{block.column}" for block in spec.pooled)]
    ranges = Ranges.of(features.where(F.col("as_of") == before), names)
    num_events = f"num_events_{spec.longest}d"

    def sums(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        reconstruction = reconstruction_of(folder, content_hash)
        for batch in batches:
            for as_of in batch.column("as_of").unique():
                rows = batch.filter(pc.equal(batch.column("as_of"), as_of))
                row = {
                    "as_of": as_of.as_py(),
                    "num_rows": rows.num_rows,
                    "idle": pc.sum(pc.equal(rows.column(num_events), 0)).as_py() or 0,
                    "counts": ranges.counts(rows).ravel(),
                    "errors": reconstruction.errors(rows),
                }
                yield pa.RecordBatch.from_pydict({name: [value] for name, value in row.items()})

    parts = features.mapInArrow(sums, _SUMS).collect()
    blocks = [block.name for block in load_artifact(folder, content_hash).layout.blocks]
    a, b = (Inputs.of([part for part in parts if part.as_of == day], blocks, ranges) for day in (now, before))
    stability = ranges.indices(a.counts, b.counts)
    metrics = {
        "no_event_change": abs(a.idle_share - b.idle_share),
        "psi": max(stability.values()),
        "error_growth": max(0.0, _growth(sum(a.errors.values()), sum(b.errors.values()))),
    }
    growth = {name: _growth(a.errors[name], b.errors[name]) for name in blocks}
    return metrics, {"psi": stability, "error_growth": growth}


def _growth(now: float, before: float) -> float:
    return now / max(before, 1e-12) - 1
