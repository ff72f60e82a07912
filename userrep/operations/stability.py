"""The population stability index of columns: how differently two sets of rows spread over the same ranges of values."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

_NUM_RANGES = 10
_LEAST = 1e-4  # a share: of what is empty


def stability(now: DataFrame, before: DataFrame) -> dict[str, float]:
    """Return each column's index, 0 for no difference; above 0.25 is usually taken for another population.

    Ranges lie between the deciles of ``before``; what equals one is a range of its own, as zeros of counts and flags
    are, and nulls are one more. All columns are doubles. Cost: two passes over ``before``,
    one over ``now``; no shuffle but of counts.
    """
    names = before.columns
    quantiles = [k / _NUM_RANGES for k in range(1, _NUM_RANGES)]
    found = before.agg(*(F.percentile_approx(name, quantiles).alias(name) for name in names)).first()
    assert found is not None
    deciles = [np.unique(np.array(found[name] or [], np.float64)) for name in names]
    ends = [np.sort(np.concatenate([np.nextafter(of, -np.inf), of])) for of in deciles]
    a, b = (_counts(rows, names, ends) for rows in (now, before))
    return {name: _index(a[k], b[k]) for k, name in enumerate(names)}


def _counts(rows: DataFrame, names: Sequence[str], ends: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Count the values of each column in each range, nulls last."""
    width = 2 * _NUM_RANGES - 1

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total = np.zeros((len(names), width + 1), np.int64)
        for batch in batches:
            for k in range(len(names)):
                values = batch.column(k).to_numpy(zero_copy_only=False)
                is_null = np.isnan(values)
                total[k, -1] += is_null.sum()
                total[k, :-1] += np.bincount(np.searchsorted(ends[k], values[~is_null]), minlength=width)
        yield pa.RecordBatch.from_pydict({"counts": [total.ravel()]})

    found = rows.select(*names).mapInArrow(count, "counts ARRAY<BIGINT>").collect()
    return np.sum([row.counts for row in found], axis=0, dtype=np.float64).reshape(len(names), -1)


def _index(now: NDArray[np.float64], before: NDArray[np.float64]) -> float:
    p, q = (np.maximum(counts / max(1, counts.sum()), _LEAST) for counts in (now, before))
    return float(((p - q) * np.log(p / q)).sum())
