"""Drift of user inputs from one date to the next: their distribution, and how well a space reconstructs them.

Population stability index: Siddiqi, Credit Risk Scorecards (2006).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from userrep.features.spec import FeatureSpec
from userrep.model.artifact import load_artifact
from userrep.monitoring.psi import Ranges
from userrep.monitoring.reconstruction import reconstruction_of
from userrep.monitoring.vector_drift import Metrics, Parts

_SUMS = "as_of DATE, num_rows BIGINT, idle BIGINT, counts ARRAY<BIGINT>, errors ARRAY<DOUBLE>"


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
