"""Training sets: labels joined with embeddings, and a record of the snapshots, so that they can be joined so again."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from userrep.errors import UsageError, UserrepError
from userrep.ids import checked_name, short_hash
from userrep.joins.join import Sources, check_usable, joined, sources_of, tell_in_sample
from userrep.joins.options import JoinOptions, check_labels
from userrep.joins.outputs import SPACE_ID
from userrep.joins.resolution import column, steps_of, with_snapshot
from userrep.spaces.consumers import find_consumer, record_training_set, space_of_consumer
from userrep.spaces.registry import Space, find_space
from userrep.spaces.snapshots import EXPIRED, Snapshot
from userrep.store.schemas import TRAINING_SETS
from userrep.store.tables import Tables
from userrep.utc import utc_now

TRAINING_SET_ID = "userrep_training_set_id"  # in the metadata of a training set's vectors
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # naive and UTC, as ledgers hold times


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


def create_training_set(
    labels: DataFrame,
    *,
    tables: Tables,
    name: str,
    space: Space | str | None = None,
    consumer: str | None = None,
    options: JoinOptions = JoinOptions(),  # noqa: B008  # frozen
) -> DataFrame:
    """Join labels as ``join_embeddings`` does, and record with what, so that ``read_training_set`` can do it again.

    The record has the space, the options and the snapshots that the labels' times resolve to; retention keeps these.
    The same name, consumer, snapshots, options and span of times are one training set, however often it is created.

    Parameters
    ----------
    space : an id, or ``serving``; by default the one that the consumer uses, else the one that serves. consumer : a
        registered one, in whose row of the registry the training set is named.

    Returns
    -------
    What ``join_embeddings`` returns, lazily; ``training_set_id`` tells its id. Cost at once: one aggregate of the
    labels' times, without a shuffle of labels, which brings a row per snapshot to the driver, and a commit.

    Raises
    ------
    UsageError
        As ``join_embeddings``; or if no label has a snapshot, some resolve to an expired one, or there is no such
        consumer.
    """
    checked_name(name, "training set")
    check_labels(labels, options)
    if consumer is not None and space is None:
        space = space_of_consumer(tables, consumer)
    elif consumer is not None:
        find_consumer(tables, consumer)
    found = space if isinstance(space, Space) else find_space(tables, space)
    check_usable(tables, found)
    sources = sources_of(tables, found)
    snapshots, first, last = _used(labels, sources, options)
    if seen := [s.as_of for s in snapshots if s.in_sample]:
        tell_in_sample(found, seen[0], options)
    key = [consumer, found.space_id, [s.snapshot_id for s in snapshots], asdict(options), first, last]
    record = TrainingSet(
        training_set_id=checked_name(f"{name}-{short_hash(key)}", "training set"),
        name=name,
        consumer=consumer,
        space_id=found.space_id,
        snapshot_ids=[s.snapshot_id for s in snapshots],
        options=json.dumps(asdict(options)),
        first_label_at=first,
        last_label_at=last,
        created_at=utc_now(),
    )
    earlier = list_training_sets(tables, training_set_id=record.training_set_id)
    if not earlier:
        tables.add(TRAINING_SETS, [vars(record)])
    rows = _joined(labels, tables, *earlier[:1] or [record])
    if consumer is not None:
        record_training_set(tables, consumer, training_set_id=record.training_set_id, snapshot_ids=record.snapshot_ids)
    return rows


def read_training_set(labels: DataFrame, training_set_id: str, *, tables: Tables) -> DataFrame:
    """Join the labels of a training set with the very snapshots that it was created with, whatever came since.

    Parameters
    ----------
    labels : the same as then. A label outside of their span of times fails the job; others than then, within it, get
        the newest of the recorded snapshots that counts at their time.

    Returns
    -------
    The rows of then. Updates that were computed after its creation don't count. Lazy, but for reads of ledgers.

    Raises
    ------
    UsageError
        If there is no such training set, or labels are not as ``join_embeddings`` wants them.
    UserrepError
        If one of its snapshots is gone; it is named.
    """
    found = list_training_sets(tables, training_set_id=checked_name(training_set_id, "training set"))
    if not found:
        known = ", ".join(record.training_set_id for record in list_training_sets(tables)[-10:]) or "none"
        raise UsageError(f"training set {training_set_id}: not in the ledger; the last ones are: {known}.")
    check_labels(labels, JoinOptions(**json.loads(found[0].options)))
    return _joined(labels, tables, found[0])


def list_training_sets(tables: Tables, **equal: str) -> list[TrainingSet]:
    """Return the training sets whose columns have these values, oldest first."""
    rows = [TrainingSet(**row.asDict()) for row in tables.ledger(TRAINING_SETS, **equal)]
    return sorted(rows, key=lambda row: (row.created_at, row.training_set_id))


def training_set_id(rows: DataFrame) -> str:
    """Return the id of the training set that these rows are of. Raises UsageError if they are of none."""
    for field in rows.schema.fields:
        if found := (field.metadata or {}).get(TRAINING_SET_ID):
            return str(found)
    raise UsageError("these rows are of no training set: create_training_set makes one of labels.")


def _joined(labels: DataFrame, tables: Tables, record: TrainingSet) -> DataFrame:
    """Join labels with a record's snapshots. What retention has deleted since the record was made is seen here."""
    space = find_space(tables, record.space_id)
    options = JoinOptions(**json.loads(record.options))
    sources = sources_of(tables, space)
    there = {s.snapshot_id: s for s in sources.snapshots if s.state != EXPIRED}
    gone = [name for name in record.snapshot_ids if name not in there]
    if gone:
        expired = {s.snapshot_id for s in sources.snapshots}
        listed = [f"{name} ({'expired' if name in expired else 'not in the ledger'})" for name in gone]
        raise UserrepError(
            f"training set {record.training_set_id}: its snapshots are not all there: {', '.join(listed)}. "
            "It cannot be made again as it was; create another one of the same labels, after `userrep backfill` of "
            "these dates."
        )
    pinned = Sources(
        space,
        [there[name] for name in record.snapshot_ids],
        sources.version,
        span=(record.first_label_at, record.last_label_at),
        updates_until=record.created_at,
    )
    rows = joined(labels, tables, pinned, options)
    return rows.withMetadata(options.output, {SPACE_ID: space.space_id, TRAINING_SET_ID: record.training_set_id})


