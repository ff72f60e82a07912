"""``userrep stream``: keep embeddings up to date within seconds of new events and users."""

from collections.abc import Callable
from datetime import date, timedelta

from userrep.errors import UsageError, plural
from userrep.features.sums.stream_base import build_bases, with_files
from userrep.items.versions import Versions, lineage_of, versions_of
from userrep.spaces.snapshots import list_snapshots
from userrep.store.leases import held
from userrep.streaming.checkpoint import StreamCheckpoint, stream_lease
from userrep.streaming.micro_batches import MicroBatches, encoded_spaces, last_seen_day
from userrep.streaming.query import Queries, start_queries
from userrep.streaming.redis_store import online_store
from userrep.streaming.sources import check_arriving, schemas_of
from userrep.workflows.run_context import RunContext
from userrep.workflows.stream_supervisor import StreamProgress, StreamRun


def stream_embeddings(
    work: RunContext, *, until_empty: bool, new_query_id: str | None, is_stopping: Callable[[], bool] = lambda: False
) -> StreamProgress:
    """Encode users again as their events arrive, until ``is_stopping`` returns True.

    With ``until_empty``, process what has arrived and return. Missing stream bases are built first. ``StreamRun``
    restarts queries that fail. Returns the progress since the last row of ``job_runs``.

    Raises
    ------
    AlreadyRunningError
        If another process runs the stream.
    UsageError
        If nothing is published yet, a source is missing, or the checkpoint is lost or belongs to another stream.
    UserrepError
        If the broker or the online store does not answer at the start, or the query keeps failing.
    """
    work.check()
    query_id = new_query_id or work.config.streaming.query_id
    newest, is_new = newest_published(work), new_query_id is not None
    with held(work.tables, stream_lease(query_id)):
        return _stream(work, query_id, newest, until_empty=until_empty, is_new=is_new, is_stopping=is_stopping)


def _stream(
    work: RunContext, query_id: str, newest: date, *, until_empty: bool, is_new: bool, is_stopping: Callable[[], bool]
) -> StreamProgress:
    config, tables = work.config, with_files(work.tables)
    stream = config.streaming
    checkpoint = StreamCheckpoint(tables, query_id)
    checkpoint.check(config, is_new=is_new)
    if (store := online_store(stream)) is not None:
        store.check()
    check_arriving(work.spark, config)
    build_stream_bases(work, newest, versions_of(tables, config, anchor=newest), only_missing=True)
    since, folder = newest + timedelta(days=1 - stream.open_days), checkpoint.folder
    schemas, first_day = checkpoint.claim(config, lambda: schemas_of(work.spark, config), since=since)
    batches = MicroBatches(
        tables, config, query_id, first_day, gives_up=until_empty, is_stopping=is_stopping, today=last_seen_day(tables)
    )
    run = StreamRun(work.runs, batches, is_stopping)

    def start() -> Queries:
        checkpoint.check(config, is_new=False)  # an erasure may have removed it before a restart
        return start_queries(config, batches, schemas=schemas, since=since, folder=folder, until_empty=until_empty)

    run.until_done(start)
    return run.total


def build_stream_bases(work: RunContext, as_of: date, versions: Versions, *, only_missing: bool = False) -> None:
    """Build the stream bases of the dates after an as-of date that are missing or, unless ``only_missing``, stale."""
    with work.runs.stage("open_days") as run:
        days = work.config.streaming.open_days
        bases = build_bases(
            work.tables, work.config, versions, as_of,
            open_days=days, profiles=work.profiles, ledger=work.tiles, only_missing=only_missing,
        )  # fmt: skip
        if not bases:
            run.skip(f"stream bases of {plural(days - 1, 'date')} after {as_of}")
            return
        run.num_rows = sum(base.num_users for base, _ in bases)
        run.reason = "; ".join(f"{base.as_of}: {why}" for base, why in bases)


def newest_published(work: RunContext) -> date:
    """Return the newest as-of date of the published snapshots of the spaces in use.

    Raises
    ------
    UsageError
        If no snapshot is published.
    """
    spaces = encoded_spaces(work.tables, lineage_of(work.config))
    dates = [snapshot.as_of for space in spaces for snapshot in list_snapshots(work.tables, space.space_id)]
    if not dates:
        raise UsageError(
            "stream: no snapshot is published yet. Run `userrep pipeline --as-of DATE` to train a space and publish "
            "one."
        )
    return max(dates)
