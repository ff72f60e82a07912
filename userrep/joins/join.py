"""Point-in-time joins: add to each label the embedding that a consumer could have had at the label's time."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.joins.options import JoinOptions, check_labels
from userrep.joins.outputs import with_outputs
from userrep.joins.read_vectors import with_vectors
from userrep.joins.snapshot_at import Step, column, steps_of, with_snapshot
from userrep.joins.sources import (
    Sources,
    check_usable,
    dim_of,
    files_by_step,
    new_user_vector,
    report_in_sample,
    sources_of,
)
from userrep.joins.updates import with_update
from userrep.spaces.map_artifact import load_map
from userrep.spaces.registry import Space, find_space
from userrep.spaces.snapshots import PUBLISHED, Snapshot
from userrep.spark.session import shuffle_partitions
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES, USER_EMBEDDINGS
from userrep.store.sql import sql_in
from userrep.store.tables import Tables


def join_embeddings(
    labels: DataFrame,
    *,
    tables: Tables,
    space: Space | str = "serving",
    coordinates: Space | str | None = None,
    options: JoinOptions = JoinOptions(),  # noqa: B008  # frozen
) -> DataFrame:
    """Join labels with one space's embeddings as they were known at each label's time.

    A label gets the snapshot with the newest as-of date, then revision, among those with ``available_at`` at or before
    its time. Label times are resolved on the ledger, which is small; then one equi-join by user and snapshot follows.

    With ``options.updates``, rows of ``embedding_updates`` are candidates too: of the user's updates computed at or
    before the label's time, the one with the newest as-of date, then event, is used if its as-of date is later than
    the snapshot's. For the same as-of date the snapshot is newer: it has seen the whole day before, an update only part
    of it. A snapshot replaces all updates up to its as-of date, also for users that it does not contain.

    Parameters
    ----------
    labels : any columns, including ``options.user`` (string) and ``options.time`` (timestamp, UTC). Nulls and
        duplicates are kept.
    space : a space id, or "serving".
    coordinates : an earlier space, retired or not, into whose coordinates the vectors are mapped, for a model that was
        trained on it. `userrep spaces diff` fits the map and reports what it loses.

    Returns
    -------
    Every label once (with ``options.missing`` "drop", only labels with a vector), with snapshot_id (null before the
    first snapshot and for an update), as_of, the vector (the column's metadata has the space id), and its status.
    Statuses with a vector: found, in_sample (as-of date before the space's ``trained_until``), update, new_user.
    Statuses with a null: not_in_snapshot, no_snapshot_yet, too_old, expired (by retention), null_user, null_time.
    Lazy, except for ledger reads and, if in-sample snapshots are published, a search of the label times for one.
    Cost: one shuffle of the labels and one pass over the vectors of their users, read from the tables' files; in a
    catalog, one shuffle of the labels and of all usable snapshots. Updates add a shuffle of labels and updates.

    Raises
    ------
    UsageError
        If columns have other types, the session is not in UTC, the space is unknown, retired or has no published
        snapshot, no map to ``coordinates`` exists, or labels are in-sample and ``options.in_sample`` is "refuse". A
        vector of another width than the space's fails the job.
    """
    check_labels(labels, options)
    source = space if isinstance(space, Space) else find_space(tables, space)
    check_usable(tables, source)
    if isinstance(coordinates, str):
        coordinates = find_space(tables, coordinates)
    if coordinates == source:
        coordinates = None
    sources = replace(sources_of(tables, source), coordinates=coordinates)
    _check_in_sample(labels, sources, options)
    return joined(labels, tables, sources, options)


def _check_in_sample(labels: DataFrame, sources: Sources, options: JoinOptions) -> None:
    """Report labels that resolve to an in-sample snapshot. Cost: none if the space has no such snapshot."""
    steps = steps_of(sources.snapshots, options.availability)
    if not any(step.snapshot.in_sample and step.snapshot.state == PUBLISHED for step in steps):
        return
    times = with_snapshot(labels.select(column(options.time)), steps, time=options.time)
    in_sample = times.where(F.col("__in_sample") & (F.col("__state") == PUBLISHED)).select("__as_of").first()
    if in_sample is not None:
        report_in_sample(sources.space, in_sample["__as_of"], options)


def joined(labels: DataFrame, tables: Tables, sources: Sources, options: JoinOptions) -> DataFrame:
    """Join labels that passed ``check_labels`` with these sources; see ``join_embeddings``."""
    space, steps = sources.space, steps_of(sources.snapshots, options.availability)
    rows = with_snapshot(_within(labels, options, sources.span), steps, time=options.time)
    if options.updates:
        updates = tables.read(EMBEDDING_UPDATES).where(f"space_id = '{space.space_id}'")
        if sources.updates_until is not None:
            updates = updates.where(F.col("computed_at") <= F.lit(sources.updates_until.replace(tzinfo=UTC)))
        rows = with_update(rows, updates, options)
    if isinstance(tables, FileTables):
        rows = _read_vectors(rows, tables, sources, steps, options)
    else:
        rows = _join_vectors(rows, tables, sources, steps, options)
    new_user = new_user_vector(tables, space) if options.missing == "new_user" else None
    dim = dim_of(steps)
    into = None
    if sources.coordinates is not None:
        newest = find_space(tables, space.space_id)  # the caller may have read the space before the map was fitted
        into = (sources.coordinates.space_id, load_map(tables, newest, sources.coordinates)[1])
    return with_outputs(rows, options, space_id=space.space_id, dim=dim, new_user=new_user, into=into)


def _read_vectors(
    rows: DataFrame, tables: FileTables, sources: Sources, steps: Sequence[Step], options: JoinOptions
) -> DataFrame:
    """Add __embedding by reading the files that have vectors of the labels' users."""
    return with_vectors(
        rows,
        files_by_step(tables, sources, steps),
        folder=tables.uri(USER_EMBEDDINGS),
        user=options.user,
        time=options.time,
        min_tasks=shuffle_partitions(tables.spark),
    )


def _join_vectors(
    rows: DataFrame, tables: Tables, sources: Sources, steps: Sequence[Step], options: JoinOptions
) -> DataFrame:
    """Add __embedding with a Spark join of labels and all usable vectors: one shuffle of both inputs."""
    published = [snapshot for _, snapshot in steps if snapshot.state == PUBLISHED]
    where = f"space_id = '{sources.space.space_id}' AND ({_partitions(published)})"
    names = {
        "user_id": "__user",
        "as_of": "__vector_as_of",
        "revision": "__vector_revision",
        "embedding": "__embedding",
    }
    vectors = tables.read(USER_EMBEDDINGS, version=sources.version).where(where)
    vectors = vectors.select(*(F.col(name).alias(new) for name, new in names.items()))
    same = (
        (column(options.user) == F.col("__user"))
        & (F.col("__as_of") == F.col("__vector_as_of"))
        & (F.col("__revision") == F.col("__vector_revision"))
    )
    # Build the hash table from the labels: they are narrow, and the vectors then need no sort.
    return rows.hint("shuffle_hash").join(vectors, on=same, how="left")


def _within(labels: DataFrame, options: JoinOptions, span: tuple[datetime, datetime] | None) -> DataFrame:
    """Fail the job on a label whose time lies outside ``span``."""
    if span is None:
        return labels
    at, (first, last) = column(options.time), (F.lit(edge.replace(tzinfo=UTC)) for edge in span)
    fault = F.raise_error(
        F.concat(
            F.lit(f"labels: a time outside the training set's span, {span[0]} to {span[1]} UTC, got "),
            at.cast("string"),
            F.lit(". Use the labels that the training set was created from, or create another training set."),
        )
    )
    checked = F.when(at.isNull() | at.between(first, last), at).otherwise(fault.cast("timestamp"))
    return labels.select(
        *(checked.alias(name) if name == options.time else column(name).alias(name) for name in labels.columns)
    )


def _partitions(snapshots: Sequence[Snapshot]) -> str:
    """Return the SQL predicate of the partitions of some snapshots; "false" for none."""
    dates_by_revision: dict[int, list[date]] = {}
    for snapshot in snapshots:
        dates_by_revision.setdefault(snapshot.revision, []).append(snapshot.as_of)
    revisions = sorted(dates_by_revision.items())
    return " OR ".join(f"(revision = {n} AND {sql_in('as_of', sorted(dates))})" for n, dates in revisions) or "false"
