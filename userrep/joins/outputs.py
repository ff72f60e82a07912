"""Output columns of a join: the vector, its snapshot and as-of date, and a status."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from userrep.joins import statuses
from userrep.joins.options import JoinOptions, column, midnight, without_vector, wrong_width
from userrep.spaces.mapping import LinearMap, mapped
from userrep.spaces.snapshots import EXPIRED


def with_outputs(
    rows: DataFrame, options: JoinOptions, *, kept: Sequence[str], space_id: str, dim: int | None,
    new_user: NDArray[np.float32] | None, into: tuple[str, LinearMap] | None,
) -> DataFrame:  # fmt: skip
    """Replace the intermediate columns of a join by its output columns.

    These are snapshot_id (null before the first snapshot and for an update), as_of, the vector, whose metadata has the
    space id, and its status.

    Parameters
    ----------
    rows : labels with their snapshot (__snapshot_id, __as_of, __state, __in_sample), its __embedding, and with updates
        __update. kept : the labels' own columns. dim : number of dimensions of the space's vectors; a vector of another
        width fails the job. None to skip the check. new_user : the vector for users that are not in the snapshot, if
        any. into : id of the space that vectors are mapped into, and the map, if any.
    """
    rows = rows.withColumn("__status", _status(options))
    status = F.col("__status")
    vector = F.when(status.isin(statuses.FOUND, statuses.IN_SAMPLE), F.col("__embedding"))
    snapshot_id, as_of = F.col("__snapshot_id"), F.col("__as_of")
    if options.updates:
        vector = vector.when(status == statuses.UPDATE, F.col("__update.embedding"))
        snapshot_id = F.when(status != statuses.UPDATE, snapshot_id)
        as_of = F.when(status == statuses.UPDATE, F.col("__update.as_of")).otherwise(as_of)
    if new_user is not None:
        vector = vector.when(status == statuses.NEW_USER, F.lit(new_user))
    vector, metadata = _of_width(vector, space_id, dim), {statuses.SPACE_ID: space_id}
    if into is not None:
        vector, metadata = mapped(vector, into[1]), {statuses.SPACE_ID: into[0], statuses.MAPPED_FROM: space_id}
    vector = as_vectors(vector, options, metadata)
    output = rows.select(
        *map(column, kept), snapshot_id.alias("snapshot_id"), as_of.alias("as_of"), vector, status.alias(options.status)
    )
    return by_rule(output, options)


def by_rule(rows: DataFrame, options: JoinOptions) -> DataFrame:
    """Apply the rule for rows without a vector: leave them out, fail the job on them, or keep them."""
    has_vector = column(options.output).isNotNull()
    if options.handle_invalid == "error":
        status = column(options.status) if options.status in rows.columns else F.lit("unknown")
        fault = F.raise_error(F.format_string(without_vector("%s"), status))
        return rows.where(F.when(has_vector, F.lit(True)).otherwise(fault.cast("boolean")))
    return rows.where(has_vector) if options.skips else rows


def as_vectors(vector: Column, options: JoinOptions, metadata: dict[str, str]) -> Column:
    """Convert array<float> to the type and name of the output column, with this metadata."""
    if options.vectors == "vector":
        vector = F.when(vector.isNotNull(), array_to_vector(vector))
    return vector.alias(options.output, metadata=metadata)


def _status(options: JoinOptions) -> Column:
    status = F.when(column(options.user).isNull(), statuses.NULL_USER)
    status = status.when(column(options.time).isNull(), statuses.NULL_TIME)
    if options.updates:
        as_of = F.col("__update.as_of")
        is_later = F.col("__as_of").isNull() | (as_of > F.col("__as_of"))
        status = status.when(as_of.isNotNull() & is_later & ~_too_old(as_of, options), statuses.UPDATE)
    unknown = statuses.NEW_USER if options.missing == "new_user" else statuses.NOT_IN_SNAPSHOT
    return (
        status.when(F.col("__state").isNull(), statuses.NO_SNAPSHOT_YET)
        .when(F.col("__state") == EXPIRED, statuses.SNAPSHOT_EXPIRED)
        .when(_too_old(F.col("__as_of"), options), statuses.TOO_OLD)
        .when(F.col("__embedding").isNull(), unknown)
        .otherwise(F.when(F.col("__in_sample"), statuses.IN_SAMPLE).otherwise(statuses.FOUND))
    )


def _too_old(as_of: Column, options: JoinOptions) -> Column:
    if options.max_age_days is None:
        return F.lit(False)
    return column(options.time) > midnight(F.date_add(as_of, options.max_age_days))


def _of_width(vector: Column, space_id: str, dim: int | None) -> Column:
    if dim is None:
        return vector
    fault = F.raise_error(F.format_string(wrong_width(space_id, dim, "%s"), F.size(vector)))
    return F.when(vector.isNull() | (F.size(vector) == dim), vector).otherwise(fault.cast("array<float>"))
