"""Conversion of users given as pandas frames or dicts to the Arrow batches that the encoder takes."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from userrep.errors import UsageError, first_line, results_of
from userrep.features.spec import FeatureSpec

_KEYS = ("user_id", "as_of", "is_exact")  # columns of user features that are not inputs of the model
Values = Iterable[Any]
ARROW_TYPES = {
    "ARRAY<FLOAT>": pa.list_(pa.float32()), "BOOLEAN": pa.bool_(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(),
    "STRING": pa.string(), "MAP<STRING,BIGINT>": pa.map_(pa.string(), pa.int64()),
}  # fmt: skip


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


def dicts_as_arrow(users: Iterable[Mapping[str, Any]], spec: FeatureSpec) -> pa.RecordBatch:
    """Convert users given as dicts; a missing key is null.

    Raises UsageError if a user is not a dict, or a key is not a feature of the space.
    """
    users = list(users) if isinstance(users, Iterable) else [users]
    if others := [user for user in users if not isinstance(user, Mapping)]:
        raise UsageError(f"users: expected a frame or dicts of features, got {type(others[0]).__name__}.")
    known = {*input_columns(spec), *_KEYS}
    unknown = sorted({str(name) for user in users for name in user if name not in known})
    if unknown:
        raise UsageError(f"users: the space has no feature {', '.join(unknown)}. Remove it or correct the name.")
    return _as_arrow(spec, lambda name: [user.get(name) for user in users])


def _as_arrow(spec: FeatureSpec, values_of: Callable[[str], Values]) -> pa.RecordBatch:
    def column(name: str, kind: str) -> pa.Array:
        try:
            return _column(values_of(name), kind)
        except (TypeError, ValueError) as error:  # pyarrow's exceptions are subclasses of these
            raise UsageError(f"users: {name} must be {kind} ({first_line(error)}).") from None

    columns = input_columns(spec)
    return pa.RecordBatch.from_arrays(results_of(partial(column, *item) for item in columns.items()), list(columns))


def _column(values: Values, kind: str) -> pa.Array:
    if kind == "BOOLEAN":  # numbers too
        return pa.array(values, from_pandas=True).cast(pa.bool_())
    if kind == "BIGINT":  # pandas stores counts as floats if any is null, and so does the model
        return pa.array(values, pa.float64(), from_pandas=True)
    if kind == "ARRAY<FLOAT>":
        vectors = pa.array(
            [None if _is_null(row) else np.asarray(row, np.float32) for row in values], ARROW_TYPES[kind]
        )
        if not np.isfinite(vectors.flatten()).all():
            raise ValueError("its numbers must be finite; an absent vector is None")
        return vectors
    if kind == "MAP<STRING,BIGINT>":
        maps = [None if _is_null(row) else _pairs(row) for row in values]
        return pa.array(maps, ARROW_TYPES[kind])  # without from_pandas, which would read NaN in a map as null
    return pa.array(values, ARROW_TYPES[kind], from_pandas=True)


def _pairs(counts: Any) -> list[tuple[Any, Any]]:
    return [(key, count) for key, count in (counts.items() if isinstance(counts, Mapping) else counts)]


def _is_null(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
