"""The jobs by name, as ``userrep run JOB`` and the entry points in jobs/ run them."""

import argparse
import signal
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

from userrep.config import load_config
from userrep.config.values import read_as_of
from userrep.erasure.receipt import receipt_lines
from userrep.erasure.requests import Erasure, read_ids
from userrep.errors import UsageError, UserrepError, cause_outside, in_one_line
from userrep.logs import begin_run, end_run, say_why, to_stderr
from userrep.operations.maintenance import maintain_tables
from userrep.spaces.registry import Space
from userrep.spark.session import get_session
from userrep.store.filesystem import check_new_folder
from userrep.workflows.pipeline import Pipeline


def _train_item_vectors(pipeline: Pipeline, *, retrain: bool = False) -> None:
    pipeline.train_item_vectors(pipeline.schedule.feature_dates(retrain=retrain))


def _build_user_features(pipeline: Pipeline, *, retrain: bool = False) -> None:
    pipeline.build_user_features(pipeline.schedule.feature_dates(retrain=retrain), force=[pipeline.schedule.as_of])


def _job_space(pipeline: Pipeline) -> Space:
    """Return the space a job works on: a candidate without a first snapshot if there is one, else the space to use."""
    return pipeline.schedule.unfinished_candidate() or pipeline.schedule.space_to_use()


def _embed_users(pipeline: Pipeline) -> None:
    space = _job_space(pipeline)
    pipeline.embed_users(space, pipeline.schedule.snapshot_dates(space))


def _publish_snapshot(pipeline: Pipeline) -> None:
    space = _job_space(pipeline)
    pipeline.publish_snapshots(space, pipeline.schedule.snapshot_dates(space))
    pipeline.promote_first(space)


def _monitor_drift(pipeline: Pipeline) -> None:
    pipeline.monitor_drift(pipeline.schedule.space_to_use(), pipeline.schedule.as_of)


def _maintain_tables(pipeline: Pipeline) -> None:
    with pipeline.runs.stage("maintain_tables") as run:
        run.outputs = maintain_tables(pipeline.tables, pipeline.config, report=pipeline.runs.report)


JOBS: dict[str, Callable[[Pipeline], object]] = {
    "build_activity_tiles": Pipeline.build_activity_tiles,
    "train_item_vectors": _train_item_vectors,
    "build_user_features": _build_user_features,
    "train_autoencoder": Pipeline.train_unless_trained,
    "embed_users": _embed_users,
    "monitor_drift": _monitor_drift,
    "publish_snapshot": _publish_snapshot,
    "maintain_tables": _maintain_tables,
    "train_return_propensity": lambda pipeline: pipeline.train_return_propensity(pipeline.schedule.space_to_use()),
}

# Jobs that take --retrain: they also cover the dates that train_autoencoder needs next.
FOR_RETRAINING: dict[str, Callable[[Pipeline], object]] = {
    "train_item_vectors": partial(_train_item_vectors, retrain=True),
    "build_user_features": partial(_build_user_features, retrain=True),
}


def run_job(pipeline: Pipeline, name: str, *, retrain: bool = False) -> None:
    """Run a job of ``JOBS``.

    Raises
    ------
    AlreadyRunningError
        If another process runs the same job on these tables.
    """
    with pipeline.lease(name):
        (FOR_RETRAINING if retrain else JOBS)[name](pipeline)


def job_main(name: str, description: str | None) -> int:
    """Run one job from the command line of an entry point in jobs/; return the exit code."""
    parser = _parser(name, description)
    parser.add_argument(
        "--as-of", type=read_as_of, help="as-of date: YYYY-MM-DD, today or yesterday; the run uses events before 00:00 "
        "UTC of this date (default: the day after the last day of the log)"
    )  # fmt: skip
    if name in FOR_RETRAINING:
        parser.add_argument("--retrain", action="store_true", help="also prepare training of a new space")
    arguments = parser.parse_args()
    work = partial(run_job, name=name, retrain=getattr(arguments, "retrain", False))
    return _run_work(name, arguments, work, as_of=arguments.as_of)


def evaluation_main(description: str | None) -> int:
    """Run jobs/evaluate_space.py from its command line; return the exit code."""
    parser = _parser("evaluate_space", description)
    parser.add_argument("--space", help="space id (default: the serving space)")
    parser.add_argument("--out", required=True, help="new folder or URI for the results")
    arguments = parser.parse_args()

    def work(pipeline: Pipeline) -> None:
        from userrep.workflows.evaluate import evaluate_space

        evaluate_space(pipeline, arguments.space, arguments.out)

    return _run_work("evaluate_space", arguments, work, before=lambda: check_new_folder(arguments.out))


def erasure_main(description: str | None) -> int:
    """Run jobs/forget_users.py from its command line; return the exit code."""
    parser = _parser("forget_users", description)
    parser.add_argument("--users", type=Path, metavar="FILE", help="text file, one user id per line")
    parser.add_argument("--now", action="store_true", help="remove files of older table versions immediately")
    arguments = parser.parse_args()
    user_ids: list[str] = []

    def work(pipeline: Pipeline) -> None:
        receipt = Erasure(pipeline.tables, pipeline.config, user_ids, to_stderr).run(now=arguments.now)
        print("\n".join(receipt_lines(receipt)))

    def read() -> None:
        user_ids.extend(read_ids(arguments.users) if arguments.users else [])

    return _run_work("forget_users", arguments, work, before=read)


def stream_main(description: str | None) -> int:
    """Run jobs/stream_embeddings.py from its command line; return the exit code."""
    parser = _parser("stream_embeddings", description)
    parser.add_argument("--until-empty", action="store_true", help="process the events that have arrived, then exit")
    parser.add_argument("--new-query-id", metavar="NAME", help="start a new stream with this name")
    arguments = parser.parse_args()
    is_stopping = stop_on_signals()

    def work(pipeline: Pipeline) -> None:
        from userrep.workflows.stream import stream_embeddings

        stream_embeddings(
            pipeline,
            until_empty=arguments.until_empty,
            new_query_id=arguments.new_query_id,
            is_stopping=is_stopping,
        )

    return _run_work("stream_embeddings", arguments, work)


def stop_on_signals() -> Callable[[], bool]:
    """Catch SIGTERM and SIGINT for a graceful stop; return a function that tells if one has arrived."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    return lambda: bool(received)


def _parser(name: str, description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{name}.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="configuration file (YAML)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="override a setting")
    parser.add_argument("--run-id", metavar="ID", help="run id of all stages (default: USERREP_RUN_ID or a new id)")
    return parser


def _run_work(
    name: str,
    arguments: argparse.Namespace,
    work: Callable[[Pipeline], object],
    *,
    as_of: date | None = None,
    before: Callable[[], object] = lambda: None,
) -> int:
    """Run the work of a job and print any error; return the exit code. ``before``: checks made before Spark starts."""
    try:
        begin_run(arguments.run_id)
        config = load_config(arguments.config, arguments.set)
        before()
        spark = get_session(config.spark.master, config.spark.conf, app_name=name)
        work(Pipeline(config, spark, as_of))
    except Exception as error:  # anything Spark throws: one line here, the details are in Spark's log
        return _report_error(name, error)
    finally:
        end_run()
    return 0


def _report_error(name: str, error: Exception) -> int:
    """Print an error on stderr; return its exit code."""
    if cause := cause_outside(error):
        say_why([cause], who=name)
    elif isinstance(error, UserrepError):
        say_why(error.faults if isinstance(error, UsageError) else [str(error)], who=name)
        return error.exit_code
    else:
        say_why([in_one_line(error)], who=name)
    return 1
