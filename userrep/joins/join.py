"""Point-in-time joins: to each label the embedding that a consumer could have had at its time."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.errors import UsageError
from userrep.inference.model import EmbeddingModel
from userrep.joins.lookup import with_vectors
from userrep.joins.options import InSampleWarning, JoinOptions, check_labels
from userrep.joins.outputs import with_outputs
from userrep.joins.resolution import Step, column, steps_of, with_snapshot
from userrep.joins.updates import with_update
from userrep.spaces.map_artifact import load_map
from userrep.spaces.registry import RETIRED, Space, find_space, read_registry
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, Snapshot, list_snapshots
from userrep.spark.session import shuffle_partitions
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES, USER_EMBEDDINGS
from userrep.store.sql import sql_in
from userrep.store.table_files import TableFile
from userrep.store.tables import Tables


@dataclass(frozen=True)
class Sources:
    """What labels are joined with: snapshots of one space's ledger, and the version of the table that holds them.

    coordinates : an earlier space that vectors are mapped into. span : the first and last time that labels may have;
    others fail the job. updates_until : later updates don't count.
    """

    space: Space
    snapshots: Sequence[Snapshot]
    version: int
    coordinates: Space | None = None
    span: tuple[datetime, datetime] | None = None
    updates_until: datetime | None = None


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
    its time. Times are resolved on the ledger, which is small; then there is one equi-join by user and snapshot.

    With ``options.updates``, the vector of ``embedding_updates`` with the newest as-of date, then ``computed_at``,
    among those computed at or before the label's time goes before the snapshot where its as-of date is later than the
    snapshot's. Of one as-of date the snapshot is the newer: an update of it was computed during the day before and has
    seen events so far, the snapshot has seen that whole day. A snapshot is complete: it takes the place of all
    updates up to its as-of date, for users whom it leaves out as well.

    Parameters
    ----------
    labels : any columns, among them ``options.user`` (string) and ``options.time`` (timestamp, UTC). Nulls and repeats
        are kept.
    space : an id, or the space that serves.
    coordinates : an earlier space, retired or not: the vectors are mapped into its coordinates, for a model that was
        trained on it. `userrep spaces diff` fits the map and says what it loses.

    Returns
    -------
    The labels with snapshot_id (that counts at the label's time; null before the first, and with an update), as_of (of
    the vector or snapshot), the vector (with the space's id in the column's metadata) and its status:
    found, in_sample (of a date before the space's ``trained_until``), update, new_user, or, with a null,
    not_in_snapshot, no_snapshot_yet, too_old, expired (by retention), null_user, null_time. Lazy, but for reads of
    ledgers and, where in-sample snapshots are published, a search of the labels' times for one of them.
    Cost: one shuffle of the labels, and one pass over the vectors of their users, read from the tables' files; in a
    catalog, one shuffle of labels and of all snapshots that can count. With updates one more of labels and updates.

    Raises
    ------
    UsageError
        If columns are not of these types, the session is not in UTC, the space is unknown, retired or has no published
        snapshot, there is no such map, or labels are in-sample and ``options.in_sample`` refuses them. A vector of
        another width than the space's fails the job.
    """
    check_labels(labels, options)
    found = space if isinstance(space, Space) else find_space(tables, space)
    check_usable(tables, found)
    if isinstance(coordinates, str):
        coordinates = find_space(tables, coordinates)
    if coordinates == found:
        coordinates = None
    sources = replace(sources_of(tables, found), coordinates=coordinates)
    _check_in_sample(labels, sources, options)
    return joined(labels, tables, sources, options)


def tell_in_sample(space: Space, as_of: date, options: JoinOptions) -> None:
    """Warn of a label that resolves to an in-sample snapshot, of this date, or refuse it, as the options say."""
    said = (
        f"labels get vectors of {as_of}, before space {space.space_id} was trained (on events until "
        f"{space.trained_until}): its encoder has seen what came after them, and a model that is trained on them will "
        f"do worse than it seems. Take labels from {space.trained_until} on, or those whose status is not in_sample."
    )
    if options.in_sample == "refuse":
        raise UsageError(said)
    warnings.warn(said, InSampleWarning, stacklevel=3)


def _check_in_sample(labels: DataFrame, sources: Sources, options: JoinOptions) -> None:
    """Look for a label that resolves to an in-sample snapshot. Cost: nothing where the space has none."""
    steps = steps_of(sources.snapshots, options.availability)
    if not any(step.snapshot.in_sample and step.snapshot.state == PUBLISHED for step in steps):
        return
    times = with_snapshot(labels.select(column(options.time)), steps, time=options.time)
    found = times.where(F.col("__in_sample") & (F.col("__state") == PUBLISHED)).select("__as_of").first()
    if found is not None:
        tell_in_sample(sources.space, found["__as_of"], options)


def check_usable(tables: Tables, space: Space) -> None:
    """Refuse a space that is retired. Raises UsageError, which names the one that serves."""
    if space.state == RETIRED:
        serving = read_registry(tables).serving
        raise UsageError(
            f"space {space.space_id} is retired, its vectors are no longer made; "
            f"the space that serves: {serving.space_id if serving else 'none'}. "
            "Join with that one, and train anew what was trained on this one."
        )


