"""Training sets: labels joined with embeddings, with a record of the snapshots that makes the join reproducible."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from userrep.errors import UsageError, UserrepError, changed_meanwhile, shortened
from userrep.ids import checked_name, short_hash
from userrep.joins.arrow_join import Resolved, StoredVectors, joined_arrow
from userrep.joins.ledger import Sources, report_in_sample, sources_of, steps_of, usable_sources, with_snapshot
from userrep.joins.options import JoinOptions, column, prepared
from userrep.joins.statuses import SPACE_ID
from userrep.spaces.consumers import record_training_set
from userrep.spaces.registry import Space, find_space, read_registry
from userrep.spaces.snapshots import EXPIRED, PUBLISHED, Snapshot, list_snapshots
from userrep.store.file_tables import FileTables
from userrep.store.schemas import SNAPSHOTS, TRAINING_SETS
from userrep.store.tables import Tables
from userrep.utc import EPOCH, utc_now

if TYPE_CHECKING:  # so that readers of a root need not have PySpark
    from pyspark.sql import DataFrame

_MAX_NAME = 64 - 11  # the id of a training set adds a dash and a hash
# Ids of the snapshots that labels resolve to, and their first and last time in microseconds since 1970, if any has one.
_Use: TypeAlias = tuple[Collection[str], int | None, int | None]
TRAINING_SET_ID = "userrep_training_set_id"  # key in the metadata of a vector column, and in ``attrs`` of pandas


@dataclass(frozen=True)
class TrainingSet:
    """A row of ``training_sets``. Times are UTC."""

    training_set_id: str
    name: str
    consumer: str | None
    space_id: str
    snapshot_ids: list[str]
    options: str
    first_label_at: datetime
    last_label_at: datetime
    created_at: datetime

    @property
    def join_options(self) -> JoinOptions:
        return JoinOptions(**json.loads(self.options))


def create_training_set(
    labels: DataFrame,
    *,
    tables: Tables,
    name: str,
    space: Space | str | None = None,
    consumer: str | None = None,
    options: JoinOptions = JoinOptions(),  # noqa: B008  # frozen
) -> DataFrame:
    """Join labels as ``join_embeddings`` does, and record the join so that ``read_training_set`` can repeat it.

    The record contains the space, the options and the snapshots that the label times resolve to; retention keeps these
    snapshots. Creating a training set again with the same name, consumer, snapshots, options and span of label times
    returns the existing one.

    ``space`` is by default the one that the ``consumer`` uses, or the serving space without a consumer. The registry
    row of the consumer then names the training set.

    Returns the lazy result of ``join_embeddings``; get the id of the training set with ``training_set_id``. Immediate
    cost: one aggregate of the label times, which does not shuffle the labels, and a commit.

    Raises UsageError as ``join_embeddings``, or if no label has a time or a snapshot, labels resolve to an expired
    snapshot, or the consumer is not registered. Raises UserrepError if one of the snapshots expires meanwhile.
    """
    labels = prepared(labels, options)
    record, sources = recorded_join(labels, tables=tables, name=name, space=space, consumer=consumer, options=options)
    return joined_as_recorded(labels, tables, sources, record)


def create_training_table(
    labels: pa.Table, *, tables: Tables, name: str, space: str | None, consumer: str | None, options: JoinOptions
) -> tuple[pa.Table, str]:
    """Join labels as ``join_table`` does, and record the join as ``create_training_set`` does.

    Returns the joined labels, in any order, and the id of the training set. The same labels in Spark get the same id.
    """
    record, sources = recorded_join(labels, tables=tables, name=name, space=space, consumer=consumer, options=options)
    return table_as_recorded(labels, tables, sources, record), record.training_set_id


def recorded_join(
    labels: DataFrame | pa.Table, *, tables: Tables, name: str, space: Space | str | None, consumer: str | None,
    options: JoinOptions,
) -> tuple[TrainingSet, Sources]:  # fmt: skip
    """Resolve and record labels from ``prepared``, or of Arrow, as ``create_training_set`` does, without joining them.

    Returns the record, and the sources of its snapshots.
    """
    sources = _chosen_sources(tables, name, space, consumer)
    use = (_use_of_table if isinstance(labels, pa.Table) else _use)(labels, sources, options)
    record = _recorded(tables, sources, use, name=name, consumer=consumer, options=options)
    if consumer is not None:
        ids = record.snapshot_ids
        record_training_set(tables, consumer, training_set_id=record.training_set_id, snapshot_ids=ids)
    return record, _pinned(sources, record)


def table_as_recorded(labels: pa.Table, tables: Tables, sources: Sources, record: TrainingSet) -> pa.Table:
    """Join Arrow labels with the snapshots of a record. Returns their rows, in any order."""
    options = record.join_options
    if not isinstance(tables, FileTables) or options.updates:
        frame = prepared(tables.spark.createDataFrame(labels), options)
        return joined_as_recorded(frame, tables, sources, record).toArrow()
    resolved = Resolved.of(labels, sources, options)
    return joined_arrow(labels, resolved, StoredVectors.of(tables, sources, options), options)


def _chosen_sources(tables: Tables, name: str, space: Space | str | None, consumer: str | None) -> Sources:
    """Check the name, and read the sources of a space, by default the one that the consumer uses."""
    checked_name(name, "training set")
    if len(name) > _MAX_NAME:
        raise UsageError(
            f"training set {name!r}: must have at most {_MAX_NAME} characters, got {len(name)}. Its id adds a hash. "
            "Choose a shorter name."
        )
    pinned_space_id = read_registry(tables).consumer(consumer).pinned_space_id if consumer is not None else None
    return usable_sources(tables, space or pinned_space_id)


def _recorded(
    tables: Tables, sources: Sources, use: _Use, *, name: str, consumer: str | None, options: JoinOptions
) -> TrainingSet:
    """Report in-sample labels and return the record of a join, after adding it to the ledger unless it exists."""
    ids, first_us, last_us = use
    if first_us is None or last_us is None:
        raise UsageError(f"labels: no row has a time in {options.time}. Pass at least one label with a time.")
    snapshots = _checked(ids, sources, options)
    report_in_sample(sources.space, snapshots, options)
    first, last = (EPOCH + timedelta(microseconds=us) for us in (first_us, last_us))
    snapshot_ids = [snapshot.snapshot_id for snapshot in snapshots]
    key = [consumer, sources.space.space_id, snapshot_ids, asdict(options), first, last]
    record = TrainingSet(
        training_set_id=checked_name(f"{name}-{short_hash(key)}", "training set"),
        name=name,
        consumer=consumer,
        space_id=sources.space.space_id,
        snapshot_ids=snapshot_ids,
        options=json.dumps(asdict(options)),
        first_label_at=first,
        last_label_at=last,
        created_at=utc_now(),
    )
    where = f"training_set_id = '{record.training_set_id}'"
    is_new = tables.change(
        TRAINING_SETS, lambda rows: None if rows else [vars(record)], replacing=where,
        training_set_id=record.training_set_id,
    )  # fmt: skip
    if not is_new:
        record = list_training_sets(tables, training_set_id=record.training_set_id)[0]
    else:
        expired = {snapshot.snapshot_id for snapshot in list_snapshots(tables, record.space_id, states=(EXPIRED,))}
        if expired & {*snapshot_ids}:  # by an expiry that has not seen the record
            raise changed_meanwhile(SNAPSHOTS.name)
    return record


def read_training_set(labels: DataFrame, training_set_id: str, *, tables: Tables) -> DataFrame:
    """Join the labels of a training set again, with exactly the snapshots that it was created with.

    Parameters
    ----------
    labels : the labels that the training set was created from, as a Spark DataFrame. A label outside their span of
        times fails the job; a new label within it gets the newest of the recorded snapshots at its time.

    Returns
    -------
    The same rows as when the training set was created. Updates computed after its creation are ignored. Lazy, except
    for ledger reads.

    Raises
    ------
    UsageError
        If the training set is unknown, or the labels fail the checks of ``join_embeddings``.
    UserrepError
        If snapshots of the training set have expired or are missing; the error names them.
    """
    records = list_training_sets(tables, training_set_id=checked_name(training_set_id, "training set"))
    if not records:
        known = ", ".join(record.training_set_id for record in list_training_sets(tables)[-10:]) or "none"
        raise UsageError(f"training set {training_set_id}: not in the ledger. The newest training sets: {known}.")
    if not hasattr(labels, "sparkSession"):
        kind = type(labels).__name__
        raise UsageError(f"labels: expected a Spark DataFrame, got a {kind}. Convert it with spark.createDataFrame.")
    labels = prepared(labels, records[0].join_options)
    sources = sources_of(tables, find_space(tables, records[0].space_id))
    return joined_as_recorded(labels, tables, _pinned(sources, records[0]), records[0])


def list_training_sets(tables: Tables, **equal: str) -> list[TrainingSet]:
    """Return the training sets whose columns equal these values, oldest first."""
    rows = [TrainingSet(**row.asDict()) for row in tables.ledger(TRAINING_SETS, **equal)]
    return sorted(rows, key=lambda row: (row.created_at, row.training_set_id))


def training_set_id(rows: DataFrame) -> str:
    """Return the id of the training set that these rows belong to. Raises UsageError if they belong to none."""
    for field in rows.schema.fields:
        if set_id := (field.metadata or {}).get(TRAINING_SET_ID):
            return str(set_id)
    raise UsageError("these rows belong to no training set. Create one with `userrep.open(ROOT).training_set`.")


def joined_as_recorded(labels: DataFrame, tables: Tables, sources: Sources, record: TrainingSet) -> DataFrame:
    """Join labels from ``prepared`` with the snapshots of a record. Lazy, except for ledger reads."""
    from userrep.joins.join import joined  # imports Spark

    options, metadata = record.join_options, {SPACE_ID: record.space_id, TRAINING_SET_ID: record.training_set_id}
    rows = joined(labels, tables, sources, options)
    return rows.withColumn(options.output, column(options.output).alias(options.output, metadata=metadata))


def _pinned(sources: Sources, record: TrainingSet) -> Sources:
    """Return the sources with the snapshots of a record only.

    Raises UserrepError if retention has deleted some of them since.
    """
    states = {snapshot.snapshot_id: snapshot.state for snapshot in sources.snapshots}
    missing = [name for name in record.snapshot_ids if states.get(name) != PUBLISHED]
    if missing:
        listed = [f"{name} ({states.get(name, 'not in the ledger')})" for name in missing]
        raise UserrepError(
            f"training set {record.training_set_id}: snapshots are missing: {', '.join(listed)}. The training set "
            "cannot be read again. Create another one, without the labels that resolve to these snapshots (status "
            "'expired')."
        )
    return replace(
        sources,
        snapshots=[snapshot for snapshot in sources.snapshots if snapshot.snapshot_id in record.snapshot_ids],
        span=(record.first_label_at, record.last_label_at),
        updates_until=record.created_at,
    )


def _use(labels: DataFrame, sources: Sources, options: JoinOptions) -> _Use:
    """Resolve labels. Cost: one aggregate of their times."""
    from pyspark.sql import functions as F

    steps = steps_of(sources.snapshots, options.availability)
    at = F.unix_micros(column(options.time))
    times = with_snapshot(labels.select(column(options.time)), steps, time=options.time)
    ids, first_us, last_us = times.agg(F.collect_set("__snapshot_id"), F.min(at), F.max(at)).collect()[0]
    return ids, first_us, last_us


def _use_of_table(labels: pa.Table, sources: Sources, options: JoinOptions) -> _Use:
    resolved = Resolved.of(labels, sources, options)
    span = pc.min_max(resolved.times.cast(pa.int64())).as_py()
    return [snapshot.snapshot_id for snapshot in resolved.snapshots], span["min"], span["max"]


def _checked(ids: Collection[str], sources: Sources, options: JoinOptions) -> list[Snapshot]:
    """Return the snapshots by date and revision. Raises UsageError if there are none, or one has expired."""
    used = [s for s in sources.snapshots if s.snapshot_id in ids]
    expired = [s for s in used if s.state == EXPIRED]
    if expired:
        names = shortened([snapshot.snapshot_id for snapshot in expired])
        raise UsageError(
            f"labels: some resolve to expired snapshots, whose rows are deleted: {names}. Leave out the labels "
            "whose `embedding_status` is 'expired' after `userrep.open(ROOT).join(labels)`."
        )
    if not used:
        since = steps_of(sources.snapshots, options.availability)[0].since
        raise UsageError(
            f"labels: none has a snapshot, because the first one of space {sources.space.space_id} is available from "
            f"{since} UTC on. Use later labels, or build earlier dates with `userrep backfill`."
        )
    return used
