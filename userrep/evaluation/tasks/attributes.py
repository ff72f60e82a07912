"""Attributes that are not inputs: columns of the users table, and the tasks to predict their values.

An attribute does not change over time, so a probe would recognize users that it was fitted on. Therefore it is tested
on other users than those for training and validation. Shapes: N rows, U users, K values.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Config
from userrep.evaluation.sampled_rows import NO_ROLE, TEST, TRAIN, VALID, Rows, indices_in, row_of_each
from userrep.evaluation.tasks.rows import RowProblem, frequent_labels
from userrep.evaluation.tasks.task import MIN_EXAMPLES, LeftOut, Task, Truth, too_few_values
from userrep.sources.categories import as_categories
from userrep.sources.columns import id_text, named, type_of
from userrep.sources.read import read_source
from userrep.store.arrow import combined
from userrep.store.xxhash import hash64

_MAX_VALUES = 10  # labels; the most frequent values
_PARTS = np.array([TRAIN, TRAIN, VALID, TEST, TEST], np.int8)  # by a hash of the user id
_SEED = 5  # of the hash; fixed, so all seeds of an evaluation have the same split


def attribute_value(attribute: str) -> Task:
    """Return the task: the user's value of an attribute that is not an input, one value against the rest.

    The metric is the mean over the ten most frequent values, as far as they are frequent enough in each split. One row
    per user with a known value, the newest.
    """

    def problem(truth: Truth, _: int) -> RowProblem | LeftOut:
        values = truth.attributes_of_rows(attribute)
        role_N = np.where(values.is_valid(), roles_by_user(truth.rows), NO_ROLE).astype(np.int8)
        counts = pc.value_counts(values.filter(pa.array(role_N != NO_ROLE)))
        if reason := too_few_values(attribute, len(counts)):
            return reason
        top = sorted(counts.to_pylist(), key=lambda count: (-count["counts"], count["values"]))[:_MAX_VALUES]
        value_N = indices_in(values, pa.array([count["values"] for count in top]))
        has_value_NK = frequent_labels(role_N, value_N[:, None] == np.arange(len(top)))
        if not has_value_NK.size:
            lacking = f"no value of {attribute} has {MIN_EXAMPLES} users with and {MIN_EXAMPLES} users without it"
            return LeftOut(f"{lacking} in each split")
        return RowProblem(role_N, truth.rows.user_N, has_value_NK, "auc")

    return Task(f"attribute_{attribute}", problem, is_drawn=False)


def roles_by_user(rows: Rows) -> NDArray[np.int8]:
    """Return roles, drawn by user, for the newest row of each user, and NO_ROLE for the other rows."""
    newest = np.flatnonzero(np.append(rows.user_N[1:] != rows.user_N[:-1], True))
    role_N = np.full(len(rows), NO_ROLE, np.int8)
    role_N[newest] = _PARTS[hash64(rows.user_ids, seed=_SEED) % len(_PARTS)]
    return role_N


def read_attributes(spark: SparkSession, config: Config, rows: Rows) -> dict[str, pa.StringArray]:
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
    by_user = rows.only_own(users).groupBy("user_id").agg(*largest).toArrow()
    sampled = row_of_each(rows.user_ids, by_user)
    return {name: as_categories(combined(sampled.column(name))) for name in names}
