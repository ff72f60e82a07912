"""Principal components of the inputs: the baseline of a linear encoder.

Shapes: B rows of the sample, N rows, F inputs, D components.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from userrep.evaluation.representation import Context, Floats32
from userrep.store.arrow import combined, packed, unpacked

_MAX_ROWS = 20_000  # approximate size of the sample


@dataclass
class Pca:
    """The first components of the scaled inputs, fitted on a sample of all users' rows up to ``plan.until``."""

    name: str = "pca"
    num_components: int = 120
    _center_F: Floats32 = field(default_factory=lambda: np.zeros(0, np.float32), init=False)
    _axes_FD: Floats32 = field(default_factory=lambda: np.zeros((0, 0), np.float32), init=False)

    def fit(self, context: Context) -> None:
        """Fit the axes by eigendecomposition of F x F. About 20,000 packed rows reach the driver."""
        self.fit_rows(earlier_rows(context))

    def fit_rows(self, x_BF: Floats32) -> None:
        """Fit the axes on these rows."""
        self._center_F = x_BF.mean(axis=0, dtype=np.float64).astype(np.float32)
        centered_BF = (x_BF - self._center_F).astype(np.float64)
        _, axes_FF = np.linalg.eigh(centered_BF.T @ centered_BF)  # in ascending order of variance
        self._axes_FD = axes_FF[:, ::-1][:, : self.num_components].astype(np.float32)

    def matrix(self, context: Context) -> Floats32:
        """Project the rows onto the axes: at most as many columns as inputs."""
        return np.asarray((context.scaled() - self._center_F) @ self._axes_FD, np.float32)


def earlier_rows(context: Context) -> Floats32:
    """Return about 20,000 scaled rows of dates up to ``plan.until``, ordered by user and date."""
    layout, scaler = context.layout, context.artifact.scaler

    def scaled(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            x_BF = scaler.apply(layout, layout.raw(batch))
            keys = [batch.column("user_id"), batch.column("as_of")]
            yield pa.RecordBatch.from_arrays([*keys, packed(x_BF)], ["user_id", "as_of", "x"])

    sample = context.earlier_features(max_rows=_MAX_ROWS).mapInArrow(scaled, "user_id STRING, as_of DATE, x BINARY")
    rows = sample.toArrow().sort_by([("user_id", "ascending"), ("as_of", "ascending")])
    return unpacked(combined(rows.column("x")), layout.width)
