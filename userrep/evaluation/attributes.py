"""Attributes that are no inputs: columns of the users' table, read for the sampled users, that tasks are made of."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Config
from userrep.evaluation.rows import Rows, only_sampled, places
from userrep.sources.columns import id_text, named, type_of
from userrep.sources.source import read_source
from userrep.store.arrow import combined

_MAX_NUMBERS = 10  # distinct ones that are taken as they are


def read_attributes(spark: SparkSession, config: Config, rows: Rows, *, seed: int) -> dict[str, pa.StringArray]:
    """Read ``evaluation.attributes`` of the U sampled users, by their place in ``rows.user_ids``; null where unknown.

    Of a user's several rows the largest value counts. Numbers of more than 10 values are cut at their quartiles. Cost:
    a pass over the users' table and a shuffle of the sampled users' rows. Driver memory: a value a user and attribute.
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
    found = only_sampled(users, rows, seed=seed).groupBy("user_id").agg(*largest).toArrow()
    place_U = places(rows.user_ids, combined(found.column("user_id")).cast(pa.string()))
    taken = found.take(pa.array(place_U, mask=place_U < 0))
    return {name: as_kinds(combined(taken.column(name))) for name in names}


def as_kinds(values: pa.Array) -> pa.StringArray:
    """Write values as text; many numbers as the quarter that each lies in. NaN is null.

    Numbers that lie on a cut are a kind of their own: of 800 zeros among 1,000 numbers all three cuts are zero.
    """
    if not pa.types.is_floating(values.type):
        return values.cast(pa.string())
    values = pc.if_else(pc.is_nan(values), None, values)
    known = values.drop_null().to_numpy()
    if len(np.unique(known)) <= _MAX_NUMBERS:
        return values.cast(pa.string())
    cuts, value_U = np.quantile(known, [0.25, 0.5, 0.75]), values.to_numpy(zero_copy_only=False)
    quarter_U = np.searchsorted(cuts, value_U, "left") + np.searchsorted(cuts, value_U, "right")
    return pc.if_else(values.is_valid(), pa.array(quarter_U).cast(pa.string()), None)
