"""Categories of an attribute's values."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_MAX_NUMBERS = 10  # distinct numbers; above that, quartile ranges are the categories


def as_categories(values: pa.Array) -> pa.StringArray:
    """Return values as text. More than 10 distinct numbers are replaced by their quartile range; NaN is null.

    Numbers equal to a quartile are a category of their own, because quartiles can coincide: if 800 of 1,000 numbers are
    zero, all three quartiles are zero.
    """
    if not pa.types.is_floating(values.type):
        return values.cast(pa.string())
    values = pc.if_else(pc.is_nan(values), None, values)
    known = values.drop_null().to_numpy()
    if len(np.unique(known)) <= _MAX_NUMBERS:
        return values.cast(pa.string())
    quartiles, value_U = np.quantile(known, [0.25, 0.5, 0.75]), values.to_numpy(zero_copy_only=False)
    quarter_U = np.searchsorted(quartiles, value_U, "left") + np.searchsorted(quartiles, value_U, "right")
    return pc.if_else(values.is_valid(), pa.array(quarter_U).cast(pa.string()), None)