def sources_of(tables: Tables, space: Space) -> Sources:
    """Read a space's ledger, with expired snapshots, and a version of its rows that holds all published ones.

    Raises UsageError if nothing has been published.
    """
    before = None
    while True:
        version = tables.version(USER_EMBEDDINGS)
        snapshots = list_snapshots(tables, space.space_id, states=(PUBLISHED, EXPIRED))
        if snapshots == before:
            break  # rows come before their publication and go after their expiry: they are in this version
        before = snapshots
    if not any(snapshot.state == PUBLISHED for snapshot in snapshots):
        raise UsageError(
            f"space {space.space_id} has no published snapshot to join with: `userrep pipeline` makes one."
        )
    return Sources(space, snapshots, version)


def joined(labels: DataFrame, tables: Tables, sources: Sources, options: JoinOptions) -> DataFrame:
    """Join checked labels with these sources; see ``join_embeddings``."""
    space, steps = sources.space, steps_of(sources.snapshots, options.availability)
    rows = with_snapshot(_within(labels, options, sources.span), steps, time=options.time)
    mine = f"space_id = '{space.space_id}'"
    if options.updates:
        updates = tables.read(EMBEDDING_UPDATES).where(mine)
        if sources.updates_until is not None:
            updates = updates.where(F.col("computed_at") <= F.lit(sources.updates_until.replace(tzinfo=UTC)))
        rows = with_update(rows, updates, options)
    if isinstance(tables, FileTables):
        rows = _read_vectors(rows, tables, sources, steps, options)
    else:
        rows = _join_vectors(rows, tables, sources, steps, options)
    new_user = None
    if options.missing == "new_user":
        folder = f"{tables.artifacts_root}/{space.artifact}"
        new_user = EmbeddingModel.load(folder, space.content_hash).predict({})
    dim = max((step.snapshot.dim for step in steps if step.snapshot.dim is not None), default=None)
    into = None
    if sources.coordinates is not None:
        newest = find_space(tables, space.space_id)  # the caller's may be older than the map
        into = (sources.coordinates.space_id, load_map(tables, newest, sources.coordinates)[1])
    return with_outputs(rows, options, space_id=space.space_id, dim=dim, new_user=new_user, into=into)


def _read_vectors(
    rows: DataFrame, tables: FileTables, sources: Sources, steps: Sequence[Step], options: JoinOptions
) -> DataFrame:
    """Add __embedding by reading the files of vectors where labels need them."""
    place = {(s.as_of, s.revision): k for k, (_, s) in enumerate(steps) if s.state == PUBLISHED}
    snapshots: list[list[TableFile]] = [[] for _ in steps]

    def counts(of: dict[str, Any]) -> bool:
        return of["space_id"] == sources.space.space_id and (of["as_of"], of["revision"]) in place

    for file in tables.files(USER_EMBEDDINGS, counts, version=sources.version):
        snapshots[place[file.values["as_of"], file.values["revision"]]].append(file)
    return with_vectors(
        rows,
        snapshots,
        folder=tables.uri(USER_EMBEDDINGS),
        user=options.user,
        time=options.time,
        min_tasks=shuffle_partitions(tables.spark),
    )


def _join_vectors(
    rows: DataFrame, tables: Tables, sources: Sources, steps: Sequence[Step], options: JoinOptions
) -> DataFrame:
    """Add __embedding by Spark's join of all vectors that can count: one shuffle of both sides."""
    published = [snapshot for _, snapshot in steps if snapshot.state == PUBLISHED]
    mine = f"space_id = '{sources.space.space_id}' AND ({_partitions(published)})"
    names = {"user_id": "__user", "as_of": "__of_date", "revision": "__of_revision", "embedding": "__embedding"}
    vectors = tables.read(USER_EMBEDDINGS, version=sources.version).where(mine)
    vectors = vectors.select(*(F.col(name).alias(new) for name, new in names.items()))
    same = (
        (column(options.user) == F.col("__user"))
        & (F.col("__as_of") == F.col("__of_date"))
        & (F.col("__revision") == F.col("__of_revision"))
    )
    # The labels are hashed: they are narrow, and the vectors need no sort then.
    return rows.hint("shuffle_hash").join(vectors, on=same, how="left")


def _within(labels: DataFrame, options: JoinOptions, span: tuple[datetime, datetime] | None) -> DataFrame:
    """Let a label whose time lies outside of ``span`` fail the job."""
    if span is None:
        return labels
    at, (first, last) = column(options.time), (F.lit(edge.replace(tzinfo=UTC)) for edge in span)
    fault = F.raise_error(
        F.concat(
            F.lit(f"labels: a time outside of {span[0]} to {span[1]} UTC, when the training set's labels were: "),
            at.cast("string"),
            F.lit(". Give the labels that it was made of, or create another training set."),
        )
    )
    same = F.when(at.isNull() | at.between(first, last), at).otherwise(fault.cast("timestamp"))
    return labels.select(
        *(same.alias(name) if name == options.time else column(name).alias(name) for name in labels.columns)
    )


def _partitions(snapshots: Sequence[Snapshot]) -> str:
    """Select the partitions of some snapshots."""
    dates: dict[int, list[date]] = {}
    for snapshot in snapshots:
        dates.setdefault(snapshot.revision, []).append(snapshot.as_of)
    return (
        " OR ".join(f"(revision = {n} AND {sql_in('as_of', sorted(of))})" for n, of in sorted(dates.items())) or "false"
    )
