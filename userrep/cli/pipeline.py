"""The commands that run batch stages: ``demo``, ``pipeline``, ``daily``, ``backfill``, ``run`` and ``nightly``."""

import shlex
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from userrep.cli.error_report import report_error
from userrep.cli.options import (
    AsJson,
    AsOf,
    Output,
    Overrides,
    choice_argument,
    command,
    context_for_run,
    date_option,
    session_of,
    tables_of,
)
from userrep.config import Config
from userrep.errors import UsageError
from userrep.logs import in_columns, this_run_id

if TYPE_CHECKING:
    from userrep.workflows.run_context import RunContext
    from userrep.workflows.run_plan import PlannedStage, RunPlan

JOB_NAMES = (  # of `run_job`, whose module is slow to import
    "build_activity_tiles", "train_item_vectors", "build_user_features", "train_autoencoder", "embed_users",
    "monitor_drift", "publish_snapshot", "maintain_tables", "train_return_propensity",
)  # fmt: skip
FOR_RETRAINING = ("train_item_vectors", "build_user_features")  # jobs that take --retrain
_OWN_COMMANDS = {
    "evaluate_space": "userrep evaluate", "forget_users": "userrep forget", "stream_embeddings": "userrep stream",
    "generate_events": "spark-submit jobs/generate_events.py",
}  # fmt: skip
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print what would be read, run and skipped, and the expected time. Writes nothing."),
]


@command
def demo(overrides: Overrides = None) -> Output:
    """Run all batch stages on a generated log.

    Generates a log of 3,000 users, trains a space, publishes snapshots and trains a downstream model on them. Writes
    below build/demo and takes a few minutes.
    """
    from userrep.workflows.demo import AS_OF, SPEC, config_file, demo_config, ensure_log

    config = demo_config(overrides or [])
    spark = session_of(config, meanwhile=lambda: ensure_log(config, SPEC))
    from return_propensity.training import train_return_propensity
    from userrep.workflows.pipeline import run_pipeline
    from userrep.workflows.run_context import RunContext

    work = RunContext(config, spark, AS_OF)
    serving = run_pipeline(work)
    with work.lease("train_return_propensity"):
        outcomes = train_return_propensity(work)
    sets = [f"--set={override}" for override in overrides or []]
    output, option = _stages(work, serving=serving.space_id), shlex.join(["--config", str(config_file()), *sets])
    aucs = [f"  {o.input:<16} {o.dims:>4} dims   {o.auc:.4f}" for o in outcomes]
    next_steps = [
        f"  userrep status {option}",
        f"  userrep export embeddings {option} --as-of {AS_OF} --out build/embeddings",
        f"  userrep pipeline {option} --as-of {AS_OF} --retrain",
        f"  userrep run train_return_propensity {option} --as-of {AS_OF}",
        f"  userrep spaces list {option}",
    ]
    return Output(
        output.result | {"auc": {outcome.input: outcome.auc for outcome in outcomes}},
        [*output.lines, "", "return propensity, test AUC:", *aucs, "", "Try next:", *next_steps],
    )


@command
def pipeline(
    config: Config,
    as_of: AsOf,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train a new space even if one exists.")] = False,
    dry_run: DryRun = False,
) -> Output:
    """Run all batch stages for an as-of date.

    Stages that are up to date are skipped. Trains a space if there is none, or with --retrain. Promotes it only if no
    space is serving.
    """
    if dry_run:
        return _dry_run(config, "pipeline", [as_of], lambda plan: plan.pipeline(retrain=retrain))
    work = context_for_run(config, as_of)
    from userrep.workflows.pipeline import run_pipeline  # imports torch, which the checks before Spark do not need

    serving = run_pipeline(work, retrain=retrain)
    return _stages(work, serving=serving.space_id)


@command
def daily(
    config: Config,
    as_of: AsOf,
    as_if_on_time: Annotated[
        bool,
        typer.Option("--as-if-on-time", help="Stamp snapshots as if the run had been on time, to replay the past."),
    ] = False,
    dry_run: DryRun = False,
) -> Output:
    """Refresh, embed, gate and publish; no training.

    Publishes a snapshot of the as-of date for every space in use: the serving space, spaces that wait to serve, spaces
    that consumers are pinned to, and those needed for a rollback.

    Window sums are updated by the days that enter and leave the windows and by days that changed in the log. Published
    dates that late data has made stale are reported. Run `userrep backfill --stale` to rebuild them.
    """
    if dry_run:
        return _dry_run(config, "daily", [as_of], lambda plan: plan.daily())
    work = context_for_run(config, as_of)
    from userrep.workflows import daily as workflow  # imports torch, which the checks before Spark do not need

    spaces = workflow.daily(work, on_time=as_if_on_time)
    serving = next((space.space_id for space in spaces if space.state == "serving"), None)
    return _stages(work, serving=serving)


