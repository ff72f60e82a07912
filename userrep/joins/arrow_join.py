"""The point-in-time join of an Arrow table of labels; from the files of a root it needs no Spark.

It shares the resolution of label times (ledger.py), the look-up of vectors (read_vectors.py) and all messages with
``join_embeddings``, and returns the same rows. Shapes: N labels, K steps of the ledger.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from userrep.errors import UserrepError
from userrep.joins import ledger, statuses
from userrep.joins.ledger import Sources, Step
from userrep.joins.options import JoinOptions, outside_span, prepared, without_vector, wrong_width
from userrep.joins.read_vectors import NO_STEP, find_vectors, look_up
from userrep.spaces.snapshots import EXPIRED, Snapshot
from userrep.store.arrow import combined
from userrep.store.bucket_reader import BucketFiles
from userrep.store.file_tables import FileTables
from userrep.store.tables import Tables
from userrep.store.xxhash import bucket_of
from userrep.utc import DAY_US, EPOCH, day_number

_MOST_NUMBERS = 2**30  # of vectors that are joined at once; an array of Arrow has at most 2^31
_LABELS_AT_ONCE = 16_384  # whose vectors are in memory while a task writes them
_WIDEST = 4096  # numbers of a vector, if the ledger does not have their width


@dataclass(frozen=True)
class Resolved:
    """Labels with the number of the step of their time, NO_STEP for none, and whether its snapshot is too old then."""

    users: pa.Array
    times: pa.Array
    steps: list[Step]
    number_N: NDArray[np.int64]
    too_old_N: NDArray[np.bool_]

    @classmethod
    def of(cls, labels: pa.Table, sources: Sources, options: JoinOptions) -> "Resolved":
        steps = ledger.steps_of(sources.snapshots, options.availability)
        users, times = combined(labels[options.user].cast(pa.string())), combined(labels[options.time])
        at_N = times.cast(pa.int64()).fill_null(0).to_numpy()
        since_K = np.array([(step.since - EPOCH) // timedelta.resolution for step in steps], np.int64)
        number_N = np.where(times.is_null(), NO_STEP, np.searchsorted(since_K, at_N, side="right") - 1)
        as_of_K = np.array([day_number(snapshot.as_of) for _, snapshot in steps], np.int64)
        limit_us = math.inf if options.max_age_days is None else options.max_age_days * DAY_US
        return cls(users, times, steps, number_N, at_N - as_of_K[number_N] * DAY_US > limit_us)

    @property
    def looked_up_N(self) -> NDArray[np.int64]:
        """The number of the step whose snapshot may have the label's vector, NO_STEP for none."""
        return np.where(self.too_old_N | self.users.is_null().to_numpy(zero_copy_only=False), NO_STEP, self.number_N)

    def slice(self, start: int, num: int) -> "Resolved":
        """Return some consecutive labels."""
        part, users, times = slice(start, start + num), self.users.slice(start, num), self.times.slice(start, num)
        return replace(self, users=users, times=times, number_N=self.number_N[part], too_old_N=self.too_old_N[part])

    def take(self, order_N: NDArray[np.int64]) -> "Resolved":
        """Return the labels in another order."""
        users, times = (values.take(pa.array(order_N)) for values in (self.users, self.times))
        return replace(
            self, users=users, times=times, number_N=self.number_N[order_N], too_old_N=self.too_old_N[order_N]
        )

    @property
    def snapshots(self) -> list[Snapshot]:
        """The snapshots that labels resolve to."""
        return [self.steps[k].snapshot for k in np.unique(self.number_N) if k != NO_STEP]

    def status(self, vectors: pa.Array, options: JoinOptions) -> NDArray[np.str_]:
        """Return the status of each label, as ``with_outputs`` does."""
        of_steps = [statuses.IN_SAMPLE if snapshot.in_sample else statuses.FOUND for _, snapshot in self.steps]
        expired = [number for number, (_, snapshot) in enumerate(self.steps) if snapshot.state == EXPIRED]
        reasons = {
            statuses.NULL_USER: self.users.is_null(),
            statuses.NULL_TIME: self.times.is_null(),
            statuses.NO_SNAPSHOT_YET: self.number_N == NO_STEP,
            statuses.SNAPSHOT_EXPIRED: np.isin(self.number_N, expired),
            statuses.TOO_OLD: self.too_old_N,
            statuses.NEW_USER if options.missing == "new_user" else statuses.NOT_IN_SNAPSHOT: vectors.is_null(),
        }
        applies = [np.asarray(applies_N) for applies_N in reasons.values()]
        return np.select(applies, list(reasons), np.array(of_steps)[self.number_N])


@dataclass(frozen=True)
class StoredVectors:
    """The stored vectors of a join.

    files : the files of each step's snapshot, none if it has expired. dim : width of the vectors, None if it is not
        recorded. new_user : returns the encoder's vector of a user without any data, when a label needs it.
    """

    space_id: str
    dim: int | None
    files: Sequence[BucketFiles]
    new_user: Callable[[], NDArray[np.float32] | None]

    @classmethod
    def of(cls, tables: FileTables, sources: Sources, options: JoinOptions) -> "StoredVectors":
        snapshots = [snapshot for _, snapshot in ledger.steps_of(sources.snapshots, options.availability)]
        files = ledger.files_by_snapshot(tables, sources.version, snapshots)
        return cls(sources.space.space_id, sources.dim, files, partial(ledger.new_user_vector, tables, sources))


