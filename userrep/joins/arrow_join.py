"""The point-in-time join of an Arrow table of labels, from the files of a root, without Spark.

It shares the resolution of label times (snapshot_at.py), the look-up of vectors (read_vectors.py) and all messages with
``join_embeddings``, and returns the same rows. Shapes: N labels.
"""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.errors import UserrepError
from userrep.joins.options import JoinOptions, without_vector
from userrep.joins.outputs import (
    FOUND,
    IN_SAMPLE,
    NEW_USER,
    NO_SNAPSHOT_YET,
    NOT_IN_SNAPSHOT,
    NULL_TIME,
    NULL_USER,
    SNAPSHOT_EXPIRED,
    SPACE_ID,
    TOO_OLD,
    wrong_width,
)
from userrep.joins.read_vectors import NO_STEP, find_vectors
from userrep.joins.snapshot_at import Step, steps_of
from userrep.joins.sources import (
    check_usable,
    dim_of,
    files_by_step,
    new_user_vector,
    report_in_sample,
    sources_of,
)
from userrep.spaces.registry import find_space
from userrep.spaces.snapshots import EXPIRED, PUBLISHED
from userrep.store.arrow import combined
from userrep.store.file_tables import FileTables
from userrep.store.schemas import USER_EMBEDDINGS
from userrep.utc import DAY_US, EPOCH, day_number


def join_arrow(
    labels: pa.Table,
    *,
    tables: FileTables,
    space: str = "serving",
    options: JoinOptions = JoinOptions(),  # noqa: B008  # frozen
) -> pa.Table:
    """Join labels with one space's embeddings as they were known at each label's time; see ``join_embeddings``.

    Near-real-time updates and Spark ML's vectors need Spark; ``options`` must not ask for them.

    Parameters
    ----------
    labels : with ``options.user`` (string) and ``options.time`` (timestamp in microseconds, UTC), and none of the
        columns that the join adds.

    Returns
    -------
    The rows and columns of ``join_embeddings``, in the order of the labels. Cost: one pass over the row groups that may
    contain the labels' users, and a sort of the labels. Memory: the labels' vectors, twice, and two row groups.

    Raises
    ------
    UsageError
        As in ``join_embeddings``.
    UserrepError
        If a label has no vector and ``options.handle_invalid`` is "error", or a vector has another width than the
        space's.
    """
    source = find_space(tables, space)
    check_usable(tables, source)
    sources = sources_of(tables, source)
    steps = steps_of(sources.snapshots, options.availability)
    rows = _resolved(labels, steps, options)
    used = [steps[k].snapshot for k in np.unique(rows.number_N) if k != NO_STEP]
    if in_sample := [s.as_of for s in used if s.in_sample and s.state == PUBLISHED]:
        report_in_sample(source, in_sample[0], options)
    vectors = find_vectors(
        rows.users,
        np.where(rows.reason_N == "", rows.number_N, NO_STEP),
        files_by_step(tables, sources, steps),
        folder=tables.uri(USER_EMBEDDINGS),
    )
    _check_width(vectors, source.space_id, dim_of(steps))
    status_N = _status(rows, steps, vectors, options)
    if NEW_USER in status_N:
        z_D = pa.scalar(new_user_vector(tables, source), vectors.type)
        vectors = pc.if_else(pa.array(status_N == NEW_USER), z_D, vectors)
    if options.handle_invalid == "error" and vectors.null_count:
        raise UserrepError(without_vector(status_N[vectors.is_null()][0]))
    step = pa.array(rows.number_N, mask=rows.number_N == NO_STEP)
    ids, as_ofs = zip(*((snapshot.snapshot_id, snapshot.as_of) for _, snapshot in steps), strict=True)
    added = pa.array(ids).take(step), pa.array(as_ofs).take(step), vectors, pa.array(status_N)
    fields = [pa.field(name, values.type) for name, values in zip(options.added, added, strict=True)]
    fields[2] = fields[2].with_metadata({SPACE_ID: source.space_id})
    output = pa.table([*labels.columns, *added], schema=pa.schema([*labels.schema, *fields]))
    return output.filter(vectors.is_valid()) if options.skips else output


class _Resolved(NamedTuple):
    """Labels with the step of their time, and the reason for which no vector is looked up, or an empty text."""

    users: pa.Array
    number_N: NDArray[np.int64]
    reason_N: NDArray[np.str_]


def _resolved(labels: pa.Table, steps: Sequence[Step], options: JoinOptions) -> _Resolved:
    users, times = combined(labels[options.user]), combined(labels[options.time])
    has_user_N, has_time_N = (column.is_valid().to_numpy(zero_copy_only=False) for column in (users, times))
    at_N = times.cast(pa.int64()).fill_null(0).to_numpy()
    since_K = np.array([(step.since - EPOCH) // timedelta.resolution for step in steps], np.int64)
    number_N = np.where(has_time_N, np.searchsorted(since_K, at_N, side="right") - 1, NO_STEP)
    expired = [k for k, (_, snapshot) in enumerate(steps) if snapshot.state == EXPIRED]
    as_of_K = np.array([day_number(snapshot.as_of) for _, snapshot in steps], np.int64)
    limit_us = math.inf if options.max_age_days is None else options.max_age_days * DAY_US
    reasons = {
        NULL_USER: ~has_user_N,
        NULL_TIME: ~has_time_N,
        NO_SNAPSHOT_YET: number_N == NO_STEP,
        SNAPSHOT_EXPIRED: np.isin(number_N, expired),
        TOO_OLD: at_N - as_of_K[number_N] * DAY_US > limit_us,
    }
    return _Resolved(users, number_N, np.select(list(reasons.values()), list(reasons), ""))


def _check_width(vectors: pa.Array, space_id: str, dim: int | None) -> None:
    lengths = pc.unique(pc.list_value_length(vectors.drop_null())).to_pylist()
    if wrong := [length for length in lengths if length != dim and dim is not None]:
        assert dim is not None
        raise UserrepError(wrong_width(space_id, dim, wrong[0]))


def _status(rows: _Resolved, steps: Sequence[Step], vectors: pa.Array, options: JoinOptions) -> NDArray[np.str_]:
    """Return the status of each label, as ``outputs.with_outputs`` does."""
    in_sample = [k for k, (_, snapshot) in enumerate(steps) if snapshot.in_sample]
    found_N = np.where(np.isin(rows.number_N, in_sample), IN_SAMPLE, FOUND)
    missing = NEW_USER if options.missing == "new_user" else NOT_IN_SNAPSHOT
    has_vector_N = vectors.is_valid().to_numpy(zero_copy_only=False)
    return np.where(rows.reason_N == "", np.where(has_vector_N, found_N, missing), rows.reason_N)
