"""Synthetic users as the example input of a logged model. MLflow would keep real users' data after their erasure."""

import numpy as np
import pyarrow as pa

from userrep.features.layout import InputLayout
from userrep.inference.to_arrow import ARROW_TYPES, input_columns


def invented_users(layout: InputLayout) -> pa.Table:
    """Return two fixed rows of user features: a user with one event a day, and a user without any data."""
    spec = layout.spec
    widths = {block.column: block.dim for block in spec.pooled} | spec.shares
    columns: dict[str, pa.Array] = {}
    known: object
    unknown: object
    for name, kind in input_columns(spec).items():
        if kind == "ARRAY<FLOAT>":
            share = np.full(widths[name], 1 / widths[name], np.float32)
            known, unknown = share.tolist(), np.zeros_like(share).tolist()
        elif kind.startswith("MAP"):
            known, unknown = [(layout.vocabulary[name][0], spec.longest)], []
        elif kind == "STRING":
            known, unknown = layout.vocabulary[name][0], None
        elif kind == "BOOLEAN":
            known, unknown = True, False
        elif name.startswith("days_since_"):
            known, unknown = 1.0, None
        else:
            days = next(days for days in spec.windows if name.endswith(f"_{days}d"))
            known, unknown = float(days) if kind == "DOUBLE" else days, 0
        columns[name] = pa.array([known, unknown], ARROW_TYPES[kind])
    return pa.table(columns)