@command
def backfill(
    config: Config,
    first: Annotated[date | None, date_option("--from", "First as-of date.")] = None,
    last: Annotated[date | None, date_option("--to", "Last as-of date, inclusive.")] = None,
    every: Annotated[int | None, typer.Option(metavar="DAYS", help="Days between as-of dates. Default: 1.")] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Instead of a range, rebuild published dates that late data made stale.")
    ] = False,
    dry_run: DryRun = False,
) -> Output:
    """Build and publish snapshots of past dates.

    This is for the serving space or, with --stale, for all spaces in use. Snapshots are stamped as if they had been
    published on time; rebuilt ones are available from now on. Dates that are up to date are skipped. Groups of dates
    share one pass over the tiles. If interrupted, run the same command again to continue.
    """
    if stale == bool(first and last) or bool(first) != bool(last):
        raise UsageError("backfill: needs either both --from and --to, or --stale.")
    if stale and every is not None:
        raise UsageError("backfill: --every does not apply to --stale. Remove it.")
    from userrep.workflows.schedule import dates_between

    dates = dates_between(first, last, 1 if every is None else every) if first and last else []
    if dry_run:
        return _dry_run(config, "backfill", dates, lambda plan: plan.backfill(dates))
    work = context_for_run(config, *dates)
    from userrep.workflows import daily as workflow

    workflow.backfill(work, dates) if dates else workflow.backfill_stale(work)
    return _stages(work)


@command
def run(
    job: Annotated[str, choice_argument("JOB", JOB_NAMES, "run", elsewhere=_OWN_COMMANDS)],
    config: Config,
    as_of: Annotated[
        date | None,
        date_option(
            "--as-of", "Also today or yesterday. Default: the day after the last log day. Maintenance ignores it."
        ),
    ] = None,
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain",
            help="For train_item_vectors and build_user_features: also cover the dates that train_autoencoder needs.",
        ),
    ] = False,
) -> Output:
    """Run one job of jobs/ by name."""
    if retrain and job not in FOR_RETRAINING:
        raise UsageError(f"run {job}: --retrain applies only to {', '.join(FOR_RETRAINING)}. Remove it.")
    work = context_for_run(config, None if job == "maintain_tables" else as_of)
    from userrep.workflows.jobs import run_job  # imports torch, which the checks before Spark do not need

    run_job(work, job, retrain=retrain)
    return _stages(work)


@command
def nightly(config: Config, as_of: AsOf = "today", as_json: AsJson = False) -> Output:  # type: ignore[assignment]
    """Run `daily`, erasures, maintenance and retraining.

    Maintenance runs if the last one was a week ago. With a section `retraining`, a candidate is trained when it is due,
    and compared with the serving space for the consumers that have recorded a verdict before. Each part runs even if an
    earlier one failed or was refused. Prints one line per part. The exit code is the first of these that a part has:
    1 failed, 4 the log is not complete yet, 2 wrong use or configuration, 3 a gate refused. Run the same command again
    to repeat the parts that did not succeed; parts that are done are skipped.
    """
    tables = tables_of(config, writes=True)
    from userrep.workflows.nightly import exit_code, nightly_parts

    parts = []
    for part in nightly_parts(tables, config, as_of, lambda: context_for_run(config, as_of), report_error):
        parts.append(part)
        if not as_json:
            typer.echo(f"{part.part:<12} {part.outcome:<9} {part.seconds:6.1f} s  {part.reason}")
    code = exit_code(parts)
    result = {"run_id": this_run_id(), "as_of": as_of, "exit_code": code, "parts": parts}
    return Output(result, exit_code=code)


def _dry_run(
    config: Config, command: str, as_ofs: list[date], stages: Callable[["RunPlan"], list["PlannedStage"]]
) -> Output:
    from userrep.workflows.dry_run import dry_run, dry_run_lines

    plan = dry_run(tables_of(config, expected=False), config, command, as_ofs, stages)
    return Output(plan, dry_run_lines(plan))


def _stages(work: "RunContext", serving: str | None = None) -> Output:
    rows = [[s.stage, s.outcome, f"{s.num_rows:,}", f"{s.seconds:.1f}", s.reason] for s in work.runs.stages]
    lines = in_columns(["stage", "outcome", "rows", "seconds", "reason"], rows)
    if work.self_check:
        lines += ["", *work.self_check.lines]
    if serving:
        lines += ["", f"serving space: {serving}"]
    result = {
        "run_id": work.runs.run_id,
        "as_of": work.as_of,
        "serving": serving,
        "stages": work.runs.stages,
        "self_check": work.self_check and work.self_check.model_dump(mode="json"),
    }
    return Output(result, lines)