def _used(labels: DataFrame, sources: Sources, options: JoinOptions) -> tuple[Sequence[Snapshot], datetime, datetime]:
    """Return the snapshots that labels resolve to, by date and revision, and the span of the labels' times."""
    steps = steps_of(sources.snapshots, options.availability)
    at = F.unix_micros(column(options.time))
    times = with_snapshot(labels.select(column(options.time)), steps, time=options.time)
    rows = times.groupBy("__snapshot_id").agg(F.min(at).alias("first"), F.max(at).alias("last")).collect()
    numbers = {row["__snapshot_id"]: (row["first"], row["last"]) for row in rows if row["first"] is not None}
    used = [s for s in sources.snapshots if s.snapshot_id in numbers]
    expired = [s for s in used if s.state == EXPIRED]
    if expired:
        raise UsageError(
            f"labels resolve to expired snapshots, whose rows are deleted: {_listed(expired)}. Leave out the labels "
            "that join_embeddings marks 'expired'."
        )
    if not used:
        first = min((step.since for step in steps), default=None)
        raise UsageError(
            f"no label has a snapshot: the first of space {sources.space.space_id} counts from {first} UTC on. "
            "Take later labels, or `userrep backfill` earlier dates."
        )
    first_us, last_us = (edge(pair[k] for pair in numbers.values()) for k, edge in ((0, min), (1, max)))
    return used, _EPOCH + timedelta(microseconds=first_us), _EPOCH + timedelta(microseconds=last_us)


def _listed(snapshots: Sequence[Snapshot]) -> str:
    shown = ", ".join(s.snapshot_id for s in snapshots[:5])
    return shown + (f" and {len(snapshots) - 5} more" if len(snapshots) > 5 else "")