def join_table(labels: pa.Table, *, tables: Tables, sources: Sources, options: JoinOptions) -> pa.Table:
    """Return the rows and columns of ``join_sources``, in any order. Only catalogs and updates need Spark.

    ``labels`` have ``options.user`` (string) and ``options.time`` (timestamp in microseconds, UTC), and none of the
    columns that the join adds. ``options`` must not ask for Spark ML's vectors.

    Raises UsageError as ``join_sources``, and UserrepError if a label has no vector and ``options.handle_invalid``
    is "error", or a vector has another width than the space's. Cost without Spark: one pass over the row groups that
    may contain the labels' users, and a sort of the labels. Memory: the labels' vectors, twice, and two row groups per
    core.
    """
    if not isinstance(tables, FileTables) or options.updates:
        from userrep.joins.join import join_sources  # imports Spark

        rows = prepared(tables.spark.createDataFrame(labels), options)
        return join_sources(rows, tables, sources, options).toArrow()
    resolved = Resolved.of(labels, sources, options)
    ledger.report_in_sample(sources.space, resolved.snapshots, options)
    return joined_arrow(labels, resolved, StoredVectors.of(tables, sources, options), options)


def joined_arrow(labels: pa.Table, rows: Resolved, stored: StoredVectors, options: JoinOptions) -> pa.Table:
    """Join labels that are resolved on the same sources; see ``join_table``. Keeps their order."""
    most_labels = max(1, _MOST_NUMBERS // (stored.dim or _WIDEST))
    if labels.num_rows > most_labels:
        starts = range(0, labels.num_rows, most_labels)
        parts = ((labels.slice(k, most_labels), rows.slice(k, most_labels)) for k in starts)
        return pa.concat_tables([joined_arrow(*part, stored, options) for part in parts])
    return _with_outputs(labels, rows, find_vectors(rows.users, rows.looked_up_N, stored.files), stored, options)


def joined_in_order(
    labels: pa.Table, sources: Sources, stored: StoredVectors, options: JoinOptions
) -> Iterator[pa.Table]:
    """Join labels in the order of the snapshots' files, in tables of 16,384 labels; see ``join_table``.

    Memory: the labels, twice, the vectors of one table, and two row groups.

    Raises UserrepError if a label's time lies outside ``sources.span``.
    """
    rows = Resolved.of(labels, sources, options)
    if sources.span is not None:
        first, last = (pa.scalar(edge, pa.timestamp("us", "UTC")).cast(pa.int64()) for edge in sources.span)
        at = rows.times.cast(pa.int64())
        outside = rows.times.filter(pc.or_(pc.less(at, first), pc.greater(at, last)))
        if len(outside):
            raise UserrepError(outside_span(*sources.span, outside[0]))
    bucket_N = bucket_of(rows.users.fill_null(""))
    order_N = np.lexsort((bucket_N, rows.looked_up_N))
    labels, rows, bucket_N = labels.take(pa.array(order_N)), rows.take(order_N), bucket_N[order_N]
    starts = range(0, labels.num_rows, _LABELS_AT_ONCE)
    parts = [rows.slice(start, _LABELS_AT_ONCE) for start in starts]
    keys = (
        (part.users, pa.array(part.looked_up_N), pa.array(bucket_N[start : start + _LABELS_AT_ONCE]))
        for start, part in zip(starts, parts, strict=True)
    )
    for start, part, vectors in zip(starts, parts, look_up(stored.files)(keys), strict=True):
        yield _with_outputs(labels.slice(start, _LABELS_AT_ONCE), part, vectors, stored, options)


def _with_outputs(
    labels: pa.Table, rows: Resolved, vectors: pa.Array, stored: StoredVectors, options: JoinOptions
) -> pa.Table:
    """Add the output columns to labels with these stored vectors, and apply the rule for labels without one."""
    widths = pc.unique(pc.list_value_length(vectors)).drop_null().to_pylist()
    if stored.dim is not None and (wrong := [width for width in widths if width != stored.dim]):
        raise UserrepError(wrong_width(stored.space_id, stored.dim, wrong[0]))
    status_N = rows.status(vectors, options)
    if statuses.NEW_USER in status_N:
        z_D = pa.scalar(stored.new_user(), vectors.type)
        vectors = pc.if_else(pa.array(status_N == statuses.NEW_USER), z_D, vectors)
    if options.handle_invalid == "error" and vectors.null_count:
        raise UserrepError(without_vector(status_N[vectors.is_null()][0]))
    step = pa.array(rows.number_N, mask=rows.number_N == NO_STEP)
    ids, as_ofs = zip(*((snapshot.snapshot_id, snapshot.as_of) for _, snapshot in rows.steps), strict=True)
    added = pa.array(ids).take(step), pa.array(as_ofs).take(step), vectors, pa.array(status_N)
    for name, values in zip(options.added, added, strict=True):
        metadata = {statuses.SPACE_ID: stored.space_id} if name == options.output else None
        labels = labels.append_column(pa.field(name, values.type, metadata=metadata), values)
    return labels.filter(vectors.is_valid()) if options.skips else labels
