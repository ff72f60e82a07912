"""The population stability index of columns: how differently two sets of rows spread over the same ranges of values."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

_NUM_RANGES = 10
_WIDTH = 2 * _NUM_RANGES - 1
_LEAST = 1e-4  # a share: of what is empty


@dataclass(frozen=True)
class Ranges:
    """The ranges of each column: between the deciles of what it had before.

    What equals a decile is a range of its own, as zeros of counts and flags are, and nulls are one more.
    """

    ends: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, before: DataFrame, names: list[str]) -> "Ranges":
        """Find the deciles of numbers and flags. Cost: one pass; no shuffle but of sketches."""
        quantiles = [k / _NUM_RANGES for k in range(1, _NUM_RANGES)]
        of = {name: F.percentile_approx(F.col(name).cast("double"), quantiles).alias(name) for name in names}
        found = before.agg(*of.values()).first()
        assert found is not None
        deciles = {name: np.unique(np.array(found[name] or [], np.float64)) for name in names}
        return cls({name: np.sort(np.concatenate([np.nextafter(d, -np.inf), d])) for name, d in deciles.items()})

    def no_counts(self) -> NDArray[np.int64]:
        """Begin to count: columns x ranges, all 0."""
        return np.zeros((len(self.ends), _WIDTH + 1), np.int64)

    def counts(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Count the values of each column in each range, nulls last: columns x ranges."""
        total = self.no_counts()
        for k, (name, ends) in enumerate(self.ends.items()):
            values = batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
            is_null = np.isnan(values)
            total[k, -1] = is_null.sum()
            total[k, :-1] = np.bincount(np.searchsorted(ends, values[~is_null]), minlength=_WIDTH)
        return total

    def indices(self, now: NDArray[np.int64], before: NDArray[np.int64]) -> dict[str, float]:
        """Return each column's index, 0 for no difference; above 0.25 is usually taken for another population."""
        return {name: _index(now[k], before[k]) for k, name in enumerate(self.ends)}


def _index(now: NDArray[np.int64], before: NDArray[np.int64]) -> float:
    p, q = (np.maximum(counts / max(1, counts.sum()), _LEAST) for counts in (now, before))
    return float(((p - q) * np.log(p / q)).sum())
