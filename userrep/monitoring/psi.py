"""Population stability index: how differently two sets of rows are distributed over the same ranges of values."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

_NUM_RANGES = 10
_WIDTH = 2 * _NUM_RANGES - 1
_LEAST = 1e-4  # share assumed for an empty range, so that the index stays finite


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
        """Return each column's index. 0 means no difference; above 0.25 usually counts as a different population."""
        return {name: _index(now[k], before[k]) for k, name in enumerate(self.ends)}


def _index(now: NDArray[np.int64], before: NDArray[np.int64]) -> float:
    p, q = (np.maximum(counts / max(1, counts.sum()), _LEAST) for counts in (now, before))
    return float(((p - q) * np.log(p / q)).sum())
