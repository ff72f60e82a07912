"""``userrep stream``: events and new users reach the embedding within seconds, until it is told to stop."""

from collections.abc import Callable
from datetime import date, timedelta

from userrep.errors import UsageError
from userrep.features.sums.openings import build_openings, with_files
from userrep.items.versions import Versions, lineage_of, versions_of
from userrep.spaces.snapshots import list_snapshots
from userrep.streaming.arriving import check_arriving, schemas_of
from userrep.streaming.batches import MicroBatches, day_met, encoded_spaces
from userrep.streaming.online import online_store
from userrep.streaming.place import StreamPlace
from userrep.streaming.query import Queries, start_queries
from userrep.workflows.pipeline import Pipeline
from userrep.workflows.stream_run import Progress, StreamRun


def stream_embeddings(
    work: Pipeline, *, until_empty: bool, new_query_id: str | None, is_stopping: Callable[[], bool] = lambda: False
) -> Progress:
    """Encode users anew as their events arrive, until ``is_stopping`` says so; with ``until_empty``, what is there.

    First the openings are made that are missing. A query that fails is started again from its checkpoint, after a while
    that doubles; it gives up when it has failed ten times without a batch in between. Returns what was done since the
    last row of ``job_runs``.

    Raises
    ------
    UsageError
        If nothing is published yet, a source is not there, or the checkpoint is lost or another stream's.
    UserrepError
        If the broker or the online store does not answer at the start, or the query fails for good.
    """
    work.check()
    config, tables = work.config, work.tables
    stream = config.streaming
    tables = with_files(tables)
    query_id = new_query_id or stream.query_id
    place = StreamPlace(tables.artifacts_root, query_id)
    place.check(tables, config, is_new=new_query_id is not None)
    store = online_store(stream)
    if store is not None:
        store.check()
    check_arriving(work.spark, config)
    newest = newest_published(work)
    open_days(work, newest, versions_of(tables, config, anchor=newest), only_missing=True)
    schemas = place.claim(config, lambda: schemas_of(work.spark, config))
    batches = MicroBatches(
        tables, config, query_id, work.report, gives_up=until_empty, is_stopping=is_stopping, today=day_met(tables)
    )
    since = newest + timedelta(days=1 - stream.open_days)

    def start() -> Queries:
        return start_queries(
            config, batches, schemas=schemas, since=since, folder=place.folder, until_empty=until_empty
        )

    run = StreamRun(work.runs, batches, is_stopping)
    run.until_done(start)
    return run.progress


def open_days(work: Pipeline, as_of: date, versions: Versions, *, only_missing: bool = False) -> None:
    """Make the openings of the days after an as-of date that are missing or, unless ``only_missing``, stale."""
    with work.runs.stage("open_days") as run:
        days = work.config.streaming.open_days
        made = build_openings(
            work.tables, work.config, versions, as_of, profiles=work.profiles, open_days=days, only_missing=only_missing
        )
        if not made:
            return run.skip(f"openings of {days - 1} dates after {as_of}")
        run.num_rows = sum(opening.num_users for opening, _ in made)
        run.reason = "; ".join(f"{opening.as_of}: {why}" for opening, why in made)
    return None


def newest_published(work: Pipeline) -> date:
    """Return the newest as-of date that the spaces in use have a snapshot of. Raises UsageError if there is none."""
    spaces = encoded_spaces(work.tables, lineage_of(work.config))
    dates = [of.as_of for space in spaces for of in list_snapshots(work.tables, space.space_id)]
    if not dates:
        raise UsageError("stream: no snapshot is published yet; `userrep pipeline` trains a space and publishes one.")
    return max(dates)
