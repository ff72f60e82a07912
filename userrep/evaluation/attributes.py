"""Attributes that are not inputs: columns of the users table, read for the sampled users as labels of tasks."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Config
from userrep.evaluation.sampled_users import Rows, indices_in, only_sampled
from userrep.sources.columns import id_text, named, type_of
from userrep.sources.read import read_source
from userrep.store.arrow import combined

_MAX_NUMBERS = 10  # distinct numbers; above that, quartile ranges are the categories


def read_attributes(spark: SparkSession, config: Config, rows: Rows, *, seed: int) -> dict[str, pa.StringArray]:
    """Read ``evaluation.attributes`` of the U sampled users, in the order of ``rows.user_ids``; null if unknown.

    If a user has several rows, the largest value counts. Numeric attributes with more than 10 distinct values become
    quartile ranges. Cost: one pass over the users table and a shuffle of the sampled users' rows. Driver memory: one
    value per user and attribute.
    """
    names = dict(zip(config.evaluation.attribute_names, config.evaluation.attributes, strict=True))
    if config.users is None or not names:
        return {}
    source = read_source(spark, config.users, what="users")
    columns = [named(source, column).alias(name) for name, column in names.items()]
    users = source.select(id_text(source, config.users.columns.user_id).alias("user_id"), *columns)
    largest = [
        F.max(F.col(name).cast("double" if isinstance(type_of(users, name), T.NumericType) else "string")).alias(name)
        for name in names
    ]
    by_user = only_sampled(users, rows, seed=seed).groupBy("user_id").agg(*largest).toArrow()
    index_U = indices_in(rows.user_ids, combined(by_user.column("user_id")).cast(pa.string()))
    sampled = by_user.take(pa.array(index_U, mask=index_U < 0))
    return {name: as_categories(combined(sampled.column(name))) for name in names}


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
