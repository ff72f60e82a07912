"""Conversion of users given as pandas frames or dicts to the Arrow batches that the encoder takes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from userrep.errors import UsageError
from userrep.features.spec import FeatureSpec

_KEYS = ("user_id", "as_of", "is_exact")  # columns of user features that are not inputs of the model
Values = Iterable[Any]


def input_columns(spec: FeatureSpec) -> dict[str, str]:
    """Return the columns of user features that a model reads, in order, mapped to their SQL types."""
    return {name: kind for name, kind in spec.columns() if name != "is_exact"}


def frame_as_arrow(users: pd.DataFrame, spec: FeatureSpec) -> pa.RecordBatch:
    """Convert the model's columns of a frame of user features; other columns are ignored.

    Lists may be arrays, maps may be dicts or lists of pairs, nulls may be None or NaN. Cost: one Python object per list
    and map. Raises UsageError if a column is missing or has the wrong type.
    """
    missing = [name for name in input_columns(spec) if name not in users.columns]
    if missing:
        raise UsageError(f"users: missing column {', '.join(missing)}. Add all feature columns of the space.")
    return _as_arrow(spec, lambda name: users[name])


def dicts_as_arrow(users: Sequence[Mapping[str, Any]], spec: FeatureSpec) -> pa.RecordBatch:
    """Convert users given as dicts; a missing key is null. Raises UsageError if a key is not a feature of the space."""
    known = {*input_columns(spec), *_KEYS}
    unknown = sorted({str(name) for user in users for name in user if name not in known})
    if unknown:
        raise UsageError(f"users: the space has no feature {', '.join(unknown)}. Remove it or correct the name.")
    return _as_arrow(spec, lambda name: [user.get(name) for user in users])


def _as_arrow(spec: FeatureSpec, values_of: Callable[[str], Values]) -> pa.RecordBatch:
    columns = input_columns(spec)
    arrays, faults = [], []
    for name, kind in columns.items():
        try:
            arrays.append(_AS_ARROW[kind](values_of(name)))
        except (TypeError, ValueError) as error:  # pyarrow's exceptions are subclasses of these
            faults.append(f"users: {name} must be {kind} ({str(error).splitlines()[0].rstrip('.')}).")
    if faults:
        raise UsageError(faults)
    return pa.RecordBatch.from_arrays(arrays, list(columns))


def _numbers(column: Values) -> pa.Array:
    """Convert numbers to float64, counts too: pandas stores them as floats if any is null, and so does the model."""
    return pa.array(column, pa.float64(), from_pandas=True)


def _flags(column: Values) -> pa.Array:
    return pa.array(column, from_pandas=True).cast(pa.bool_())


def _text(column: Values) -> pa.Array:
    return pa.array(column, pa.string(), from_pandas=True)


def _lists(column: Values) -> pa.ListArray:
    rows = [None if _is_null(row) else np.asarray(row, np.float32) for row in column]
    lengths = [0 if row is None else len(row) for row in rows]
    flat = np.concatenate([np.empty(0, np.float32), *(row for row in rows if row is not None)])
    offsets, is_null = np.cumsum([0, *lengths], dtype=np.int32), pa.array([row is None for row in rows], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=is_null)


def _maps(column: Values) -> pa.MapArray:
    rows = [None if _is_null(row) else row.items() if isinstance(row, Mapping) else row for row in column]
    pairs = [None if row is None else [(key, count) for key, count in row] for row in rows]
    return pa.array(pairs, pa.map_(pa.string(), pa.int64()))


def _is_null(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


_AS_ARROW: dict[str, Callable[[Values], pa.Array]] = {
    "ARRAY<FLOAT>": _lists, "MAP<STRING,BIGINT>": _maps, "STRING": _text, "BOOLEAN": _flags, "BIGINT": _numbers,
    "DOUBLE": _numbers,
}  # fmt: skip
