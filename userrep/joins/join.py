"""Point-in-time joins: add to each label the embedding that a consumer could have had at the label's time.

Label times are resolved on the ledger of snapshots, which is small (ledger.py). One equi-join by user and snapshot
follows: a look-up in the snapshots' files (read_vectors.py), or a join by Spark in a catalog. Rows of
``embedding_updates``, if asked for, need an as-of join by union and sort.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from userrep.joins import ledger
from userrep.joins.ledger import Sources, Step
from userrep.joins.options import JoinOptions, column, midnight, outside_span, prepared
from userrep.joins.outputs import with_outputs
from userrep.joins.read_vectors import with_vectors
from userrep.spaces.mapping import load_map
from userrep.spaces.registry import Space, find_space
from userrep.spaces.snapshots import PUBLISHED
from userrep.spark.session import shuffle_partitions
from userrep.store.file_tables import FileTables
from userrep.store.schemas import EMBEDDING_UPDATES, USER_EMBEDDINGS
from userrep.store.tables import Tables


def join_embeddings(
    labels: DataFrame,
    *,
    tables: Tables,
    space: Space | str = "serving",
    coordinates: str | None = None,
    options: JoinOptions = JoinOptions(),  # noqa: B008  # frozen
) -> DataFrame:
    """Join labels with one space's embeddings as they were known at each label's time.

    A label gets the snapshot with the newest as-of date, then revision, among those with ``available_at`` at or before
    its time. With ``options.updates``, it gets the newest row of ``embedding_updates`` instead (see ``with_update``) if
    that has a later as-of date. For the same date the snapshot is newer: it has seen the whole day before, an update
    only part of it. A snapshot replaces all updates up to its as-of date, also for users that it does not contain.

    ``labels``: any columns, including ``options.user`` (string) and ``options.time`` (timestamp); ``prepared`` casts
    other types. Nulls and duplicates are kept. ``coordinates``: an earlier space, retired or not, into whose
    coordinates the vectors are mapped, for a model that was trained on it. `userrep spaces diff` fits the map and
    reports what it loses.

    Returns every label once (with ``handle_invalid="skip"`` or ``missing="drop"``, only labels with a vector), with
    snapshot_id (null before the first snapshot and for an update), as_of, the vector (the column's metadata has the
    space id), and its status (joins/statuses.py). Lazy, except for ledger reads and, if in-sample snapshots are
    published, a search of the label times for one. Cost: one shuffle of the labels and one pass over the vectors of
    their users; in a catalog, one shuffle of the labels and of all usable snapshots. Updates add a shuffle of both.

    Raises UsageError if columns have other types, the space is unknown, retired or has no
    published snapshot, no map to ``coordinates`` exists, or labels are in-sample and ``options.in_sample`` is "refuse".
    A vector of another width than the space's fails the job.
    """
    labels = prepared(labels, options)
    sources = ledger.usable_sources(tables, space)
    if coordinates not in (None, sources.space.space_id):
        sources = replace(sources, coordinates=find_space(tables, coordinates))
    return join_sources(labels, tables, sources, options)


def join_sources(labels: DataFrame, tables: Tables, sources: Sources, options: JoinOptions) -> DataFrame:
    """Join labels from ``prepared`` with these sources; see ``join_embeddings``."""
    _check_in_sample(labels, sources, options)
    return joined(labels, tables, sources, options)


def _check_in_sample(labels: DataFrame, sources: Sources, options: JoinOptions) -> None:
    """Report labels that resolve to an in-sample snapshot. Cost: none if the space has no such snapshot."""
    steps = ledger.steps_of(sources.snapshots, options.availability)
    if in_sample := [number for number, step in enumerate(steps) if ledger.is_in_sample(step.snapshot)]:
        times = ledger.with_snapshot(labels.select(column(options.time)), steps, time=options.time)
        rows = times.where(F.col("__number").isin(in_sample)).select("__number").take(1)
        ledger.report_in_sample(sources.space, [steps[row["__number"]].snapshot for row in rows], options)


def joined(labels: DataFrame, tables: Tables, sources: Sources, options: JoinOptions) -> DataFrame:
    """Join labels from ``prepared`` with these sources; see ``join_embeddings``."""
    space, steps = sources.space, ledger.steps_of(sources.snapshots, options.availability)
    rows = ledger.with_snapshot(_within(labels, options, sources.span), steps, time=options.time)
    if options.updates:
        updates = tables.read(EMBEDDING_UPDATES, [{"space_id": space.space_id}])
        if sources.updates_until is not None:
            updates = updates.where(F.col("computed_at") <= F.lit(sources.updates_until.replace(tzinfo=UTC)))
        rows = with_update(rows, updates, options)
    if isinstance(tables, FileTables):
        rows = with_vectors(
            rows,
            ledger.files_by_snapshot(tables, sources.version, [snapshot for _, snapshot in steps]),
            user=options.user,
            time=options.time,
            min_tasks=shuffle_partitions(tables.spark),
        )
    else:
        rows = _join_vectors(rows, tables, sources.version, steps, options)
    return with_outputs(
        rows,
        options,
        kept=labels.columns,
        space_id=space.space_id,
        dim=sources.dim,
        new_user=ledger.new_user_vector(tables, sources) if options.missing == "new_user" else None,
        into=(to.space_id, load_map(tables, space, to)) if (to := sources.coordinates) is not None else None,
    )


def _join_vectors(
    rows: DataFrame, tables: Tables, version: int, steps: Sequence[Step], options: JoinOptions
) -> DataFrame:
    """Add __embedding with a Spark join of labels and all usable vectors: one shuffle of both inputs."""
    published = [snapshot.key for _, snapshot in steps if snapshot.state == PUBLISHED]
    vectors = tables.read(USER_EMBEDDINGS, published, version=version)
    vectors = vectors.selectExpr(
        "user_id AS __user", "as_of AS __as_of", "revision AS __revision", "embedding AS __embedding"
    )
    rows = rows.withColumn("__user", column(options.user))
    # Build the hash table from the labels: they are narrow, and the vectors then need no sort.
    return rows.hint("shuffle_hash").join(vectors, on=["__user", "__as_of", "__revision"], how="left")


def with_update(labels: DataFrame, updates: DataFrame, options: JoinOptions) -> DataFrame:
    """Add __update, the user's newest update at each label's time: as_of, event_at, computed_at, embedding.

    An update can be used from ``computed_at`` on (with ``availability="as_of"``, from its as-of date on). The newest
    update has the latest as-of date, then the latest event, then the latest ``computed_at``. The event comes before
    ``computed_at`` because a stream that restarts a day computes vectors of early events again, and these must not
    replace a vector that has seen later events.

    Parameters
    ----------
    updates : rows of ``embedding_updates`` of one space.

    Returns
    -------
    Every label once; __update is null if the user has no update by then, or the user or time is null. Cost: one shuffle
    of labels and updates by user, and a sort.
    """
    usable_at = F.col("computed_at") if options.availability == "ledger" else midnight(F.col("as_of"))
    right = updates.select(
        F.lit(None).cast(labels.schema).alias("__label"),
        F.col("user_id").alias("__user"),
        usable_at.alias("__at"),
        F.lit(0).alias("__is_label"),
        F.struct("as_of", "event_at", "computed_at", "embedding").alias("__update"),
    ).where("__user IS NOT NULL AND __at IS NOT NULL AND __update.embedding IS NOT NULL")
    left = labels.select(
        F.struct(*(column(name) for name in labels.columns)).alias("__label"),
        column(options.user).alias("__user"),
        column(options.time).alias("__at"),
        F.lit(1).alias("__is_label"),
        F.lit(None).cast(right.schema["__update"].dataType).alias("__update"),
    )
    # Labels without a user have no update; spread them over all tasks.
    salt = F.when(F.col("__user").isNull(), F.xxhash64("__at"))
    so_far = Window.partitionBy("__user", salt).orderBy("__at", "__is_label").rowsBetween(Window.unboundedPreceding, 0)
    newest = left.unionByName(right).withColumn("__update", F.max("__update").over(so_far))
    return newest.where("__is_label = 1").select("__label.*", "__update")


def _within(labels: DataFrame, options: JoinOptions, span: tuple[datetime, datetime] | None) -> DataFrame:
    """Fail the job on a label whose time lies outside ``span``."""
    if span is None:
        return labels
    at, (first, last) = column(options.time), (F.lit(edge.replace(tzinfo=UTC)) for edge in span)
    got = F.to_utc_timestamp(at, F.current_timezone()).cast("string")
    fault = F.raise_error(F.format_string(outside_span(*span, "%s"), got))
    checked = F.when(at.isNull() | at.between(first, last), at).otherwise(fault.cast("timestamp_ltz"))
    return labels.withColumn(options.time, checked)
