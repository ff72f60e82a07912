"""Attributes that are not inputs: columns of the users table, and the tasks to predict their values.

An attribute does not change over time, so a probe would recognize users that it was fitted on. Therefore it is tested
on other users than those for training and validation. Shapes: N rows, U users, K values.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from userrep.config import Config
from userrep.evaluation.sampled_rows import NO_ROLE, TEST, TRAIN, VALID, Rows, row_of_each
from userrep.evaluation.tasks.rows import RowProblem, too_few_rows
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
        is_known_N = values.is_valid().to_numpy(zero_copy_only=False)
        rows = split_by_user(truth.rows)
        rows = replace(rows, role_N=np.where(is_known_N, rows.role_N, NO_ROLE).astype(np.int8))
        counts = pc.value_counts(values.filter(pa.array(rows.role_N != NO_ROLE)))
        if reason := too_few_values(attribute, len(counts)):
            return reason
        top = sorted(counts.to_pylist(), key=lambda count: (-count["counts"], count["values"]))[:_MAX_VALUES]
        is_value_KN = [pc.equal(values, kind["values"]).fill_null(False).to_numpy(zero_copy_only=False) for kind in top]
        labels_KN = [is_value_N for is_value_N in is_value_KN if too_few_rows(rows, is_value_N) is None]
        if not labels_KN:
            lacking = f"no value of {attribute} has {MIN_EXAMPLES} users with and {MIN_EXAMPLES} users without it"
            return LeftOut(f"{lacking} in each split")
        return RowProblem(rows, np.stack(labels_KN, axis=1).astype(np.float32), "auc")

    return Task(f"attribute_{attribute}", problem, is_drawn=False)


def split_by_user(rows: Rows) -> Rows:
    """Assign roles by user to the newest row of each user, and NO_ROLE to the other rows."""
    newest = np.flatnonzero(np.append(rows.user_N[1:] != rows.user_N[:-1], True))
    role_N = np.full(len(rows), NO_ROLE, np.int8)
    role_N[newest] = _PARTS[hash64(rows.user_ids, seed=_SEED) % len(_PARTS)]
    return replace(rows, role_N=role_N)


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
    by_user = rows.only_sampled(users).groupBy("user_id").agg(*largest).toArrow()
    sampled = row_of_each(rows.user_ids, by_user)
    return {name: as_categories(combined(sampled.column(name))) for name in names}
